"""Shows the sample clips of a report: slices through time side by side, and clips that play."""

import io
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from stunet import configs
from stunet.data import media, sources
from stunet.errors import UserError
from stunet.report import page
from stunet.report.markup import fill, join
from stunet.report.results import Arms, Run
from stunet.train.parts import make_parts

# Bytes of all pictures, before base64 makes them a third larger.
MOST_BYTES = 3_400_000
# Clips of each run whose slices are shown.
_SLICES = 3

_SAMPLES = """\
<p class=note>{{ first }}A slice shows one line of pixels over time: steady motion draws a \
straight slanted line, a change of velocity bends or breaks it.</p>{{ block }}\
{% for seed, other in others %}\
<details><summary>Samples of {{ seed }}</summary>{{ other }}</details>{% endfor %}\
{% if left_out %}<p class=note>Left out, to keep the page small: {{ left_out }}.</p>{% endif %}"""

_BLOCK = """\
{% for kind, figures in rows if figures %}<div class={{ kind }}>\
{% for name, pictures in figures %}\
<figure><figcaption><span>{{ name }}</span></figcaption>{{ pictures }}</figure>\
{% endfor %}</div>{% endfor %}"""

_SLICE = """\
<div class=slice><span class=across>{{ across }} →</span><span class=down>{{ down }} →</span>\
{{ picture }}</div>"""


def samples(arms: Arms, colours: Mapping[str, int], most_bytes: int = MOST_BYTES) -> Markup:
    """Shows real clips and each arm's samples for its first seed, then samples for other seeds.

    Args:
        arms: runs of each arm.
        colours: number of each arm's colour.
        most_bytes: largest total size of the pictures. Runs whose samples do not fit are left out,
            and the page names them.

    Returns:
        HTML, which is empty if no run has samples.
    """
    runs = [run for group in arms.values() for run in group]
    trained = next((run for run in runs if run.settings), None)
    shown, seeds, left_out = [], [], []
    for turn in range(max(map(len, arms.values()))):
        found = []
        for arm, group in arms.items():
            if turn >= len(group) or not (group[turn].gif or group[turn].xt):
                continue
            run = group[turn]
            gif, xt = (file.read_bytes() if file else b"" for file in (run.gif, run.xt))
            _check(run.xt, xt)
            size = len(gif) + len(xt)
            if size > most_bytes:
                left_out.append(run)
                continue
            most_bytes -= size
            found.append((page.swatch(colours[arm], arm), gif, xt))
            seed = run.seed
        if found:
            shown.append(found)
            seeds.append("another seed" if seed is None else f"seed {seed}")
    if not shown:
        return Markup()
    if trained and (real := real_clips(trained.directory / "config.json")):
        shown[0].insert(0, ("real clips, held out", *real))
    blocks = [_block(found) for found in shown]
    several = max(map(len, arms.values())) > 1
    return fill(
        _SAMPLES,
        first=f"Samples of {seeds[0]}. " if several else "",
        block=blocks[0],
        others=list(zip(seeds[1:], blocks[1:], strict=True)),
        left_out=join([page.swatch(colours[r.title], _called(r)) for r in left_out], ", "),
    )


def _check(file: pathlib.Path | None, xt: bytes) -> None:
    """Raises a UserError that names the picture if it is damaged."""
    try:
        media.read_slices(xt) if xt else None
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _called(run: Run) -> str:
    return run.title if run.seed is None else f"{run.title}, seed {run.seed}"


def _block(found: Sequence[tuple[str, bytes, bytes]]) -> Markup:
    """Returns HTML that shows slices through time of several runs, and their clips below.

    Args:
        found: for each run, its name (text or HTML), its GIF and its PNG; b"" for a missing
            picture.
    """
    slices, clips = [], []
    for name, gif, xt in found:
        cut = media.read_slices(xt) if xt else []
        if cut:
            slices.append((name, join([_slice(axis, pixels) for axis, pixels in cut[:_SLICES]])))
        pictures = [(gif, "gif"), (b"" if cut else xt, "png")]
        drawn = join([page.image(data, kind, "sample clips") for data, kind in pictures if data])
        if drawn:
            clips.append((name, drawn))
    return fill(_BLOCK, rows=[("slices", slices), ("clips", clips)])


def _slice(axis: str, pixels: np.ndarray) -> Markup:
    """Returns HTML that shows a slice, with the names of its axes."""
    across, down = ("x", "time") if axis == "x" else ("time", "y")
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    picture = page.image(data.getvalue(), "png", f"slice through {axis} and time")
    return fill(_SLICE, across=across, down=down, picture=picture)


def real_clips(config_file: pathlib.Path) -> tuple[bytes, bytes] | None:
    """Draws the held-out clips that a report shows beside a run's samples.

    The clips carry captions if the network saw captions.

    Args:
        config_file: `config.json` of the run.

    Returns:
        The contents of two files: a GIF of the clips, and a PNG of their slices. None if the data
        cannot be opened, as on a machine that does not have them, or the run trains an autoencoder,
        whose own pictures show real clips.
    """
    try:
        parts = make_parts(configs.read(config_file))
        has_text = parts.denoiser.network.text_features
        dataset = parts.dataset.of_pixels
        held_out = sources.make_source(dataset, "val")
        source = sources.representatives(held_out, parts.preview_clips, dataset)
        examples = [source[i] for i in range(min(parts.preview_clips, len(source)))]
    except UserError:
        return None
    clips = np.stack([example["video"] for example in examples])
    captions = [example["caption"] for example in examples] if has_text else None
    with tempfile.TemporaryDirectory() as directory:
        gif, xt = pathlib.Path(directory, "real.gif"), pathlib.Path(directory, "real.png")
        media.write_gif(gif, clips, parts.clip.frame_rate, captions)
        media.write_xt(xt, clips, captions)
        return gif.read_bytes(), xt.read_bytes()
