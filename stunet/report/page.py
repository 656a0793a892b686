"""Builds a self-contained HTML page: its style sheet, tables and embedded pictures."""

import base64
from collections.abc import Sequence

from markupsafe import Markup

from stunet.report.markup import fill, join

# Seven hues that people who confuse red and green tell apart, after Okabe and Ito, and a grey. On
# dark paper they are lighter. From the ninth arm on they repeat, with rings and dashed lines.
LIGHT = (
    *("#0072b2", "#d55e00", "#009e73", "#a0499b"),
    *("#a87400", "#6f7479", "#7a2340", "#3c2f8f"),
)
_DARK = (
    *("#4aa3df", "#ff8a3d", "#2ec79b", "#e08fd9"),
    *("#e6b040", "#a9afb5", "#e0748f", "#9f94ff"),
)
_COLOURS = len(LIGHT)
# Colours of text, of less important text and of lines, on white paper.
INK, SOFT, RULE = "#1d1f21", "#62666b", "#dadcdf"


def _arm_colours(colours: Sequence[str]) -> str:
    return "".join(f".arm{i}{{--c:{c}}}" for i, c in enumerate(colours))


STYLE = (
    f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: {INK}; --soft: {SOFT}; --rule: {RULE};
  --box: #f4f6f8; --track: #e6e9ec; }}
{_arm_colours(LIGHT)}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #17191b; --ink: #e6e7e8; --soft: #a2a7ac; --rule: #3a3d40; --box: #202427;
    --track: #33373b; }}
  {_arm_colours(_DARK)}
}}
"""
    + """
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 2rem auto; max-width: 1160px;
  padding: 0 1.2rem; font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .2rem; border-bottom: 1px solid var(--rule);
  padding-bottom: .2rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .5rem; }
.answer { background: var(--box); border-radius: 8px; padding: .4rem 1.2rem; margin: 1.2rem 0; }
.predicted { border-left: 3px solid var(--rule); padding: .1rem 0 .1rem 1rem; margin: 1.2rem 0;
  font-size: .95rem; } .predicted p, .predicted ul { margin: .3rem 0; }
.answer > div { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; align-items: center;
  padding: .8rem 0; }
.answer > div + div { border-top: 1px solid var(--rule); }
.words { flex: 1 1 27rem; } .words p { margin: .3rem 0; }
.words p:first-child { font-size: 1.16rem; line-height: 1.45; }
.words p + p { color: var(--soft); font-size: .92rem; }
.answer figure { flex: 0 1 420px; width: 100%; }
.note, figcaption, caption { color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: middle; overflow-wrap: break-word; }
th { font-weight: 600; min-width: 5.5rem; } td { white-space: nowrap; }
td.text { white-space: normal; min-width: 6rem; }
td small, th small { color: var(--soft); font-weight: 400; }
.results td:last-child, .results th:last-child { padding-right: 0; }
.results th:first-child { min-width: 17rem; } .results small { line-height: 1.35; }
.best { font-weight: 700; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  background: var(--c); margin-right: .35em; vertical-align: -.05em; }
.dotted { white-space: nowrap; }
.swatch.real { background: none; border-radius: 0; height: 0; width: 1.5em;
  border-top: 2px dashed var(--c); vertical-align: .25em; }
.swatch.again { background: none; border: .22em solid var(--c); }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
figure { margin: 0; } .charts figure { max-width: 600px; }
svg { max-width: 100%; display: block; } figure svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .name { font-size: 14px; fill: var(--ink); }
svg .title { font-size: 22px; font-weight: 600; fill: var(--ink); }
svg .strong { font-weight: 600; } .paper { fill: var(--paper); }
svg .value { font-size: 16px; font-weight: 600; fill: var(--ink); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: .6; } .axis { stroke: var(--soft); }
.mean { fill: none; stroke: var(--c); stroke-width: 2.2; }
.seed { fill: none; stroke: var(--c); stroke-width: .9; opacity: .6; }
.band { fill: var(--c); opacity: .17; } .dot, .bar { fill: var(--c); }
.track { fill: var(--track); } .range { fill: none; stroke: var(--ink); stroke-width: 1.3; }
.whisker { stroke: var(--c); stroke-width: 2.2; }
.one { fill: none; stroke: var(--c); stroke-width: 1; opacity: .8; }
.again.mean, .again.whisker { stroke-dasharray: 5 3; }
.real { --c: var(--soft); } .real.mean { stroke-width: 1.4; stroke-dasharray: 3 3; }
.expected { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-dasharray: 1 5;
  stroke-linecap: round; }
.mark { stroke: var(--soft); stroke-dasharray: 5 4; }
.bins th, .bins td { padding-right: .7rem; } .bins td { min-width: 4.2rem; }
.bins th:first-child { min-width: 13rem; } .bins { font-size: .92rem; margin-top: .8rem; }
.legend span.key { margin-right: 1.2rem; white-space: nowrap; }
summary { color: var(--soft); cursor: pointer; margin: .6rem 0; }
.slices + .clips { margin-top: 1.2rem; }
.slices, .clips { display: flex; flex-wrap: wrap; gap: 1rem 1.1rem; align-items: flex-start; }
.slices figure { width: 170px; } .clips figure { width: 264px; }
.slices figcaption, .clips figcaption { min-height: 2.6em; display: flex;
  align-items: flex-end; }
figcaption { line-height: 1.3; margin-bottom: .25rem; }
img { display: block; image-rendering: pixelated; max-width: 100%; }
.slice { position: relative; padding: 15px 0 0 17px; margin-bottom: 6px; }
.slice img { width: 153px; height: 153px; }
.slice .across, .slice .down { position: absolute; font-size: 11px; line-height: 1;
  color: var(--soft); }
.slice .across { left: 17px; top: 1px; }
.slice .down { left: 2px; top: 15px; writing-mode: vertical-rl; }
.clips img { width: 100%; border: 1px solid var(--rule); }
code { font-size: .9em; background: var(--box); padding: .1em .3em; overflow-wrap: anywhere; }
@media (max-width: 600px) { body { margin: 1rem auto; padding: 0 .8rem; }
  .answer { padding: .2rem .8rem; } .slices figure { width: 158px; }
  .slice img { width: 141px; height: 141px; } .clips figure { width: 100%; } }
"""
)


def colour(arm: int | None) -> str:
    """Returns the CSS classes of an arm's colour.

    Args:
        arm: number of the arm, 0 or above; None for real clips.
    """
    if arm is None:
        return "real"
    return f"arm{arm % _COLOURS}" + (" again" if arm >= _COLOURS else "")


_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1">\
<title>{{ title }}</title><style>{{ style }}</style></head>
<body>
{{ body }}
</body></html>
"""

_TABLE = """\
<div class=scroll><table{% if kind %} class={{ kind }}{% endif %}>\
<tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>\
{% for row in rows %}<tr>\
{% if row|length == 1 %}<th colspan={{ head|length }}>{{ row[0] }}</th>\
{% else %}<th>{{ row[0] }}</th>\
{% for cell in row[1:] %}<td{% if not kind %} class=text{% endif %}>{{ cell }}</td>{% endfor %}\
{% endif %}</tr>{% endfor %}</table></div>\
{% if caption %}<p class=note>{{ caption }}</p>{% endif %}"""


def page(title: str, parts: Sequence[Markup], style: str = "") -> Markup:
    """Returns a whole document.

    Args:
        title: title of the browser's window.
        parts: the parts of the body.
        style: style sheet of this kind of page, which follows the common one. It must be a constant
            of the program, because it is not escaped.
    """
    body = join([part for part in parts if part], "\n")
    return fill(_PAGE, title=title, style=Markup(STYLE + style), body=body)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", kind: str = ""
) -> Markup:
    """Returns an HTML table. The first cell of each row is the row's name.

    Args:
        head: the cells of the first row. Every cell may be text or HTML.
        rows: the cells of the other rows. If a row has only one cell, the cell spans all columns.
        caption: text or HTML below the table.
        kind: CSS class of the table: "results", or "" for a table of short texts.
    """
    return fill(_TABLE, head=head, rows=rows, caption=caption, kind=kind)


def image(
    data: bytes, kind: str, alt: str, width: int | None = None, height: int | None = None
) -> Markup:
    """Returns an HTML image that holds the data of a picture.

    Args:
        data: contents of the picture's file.
        kind: "gif", "png" or "webp".
        alt: text for readers who do not see the picture.
        width: width on the page in pixels; None for the picture's own.
        height: height on the page in pixels; None for the picture's own.
    """
    encoded = base64.b64encode(data).decode()
    source = f"data:image/{kind};base64,{encoded}"
    template = (
        '<img alt="{{ alt }}" src="{{ source }}"'
        '{% if width %} width="{{ width }}"{% endif %}'
        '{% if height %} height="{{ height }}"{% endif %}>'
    )
    return fill(template, alt=alt, source=source, width=width, height=height)


def swatch(arm: int | None, name: str) -> Markup:
    """Returns the HTML of an arm's name with a dot of the arm's colour.

    Args:
        arm: number of the arm's colour; None for real clips, which have a dashed line.
        name: name of the arm.
    """
    # The dot stays on the line of the first word.
    first, space, rest = name.partition(" ")
    template = (
        '<span class=dotted><span class="swatch {{ colour }}"></span>{{ first }}</span>{{ rest }}'
    )
    return fill(template, colour=colour(arm), first=first, rest=space + rest)
