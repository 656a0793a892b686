"""The shell of a page that needs nothing but itself: its style, its tables, its pictures."""

import base64
import html
import pathlib
from collections.abc import Sequence

# Okabe and Ito's colours, which people who confuse red and green tell apart; on dark paper those
# that would sink into it are lighter. An arm that comes round again is dashed.
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b6569a", "#a87400", "#2a8fc4", "#555555")
_DARK = ("#4aa3df", "#ff8a3d", "#2ec79b", "#e39acb", "#e6b040", "#8fd0f5", "#bbbbbb")
_COLOURS = len(_LIGHT)


def _arms(colours: Sequence[str]) -> str:
    return "".join(f".arm{i}{{--c:{c}}}" for i, c in enumerate(colours))


STYLE = (
    f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1d1f21; --soft: #62666b; --rule: #dadcdf;
  --box: #f5f6f7; }}
{_arms(_LIGHT)}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #17191b; --ink: #e6e7e8; --soft: #9ea3a8; --rule: #3a3d40; --box: #202326; }}
  {_arms(_DARK)}
}}
"""
    + """
body { background: var(--paper); color: var(--ink); margin: 2rem auto; max-width: 1120px;
  padding: 0 1.2rem; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.answer { background: var(--box); border-left: 4px solid var(--rule); padding: .6rem 1rem;
  margin: 1rem 0; font-size: 1.08rem; }
.answer p { margin: .25rem 0; }
.note, figcaption, caption { color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: middle; }
th { font-weight: 600; } td.pm { white-space: nowrap; } td small { color: var(--soft); }
.best { font-weight: 700; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  background: var(--c); margin-right: .4em; vertical-align: -.05em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem; }
figure { margin: 0; } .charts figure { max-width: 600px; }
svg { max-width: 100%; display: block; } figure svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: .6; } .axis { stroke: var(--soft); }
.mean { fill: none; stroke: var(--c); stroke-width: 2.2; }
.seed { fill: none; stroke: var(--c); stroke-width: .9; opacity: .6; }
.band { fill: var(--c); opacity: .17; } .dot { fill: var(--c); }
.whisker { stroke: var(--c); stroke-width: 2.2; }
.one { fill: none; stroke: var(--c); stroke-width: 1; opacity: .8; }
.again.mean, .again.whisker { stroke-dasharray: 5 3; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
summary { color: var(--soft); cursor: pointer; margin: .5rem 0; }
.pictures figure { max-width: 340px; }
.pictures img { max-width: 100%; image-rendering: pixelated; border: 1px solid var(--rule);
  display: block; margin: .3rem 0; }
code { font-size: .9em; background: var(--box); padding: .1em .3em; }
"""
)


def colour(arm: int) -> str:
    """The CSS classes of the arm of that number."""
    return f"arm{arm % _COLOURS}" + (" again" if arm >= _COLOURS else "")


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document. `title` is text, `parts` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table, of cells that are HTML; the first of each row is its name."""
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for first, *rest in rows:
        cells = "".join(f"<td class=pm>{cell}</td>" for cell in rest)
        lines.append(f"<tr><th>{first}</th>{cells}</tr>")
    caption = f"<p class=note>{caption}</p>" if caption else ""
    return f"<div class=scroll><table>{''.join(lines)}</table></div>{caption}"


def image(file: pathlib.Path | bytes, kind: str, alt: str) -> str:
    """A GIF or a PNG, inside the page."""
    data = file if isinstance(file, bytes) else file.read_bytes()
    encoded = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{encoded}">'


def swatch(arm: int, name: str) -> str:
    """An arm's name, which is text, with its colour."""
    return f'<span class="swatch {colour(arm)}"></span>{html.escape(name)}'
