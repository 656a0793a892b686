"""Shows sampled clips on one page of HTML, by task, beside the commands that made them.

The page holds everything that it shows, and plays clips without scripts.
"""

import collections
import io
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from stunet.data import media
from stunet.errors import UserError
from stunet.files import atomic
from stunet.generate import arrays
from stunet.generate.arrays import Shown
from stunet.report import page
from stunet.report.markup import fill, join

# Kind of clips -> heading and explanation, in the order of the page.
SECTIONS = {
    "text": ("Text to video", "All frames of a clip are made at once, from a prompt alone."),
    "picture": ("Text to image", "Pictures from prompts, by a network without temporal layers."),
    "image": ("Image to video", "The first frame is given; the network makes all others."),
    "inpaint": (
        "Video inpainting",
        "The grey region is painted, and everything around it is given in every frame.",
    ),
    "cinemagraph": (
        "Cinemagraphs",
        "A picture is given, and only what is inside the frame drawn on it may move.",
    ),
    "style": (
        "Stylised generation",
        "The spatial weights are a mixture of the original (alpha 0) and of weights that were "
        "trained on a few pictures in a style (alpha 1). The temporal layers are the same.",
    ),
    "video": (
        "Video to video",
        "The clip on the left is noised in part, and denoised again after another prompt (SDEdit).",
    ),
    "upscale": (
        "Super-resolution",
        "A second network enlarges the clip in overlapping windows, whose predictions are averaged "
        "in every step (MultiDiffusion).",
    ),
    "data": ("What the networks learnt from", "Clips of the data with their captions."),
}
# Pictures of at most this many rows and columns are stored without loss: enlarged, they show single
# pixels. Larger ones would make pages of many megabytes, and are stored in this quality (0 to 100).
_LOSSLESS_SIDE, _QUALITY = 64, 90
# Rows and columns of pictures are enlarged on the page, by CSS alone, to about this many pixels.
_SHOWN = 150

_SECTION = """\
<h2>{{ heading }}</h2><p class=note>{{ explanation }}</p>{{ sheets }}"""

_SHEET = """\
<div class=sheet>{% if command %}<code>{{ command }}</code>{% endif %}\
<div class=row>{{ figures }}</div></div>"""

_FIGURE = """\
<figure{% if kind %} class={{ kind }}{% endif %}>\
<div class=pair style="--side: {{ side }}px">{{ pictures }}</div>\
<figcaption>{{ caption }}</figcaption></figure>"""

STYLE = """
.sheet { margin: 1rem 0 2rem; }
.sheet > code { display: block; padding: .45em .7em; margin-bottom: .7rem; font-size: .8rem; }
.sheet > .row { display: flex; flex-wrap: wrap; gap: 1.1rem 1.4rem; align-items: flex-start; }
.sheet figure { width: min-content; } .sheet figcaption { margin-top: .3rem; }
.sheet .given { border-right: 1px solid var(--rule); padding-right: 1.4rem; }
.pair { display: flex; gap: 6px; } .pair div { position: relative; }
/* Other pages, of which a sheet is a part, may set the sizes of all pictures. */
.sheet .pair img { max-width: none; height: var(--side); }
.pair .axes { position: absolute; left: 3px; bottom: 3px; font-size: 10px; line-height: 1.2;
  padding: 0 3px; border-radius: 3px; color: #fff; background: #0009; white-space: nowrap; }
@media (max-width: 600px) { .pair { flex-wrap: wrap; } .sheet figure { width: auto; } }
"""


def write_gallery(
    places: Sequence[pathlib.Path], out: pathlib.Path, title: str = "Gallery", note: str = ""
) -> int:
    """Writes a page that shows all clips in some directories.

    Args:
        places: `.npz` files that `stunet sample --arrays` or `stunet data` wrote, or directories,
            which are searched for such files at any depth.
        out: HTML file to write.
        title: title of the page.
        note: text below the title.

    Returns:
        The number of clips on the page.

    Raises:
        UserError: there are no clips, a file is damaged, or `out` cannot be written.
    """
    shown = [arrays.read(file) for file in _find(places)]
    if not shown:
        raise UserError(
            f"there are no clips in {', '.join(map(str, places))}; `stunet sample --arrays` and "
            "`stunet data` write some"
        )
    found = gallery(shown, title, note)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as partial:
        partial.write_text(found)
    return sum(len(s.clips) for s in shown)


def gallery(shown: Sequence[Shown], title: str, note: str = "") -> Markup:
    """Returns a page of clips, with a section for each task."""
    by_section = collections.defaultdict(list)
    for entry in shown:
        by_section[_section(entry)].append(entry)
    head = fill(
        "<h1>{{ title }}</h1>{% if note %}<p>{{ note }}</p>{% endif %}"
        "<p class=note>Beside each clip is a slice through time: one row of pixels, with time "
        "running down (x, t), or one column, with time running right (t, y). Steady motion draws a "
        "straight line.</p>",
        title=title,
        note=note,
    )
    sections = [
        fill(
            _SECTION,
            heading=heading,
            explanation=explanation,
            sheets=join([sheet(entry) for entry in by_section[name]]),
        )
        for name, (heading, explanation) in SECTIONS.items()
        if name in by_section
    ]
    return page.page(title, [head, *sections], STYLE)


def _find(places: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    for place in places:
        if not place.exists():
            raise UserError(f"{place} does not exist")
        yield from sorted(place.rglob(f"*{arrays.SUFFIX}")) if place.is_dir() else [place]


def _section(shown: Shown) -> str:
    if shown.task == "text" and shown.clips.shape[1] == 1:
        return "picture"
    # Clips of a later version's task are shown with those of the task that they are nearest to.
    return shown.task if shown.task in SECTIONS else "text"


def sheet(shown: Shown) -> Markup:
    """Shows the clips of one command in a row. Equal inputs are shown once, at the left."""
    figures, given = [], shown.given
    side = _shown_height(shown.clips)
    for number, (clip, caption) in enumerate(zip(shown.clips, shown.captions, strict=True)):
        if given is not None and (number == 0 or len(given) > 1):
            pictures = _pictures(given[number], shown.fps, side)
            figures.append(
                fill(_FIGURE, kind="given", side=side, pictures=pictures, caption="given")
            )
        pictures = _pictures(clip, shown.fps, side)
        caption = caption or "no prompt"
        figures.append(fill(_FIGURE, kind="", side=side, pictures=pictures, caption=caption))
    return fill(_SHEET, command=shown.command, figures=join(figures))


def _shown_height(clips: np.ndarray) -> int:
    """Returns the height of pictures on the page: a whole multiple of the clips' height."""
    height = clips.shape[2]
    return height * max(1, round(_SHOWN / height))


def _pictures(clip: np.ndarray, fps: float, height: int) -> Markup:
    """Returns a clip that plays, and its slice through time; or a picture, if it has one frame."""
    colours = np.repeat(clip, 3, axis=-1) if clip.shape[-1] == 1 else clip
    shown = [_image(colours, fps, height, "clip")]
    if len(clip) > 1:
        vertical = media.moves_vertically(clip)
        cut = (media.yt_slice if vertical else media.xt_slice)(colours)
        shown.append(
            fill(
                "<div>{{ picture }}<span class=axes>{{ axes }}</span></div>",
                picture=_image(cut[None], fps, height, "slice through time"),
                axes="t → y ↓" if vertical else "x → t ↓",
            )
        )
    return join(shown)


def _image(frames: np.ndarray, fps: float, height: int, alt: str) -> Markup:
    """Returns frames [t, h, w, 3] as an animated WebP, which repeats for ever."""
    first, *others = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    data = io.BytesIO()
    # WebP counts milliseconds.
    options = dict(save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    small = max(first.size) <= _LOSSLESS_SIDE
    how = dict(lossless=True, quality=100) if small else dict(quality=_QUALITY)
    first.save(data, format="WEBP", **how, **(options if others else {}))
    width = round(height * first.width / first.height) if alt == "clip" else height
    return page.image(data.getvalue(), "webp", alt, width=width, height=height)
