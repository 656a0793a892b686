"""Shows a set of shots on one page of HTML: what was kept, what was dropped and why, and clips.

The page holds everything that it shows, and plays clips without scripts.
"""

import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from stunet.data.shots.codecs import Box, cut_out
from stunet.data.shots.layout import Spec, shard_file
from stunet.data.shots.records import Shot, unpack
from stunet.data.shots.shards import Shards
from stunet.files import atomic
from stunet.formatting import counted
from stunet.prepare.filters import REASONS, Filters
from stunet.prepare.gather import locate
from stunet.prepare.summary import PrepareSummary, span
from stunet.report import page
from stunet.report.histograms import Layer, histogram
from stunet.report.markup import element, fill, join
from stunet.stores.addresses import shown

# Name of the page in the directory of the set.
PAGE_FILE = "shots.html"
# Clips on the page: kept shots, and dropped ones for each reason.
_KEPT, _OF_A_REASON = 24, 6
# Rows of clips on the page, frames per second, and frames at most.
_HEIGHT, _FPS, _FRAMES = 112, 8, 16
_QUALITY = 60
# Colours of the page: what is kept, and what each reason drops.
_KEPT_COLOUR = 0

_EXTREMES = (
    ("least motion", "motion", min, "{:.3f}"),
    ("most motion", "motion", max, "{:.2f}"),
    ("darkest", "brightness", min, "{:.0f}"),
    ("brightest", "brightness", max, "{:.0f}"),
    ("flattest", "contrast", min, "{:.1f}"),
    ("most contrast", "contrast", max, "{:.0f}"),
)

STYLE = """
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tiles div { background: var(--box); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; }
.tiles span { color: var(--soft); font-size: .86rem; }
.fates { width: 100%; } .fates th:first-child { min-width: 15rem; }
.fates tr > :nth-child(2), .fates tr > :nth-child(3) { text-align: right; }
.fates tr:first-child th:last-child { text-align: left; }
.fates td:nth-child(4) { min-width: 14rem; width: 30%; }
.fates td:last-child { white-space: normal; color: var(--soft); font-size: .9em; }
.slow { width: auto; } .slow th:first-child { min-width: 20rem; font-weight: 400; }
.slow td { text-align: right; }
.fates i { display: block; height: .8em; border-radius: 2px; min-width: 2px;
  background: var(--c); }
.small { display: grid; gap: 1.2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
.sheet { display: flex; flex-wrap: wrap; gap: 1.1rem .9rem; align-items: flex-start;
  margin: .8rem 0 1.4rem; }
.sheet figure { width: min-content; min-width: 9rem; }
.sheet img { image-rendering: auto; border-radius: 4px; max-width: none; }
.sheet figcaption { margin-top: .3rem; overflow-wrap: anywhere; }
.sheet b { font-weight: 600; color: var(--ink); display: block; }
.sheet span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
  overflow: hidden; color: var(--ink); }
.sheet small { display: block; }
ul.files { padding-left: 1.1rem; } ul.files li { overflow-wrap: anywhere; }
"""

_HEAD = """\
<h1>Shots of {{ given }}</h1><p class=note>In {{ output }}: at most {{ spec.side }} pixels on \
the shorter side, {{ "%g"|format(spec.fps) }} frames per second, \
{{ "%g"|format(spec.min_seconds) }} to about {{ "%g"|format(spec.max_seconds) }} s long, \
{{ spec.codec }} at quality {{ spec.quality }}.</p>\
<div class=tiles>{% for value, name in tiles %}<div><b>{{ value }}</b><span>{{ name }}</span></div>\
{% endfor %}</div>"""

_FIGURE = """\
<figure>{{ picture }}<figcaption>{% if title %}<b>{{ title }}</b>{% endif %}\
<span title="{{ caption }}">{{ caption }}</span>\
<small>{{ where }}</small></figcaption></figure>"""

_SECTION = """\
<h2>{{ heading }}</h2>{% if note %}<p class=note>{{ note }}</p>{% endif %}{{ body }}"""

_FILES = "<ul class=files>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>"


def write_page(
    file: Path, given: str, spec: Spec, filters: Filters, summary: PrepareSummary
) -> None:
    """Writes the page of a set of shots.

    Args:
        file: HTML file to write.
        given: name of the folder or list of videos.
        spec: how the shots were made.
        filters: which shots are dropped.
        summary: what became of the videos.

    Raises:
        UserError: a shot on the page is damaged.
    """
    clips = _Clips(summary, spec)
    parts = [
        _head(given, spec, summary),
        _section("What became of the videos", _fates(summary, spec)),
        _section("How shots are", _histograms(summary, spec, filters), _legend(summary)),
        *_sheets(summary, clips),
        *_files(summary),
    ]
    with atomic(file) as partial:
        partial.write_text(page.page(f"Shots of {given}", parts, STYLE))


def _head(given: str, spec: Spec, summary: PrepareSummary) -> Markup:
    tiles = [
        (f"{summary.shots:,}", "shots are kept"),
        (span(summary.seconds), "long, all together"),
        (span(summary.held_out_seconds), "of that held out"),
        (f"{summary.videos:,}", "videos with a shot"),
        (f"{summary.captioned:,}", "of them with a caption"),
        (f"{summary.cuts:,}", "cuts found"),
        (f"{summary.num_bytes / 2**20:,.1f} MiB", f"in {counted(summary.shards, 'file')}"),
    ]
    output = shown(str(summary.output_dir))
    return fill(_HEAD, given=given, output=output, spec=spec, tiles=tiles)


def _section(heading: str, body: Markup, note: object = "") -> Markup:
    return fill(_SECTION, heading=heading, body=body, note=note)


def _fates(summary: PrepareSummary, spec: Spec) -> Markup:
    """Returns a table of what was kept and dropped, with the share of the time."""
    rows = [("kept", _KEPT_COLOUR, counted(summary.shots, "shot"), summary.seconds, "")]
    for dropped in summary.dropped:
        what = counted(len(dropped.numbers), "shot")
        row = f"dropped: {dropped.reason}", _colour(dropped.reason), what, dropped.seconds
        rows.append((*row, dropped.example))
    if summary.left_out_seconds:
        short = f"left out: shorter than {spec.min_seconds:g} s"
        what = counted(summary.too_short, "video") if summary.too_short else ""
        rows.append((short, None, what, summary.left_out_seconds, ""))
    whole = sum(seconds for *_, seconds, _ in rows) or 1.0
    cells = [
        (
            name,
            what,
            f"{span(seconds)}, {100 * seconds / whole:.1f}%",
            element("i", "", class_=page.colour(arm), style=f"width:{100 * seconds / whole:.2f}%"),
            example,
        )
        for name, arm, what, seconds, example in rows
    ]
    if summary.skipped:
        what = counted(summary.skipped, "video")
        cells.append(("skipped: cannot be read", what, "", "", summary.reasons[0]))
    such_as = "such as" if any(cell[-1] for cell in cells) else ""
    return page.table(["", "number", "time", "", such_as], cells, kind="fates")


def _colour(reason: str) -> int:
    return 1 + [name for name, _ in REASONS.values()].index(reason)


def _legend(summary: PrepareSummary) -> Markup:
    names = {"kept": _KEPT_COLOUR} | {d.reason: _colour(d.reason) for d in summary.dropped}
    swatches = join([page.swatch(arm, name) for name, arm in names.items()], "&emsp;")
    return fill("{{ swatches }}. A dashed line marks a threshold.", swatches=swatches)


def _histograms(summary: PrepareSummary, spec: Spec, filters: Filters) -> Markup:
    columns = summary.gathered.columns
    decisions = np.zeros(len(columns.frames), np.int32)
    for dropped in summary.dropped:
        decisions[dropped.numbers] = _colour(dropped.reason)

    def drawn(values: np.ndarray, label: str, **options) -> Markup:
        layers = [
            Layer(int(arm), values[decisions == arm].astype(float)) for arm in np.unique(decisions)
        ]
        return element("figure", histogram(layers, label, **options))

    shorter = np.minimum(columns.height, columns.width)
    marks = vars(filters)
    figures = [
        drawn(columns.frames / spec.fps, "length, s"),
        drawn(columns.motion, "motion, shorter sides per second", mark=marks["min_motion"]),
        drawn(columns.brightness, "mean brightness, of 255", mark=marks["min_brightness"]),
        drawn(columns.contrast, "contrast, of 128", mark=marks["min_contrast"]),
        drawn(shorter, "shorter side, pixels", mark=marks["min_size"], whole=True),
        drawn(np.maximum(columns.height, columns.width) / shorter, "longer side / shorter side"),
    ]
    words = summary.gathered.words.astype(float)
    if len(words):
        figures.append(
            element("figure", histogram([Layer(None, words)], "words in a caption", whole=True))
        )
    return element("div", join(figures), class_="small")


def _sheets(summary: PrepareSummary, clips: "_Clips") -> Iterator[Markup]:
    """Yields sections of clips: kept shots, extremes among them, and dropped shots."""
    columns = summary.gathered.columns
    is_kept = np.ones(len(columns.frames), bool)
    for dropped in summary.dropped:
        is_kept[dropped.numbers] = False
    kept = np.flatnonzero(is_kept)
    note = "Shots from all parts of the set, two seconds of each."
    yield _section("Shots that are kept", clips.sheet(_spread(kept, _KEPT)), note)
    extremes: dict[int, list[str]] = {}
    for name, column, best, form in _EXTREMES:
        values = getattr(columns, column)[kept]
        place = int(values.argmin() if best is min else values.argmax())
        words = f"{name}, {form.format(values[place])}"
        extremes.setdefault(int(kept[place]), []).append(words)
    longest = int(kept[columns.frames[kept].argmax()])
    extremes.setdefault(longest, []).append("longest")
    titles = ["; ".join(words) for words in extremes.values()]
    yield _section("The strangest of them", clips.sheet(extremes, titles))
    sheets = []
    for dropped in summary.dropped:
        heading = element("h3", f"{dropped.reason}: {counted(len(dropped.numbers), 'shot')}")
        sheets += [heading, clips.sheet(_spread(dropped.numbers, _OF_A_REASON))]
    if sheets:
        note = "They stay in their files. Another threshold brings them back without decoding."
        yield _section("Shots that are dropped", join(sheets), note)


def _spread(numbers: np.ndarray, count: int) -> list[int]:
    """Returns at most `count` of some numbers, evenly spread over them."""
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
    return numbers[places].tolist()


def _files(summary: PrepareSummary) -> Iterator[Markup]:
    """Yields sections about files: the slowest, and those with something to say of."""
    if summary.slowest:
        head = ["file", "processor time", "frames", "frames per second"]
        rows = [
            (slow.path, f"{slow.seconds:.1f} s", f"{slow.frames:,}", f"{slow.rate:,.0f}")
            for slow in summary.slowest
        ]
        note = "Of the videos that this command decoded."
        yield _section("The slowest files", page.table(head, rows, kind="slow"), note)
    if summary.notes:
        yield _section("Notes", fill(_FILES, lines=summary.notes))
    if summary.reasons:
        rest = summary.skipped - len(summary.reasons)
        note = f"And {rest:,} more, which the manifests name." if rest else ""
        yield _section("Files that cannot be read", fill(_FILES, lines=summary.reasons), note)


@dataclasses.dataclass(frozen=True)
class _Clips:
    """Makes small looping clips of shots.

    Attributes:
        summary: what became of the videos.
        spec: how the shots were made.
    """

    summary: PrepareSummary
    spec: Spec

    def sheet(self, numbers: Iterable[int], titles: Sequence[str] = ()) -> Markup:
        """Returns the clips of some shots, with their captions and places."""
        figures = []
        for place, number in enumerate(numbers):
            shard, record, video, begin = locate(
                self.summary.output_dir, self.summary.gathered, number
            )
            shot, picture = self._read(shard, record)
            caption = shot.captions[0]
            figures.append(
                fill(
                    _FIGURE,
                    picture=picture,
                    title=titles[place] if titles else "",
                    caption=caption or "no caption",
                    where=f"{video.path} at {begin:.1f} s",
                )
            )
        return element("div", join(figures), class_="sheet")

    def _read(self, shard: int, record: int) -> tuple[Shot, Markup]:
        """Returns a shot and its clip.

        Raises:
            UserError: the shot is damaged.
        """
        reader = Shards([shard_file(self.summary.output_dir, shard)], once=True)
        content = reader.read(0, record)
        try:
            shot = unpack(content)
            return shot, self._picture(shot)
        except (ValueError, OSError) as error:
            raise reader.damaged(0, record, error) from error

    def _picture(self, shot: Shot) -> Markup:
        step = max(1, round(self.spec.fps / _FPS))
        wanted = range(0, len(shot.packets), step)[:_FRAMES]
        frames = self.spec.make_codec().decode(shot.packets, wanted, shot.height, shot.width)
        width = max(2, round(_HEIGHT * shot.width / shot.height))
        box = Box(0, 0, shot.height, shot.width)
        first, *others = map(Image.fromarray, cut_out(frames, box, _HEIGHT, width, 3))
        data, duration = io.BytesIO(), round(1000 * step / self.spec.fps)
        options = dict(save_all=True, append_images=others, duration=duration, loop=0)
        first.save(data, "WEBP", quality=_QUALITY, method=2, **(options if others else {}))
        return page.image(data.getvalue(), "webp", "clip", width=width, height=_HEIGHT)
