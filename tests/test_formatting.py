"""How figures are said."""

from stunet.formatting import duration


def test_durations():
    found = [duration(seconds) for seconds in (0.4, 59.6, 185, 7620)]
    assert found == ["0 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]
