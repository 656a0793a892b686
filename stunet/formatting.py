"""How figures are said."""


def duration(seconds: float) -> str:
    """As "42 s", "3 min 05 s" or "2 h 07 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
