"""Builds the page with Gradio: a tab for each task, and beside it what the task makes."""

import contextlib
import dataclasses
import functools
import pathlib
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from stunet.data.media import to_uint8
from stunet.data.sources import held_out_captions
from stunet.demo import drawing, forms
from stunet.demo.watching import Finished, Step, watch
from stunet.diffusion.samplers import SAMPLERS
from stunet.errors import UserError
from stunet.files import refusals_explained
from stunet.generate.arrays import Shown
from stunet.generate.text import Run
from stunet.progress import OnStep
from stunet.report import gallery
from stunet.report.markup import fill
from stunet.stores import addresses

# Makes clips: (words after `stunet sample`, on_step) -> the clips, and the paths of the files.
Make = Callable[[Sequence[str], OnStep], tuple[Shown, Mapping[str, pathlib.Path]]]

_EXAMPLES = 4
# A waiting line longer than this is refused, so that nobody can fill the memory with requests.
_MAX_WAITING = 16
_MAX_UPLOAD = "200mb"
# Gradio counts a GIF as a picture alone. `stunet sample` reads and writes GIFs of many frames.
_VIDEOS = ("video", ".gif")

# Key of a file that a task writes (`stunet.generate.output.write`) -> the id of its button.
_DOWNLOADS = {
    "GIF": "download-gif",
    "MP4": "download-mp4",
    "X-T slice": "download-slice",
    "settings": "download-settings",
}

_HEADER = """\
<div class=about><h1>stunet demo</h1><b>{{ place }}</b> · {{ clip }} · weights after \
{{ updates }} updates</div>"""
_WAITING = """\
<div class=state id=state-waiting>Loading and compiling. The first clip of each setting takes \
longer.</div>"""
_PROGRESS = """\
<div class=state id=state-sampling><progress max={{ total }} value={{ done }}></progress> \
step {{ done }} of {{ total }}: the clean clip, as the network estimates it now</div>"""
_ERROR = "<div class='state error' id=state-error>{{ sentence }}</div>"
_IDLE = "<div class=state>Clips appear here, each beside its slice through time.</div>"

STYLE = (
    gallery.STYLE
    + """
.gradio-container { max-width: 1280px !important; width: 100%; margin: auto; }
button[role=tab] { padding: 0 .45rem !important; font-size: .9rem !important; }
#made { position: sticky; top: 1rem; align-self: flex-start; } .another { align-self: center; }
.about h1 { font-size: 1.5rem; margin: 0; } .about b { font-weight: 600; }
#stage { min-height: 16rem; }
.sheet { margin: .4rem 0; } .sheet figure { margin: 0; }
.sheet img { image-rendering: pixelated; display: block; }
.sheet figcaption { opacity: .75; } .sheet:not(:has(figure + figure)) .pair { zoom: 1.6; }
#command textarea { font-family: var(--font-mono); font-size: .85rem; }
.state { padding: .5rem 0; } .state progress { width: 100%; height: .5rem; display: block;
  appearance: none; border: 0; border-radius: .25rem; overflow: hidden; background: #8883; }
.state progress::-webkit-progress-bar { background: #8883; }
.state progress::-webkit-progress-value { background: #2563eb; }
.state progress::-moz-progress-bar { background: #2563eb; }
.error { color: #b3261e; font-weight: 600; } .dark .error { color: #ff8a80; }
.picked img { image-rendering: pixelated; cursor: crosshair; }
"""
)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Words of a task's command line that the page does not ask for.

    Attributes:
        words: the words.
        unless: a field of the form. The words are left out if it is filled in. "" for none.
    """

    words: tuple[str, ...]
    unless: str = ""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Holds the loaded networks that a page offers, and the function that makes clips with them.

    Attributes:
        place: what the user gave as `--workdir`.
        runs: for each task that can be done, the place of its network and the loaded run.
        make: makes clips.
        drawn: directory for the masks that users draw.
        fixed: for some tasks, words of the command line that the page does not ask for.
    """

    place: pathlib.Path
    runs: Mapping[str, tuple[pathlib.Path, Run]]
    make: Make
    drawn: pathlib.Path
    fixed: Mapping[str, Sequence[Fixed]] = dataclasses.field(default_factory=dict)

    def words(self, task: str, filled: Mapping[str, object]) -> tuple[str, ...]:
        """Returns the words that a form gets for a task beside its own."""
        fixed = [fixed for fixed in self.fixed.get(task, ()) if not filled.get(fixed.unless)]
        return tuple(word for part in fixed for word in part.words)


def build(demo: Demo) -> gr.Blocks:
    """Returns the page, which is not served yet."""
    options = dict(analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)
    with gr.Blocks(title="stunet demo", **options) as page:
        gr.HTML(_header(demo), padding=False)
        with gr.Row():
            with gr.Column(), gr.Tabs():
                tabs = [(task, *_tab(task, demo)) for task in demo.runs]
            with gr.Column(elem_id="made"):
                stage = gr.HTML(_IDLE, elem_id="stage", padding=False)
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(
                            name, size="sm", interactive=False, min_width=60, elem_id=elem_id
                        )
                        for name, elem_id in _DOWNLOADS.items()
                    ]
                command = gr.Textbox(
                    label="The same clips from the command line",
                    interactive=False,
                    lines=2,
                    buttons=["copy"],
                    elem_id="command",
                )
        for task, fields, button, stop in tabs:
            ended = gr.State(True)
            running = button.click(
                functools.partial(_sample_to_end, demo, task, tuple(fields)),
                list(fields.values()),
                [stage, command, *downloads, ended],
                # One model, one thing at a time.
                concurrency_limit=1,
                concurrency_id="sampling",
                api_visibility="private",
                show_progress="hidden",
            )
            # Gradio ignores clicks on Make until the step in progress is over. So what was being
            # made stays in sight until then.
            stop.click(None, cancels=[running], api_visibility="private")
            running.then(
                lambda ended: gr.skip() if ended else _IDLE,
                ended,
                stage,
                api_visibility="private",
                show_progress="hidden",
            )
    return page.queue(max_size=_MAX_WAITING, api_open=False, default_concurrency_limit=4)


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Serves a page until this process ends, and returns its address.

    Nothing but the page, its own results and its own uploads can be fetched from the server. It
    sends nothing elsewhere.

    Raises:
        UserError: the port is taken, or `host` is no address of this machine.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            max_file_size=_MAX_UPLOAD,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            css=STYLE,
            theme=gr.themes.Default(primary_hue="blue"),
        )
    except OSError as error:
        raise UserError(
            f"cannot serve at {host}, port {port}: the port is taken, or the address is not one of "
            "this machine; choose another --port or --host"
        ) from error
    return address


def _header(demo: Demo) -> Markup:
    run = next(iter(demo.runs.values()))[1]
    clip = run.parts.clip
    size = f"{clip.frames} frames of {clip.height}x{clip.width} at {clip.frame_rate:g} a second"
    return fill(
        _HEADER, place=addresses.shown(str(demo.place)), clip=size, updates=f"{run.checkpoint:,}"
    )


def _tab(task: str, demo: Demo) -> tuple[dict[str, Any], gr.Button, gr.Button]:
    """Adds a task's tab to the page.

    Returns:
        The component of each flag, the button that starts, and the one that stops.
    """
    heading, explanation = gallery.SECTIONS[task]
    fields, (_, run) = {}, demo.runs[task]
    with gr.Tab(heading, id=task, elem_id=f"tab-{task}"):
        gr.Markdown(explanation)
        for flag in forms.FIELDS[task]:
            if flag in _FIELDS:
                fields[flag] = _FIELDS[flag](task)
        if "box" in forms.FIELDS[task]:
            fields |= _region(task, run, fields, demo.drawn)
        fields["prompt"] = gr.Textbox(
            label="Prompts, one on each line",
            lines=2,
            placeholder="" if task == "text" else "optional",
            elem_id=f"{task}-prompt",
        )
        if captions := held_out_captions(run.parts.dataset, _EXAMPLES):
            gr.Examples(
                [[caption] for caption in captions],
                fields["prompt"],
                label="Captions like those in training",
                elem_id=f"{task}-captions",
                api_visibility="private",
            )
        fields |= _settings(task, run)
        with gr.Row():
            button = gr.Button("Make", variant="primary", elem_id=f"{task}-make")
            stop = gr.Button("Stop", elem_id=f"{task}-stop")
    return fields, button, stop


def _file(flag: str, label: str, *kinds: str) -> Callable[[str], gr.File]:
    return lambda task: gr.File(
        label=label, file_types=list(kinds), height=110, elem_id=f"{task}-{flag}"
    )


# Flag -> its component, for a task; `_region` makes those of a region. Gradio does not open the
# files: the guarded readers of `stunet sample` do.
_FIELDS: dict[str, Callable[[str], Any]] = {
    "image": _file("image", "Picture, in the size of the clips", "image"),
    "video": _file("video", "Video", *_VIDEOS),
    "strength": lambda task: gr.Slider(
        0,
        1,
        0.6,
        step=0.05,
        label="Strength: 0 keeps the video, 1 replaces it",
        elem_id=f"{task}-strength",
    ),
    "alpha": lambda task: gr.Slider(
        0, 1, 0.5, step=0.05, label="Share of the style", elem_id=f"{task}-alpha"
    ),
}


def _settings(task: str, run: Run) -> dict[str, Any]:
    """Adds what all tasks share. The run's own settings are the ones at first."""
    own = run.parts.sampling
    with gr.Row(equal_height=True):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id=f"{task}-seed", scale=3)
        again = gr.Button(
            "Another seed", size="sm", elem_id=f"{task}-another", elem_classes="another"
        )
    with gr.Accordion("Sampling", open=False, elem_id=f"{task}-sampling"):
        num = gr.Slider(1, 8, 1, step=1, label="Clips for each prompt", elem_id=f"{task}-num")
        steps = gr.Slider(
            1, max(100, own.steps), own.steps, step=1, label="Steps", elem_id=f"{task}-steps"
        )
        guidance = gr.Slider(
            0,
            max(10, own.guidance_scale),
            own.guidance_scale,
            step=0.5,
            label="Guidance: 1 is none, 0 ignores the prompt",
            elem_id=f"{task}-guidance",
        )
        names = dict.fromkeys((own.sampler, *SAMPLERS))
        sampler = gr.Dropdown(
            list(names), value=own.sampler, label="Sampler", elem_id=f"{task}-sampler"
        )
    again.click(lambda: random.randrange(2**31), None, seed, api_visibility="private")
    return dict(zip(forms.SETTINGS, (seed, num, steps, guidance, sampler), strict=True))


def _region(task: str, run: Run, fields: Mapping[str, Any], drawn: pathlib.Path) -> dict[str, Any]:
    """Adds a picture on which two clicks choose a box, and one on which a brush draws a mask.

    Args:
        task: the task.
        run: its run.
        fields: the components of the task's other files.
        drawn: directory for the masks that are drawn.

    Returns:
        The components of the flags "box" and "mask". Choosing one empties the other.
    """
    clip, kind = run.parts.clip, "image" if "image" in fields else "video"
    file, corner, frame = fields[kind], gr.State(), gr.State()
    with gr.Tabs():
        with gr.Tab("Box", id="box"):
            picture = gr.Image(
                label="Click two corners of the box",
                interactive=False,
                buttons=[],
                height=240,
                elem_id=f"{task}-picture",
                elem_classes="picked",
                format="png",
            )
            box = gr.Textbox(label="Box: top,left,height,width", max_lines=1, elem_id=f"{task}-box")
        with gr.Tab("Mask", id="mask"):
            radius = drawing.radius(clip)
            editor = gr.ImageEditor(
                label="Paint the region",
                sources=[],
                transforms=[],
                layers=False,
                buttons=[],
                brush=gr.Brush(radius, colors=[drawing.BRUSH], color_mode="fixed"),
                eraser=gr.Eraser(radius),
                canvas_size=drawing.size(clip)[::-1],
                format="png",
                elem_id=f"{task}-editor",
                elem_classes="picked",
            )
            kinds = ("image",) if kind == "image" else ("image", *_VIDEOS)
            mask = _file("mask", "The mask, white in the region: as painted, or your own", *kinds)(
                task
            )
    problem = gr.HTML(elem_id=f"{task}-problem")

    def show(path, box):
        """Shows the file as the network is given it, with the box. A mask was for another file."""
        if not path:
            return None, None, None, None, ""
        try:
            frame = drawing.read(kind, pathlib.Path(path), clip)
            chosen, problem = boxed(frame, box)
            return frame, chosen, drawing.enlarged(frame, clip), None, problem
        except UserError as error:
            error = fill(_ERROR, sentence=forms.named(str(error), [path]))
            return None, None, None, None, error

    def boxed(frame, box):
        try:
            return drawing.enlarged(frame, clip, box or ""), ""
        except UserError as error:
            return drawing.enlarged(frame, clip), fill(_ERROR, sentence=error)

    def click(corner, event: gr.SelectData):
        """Takes the first corner, or completes the box. A mask would be another region."""
        pixel = drawing.clicked(tuple(event.index), clip)
        return None if corner else pixel, forms.box_between(corner or pixel, pixel), None

    def paint(edited):
        """Returns the mask that is drawn, and no box, which would be another region."""
        chosen = drawing.painted(edited["layers"], clip)
        if not chosen.any():
            return gr.skip(), None
        drawn.mkdir(parents=True, exist_ok=True)
        path = pathlib.Path(tempfile.mkdtemp(dir=drawn)) / "mask.png"
        drawing.write_mask(chosen, path)
        return "", str(path)

    quiet = dict(api_visibility="private", show_progress="hidden")
    file.change(show, [file, box], [frame, picture, editor, mask, problem], **quiet)
    box.change(
        lambda frame, box: (None, "") if frame is None else boxed(frame, box),
        [frame, box],
        [picture, problem],
        **quiet,
    )
    picture.select(click, corner, [corner, box, mask], **quiet)
    editor.input(paint, editor, [box, mask], **quiet)
    return {"box": box, "mask": mask}


def _sample(demo: Demo, task: str, flags: Sequence[str], *values: object) -> Iterator[tuple]:
    """Yields what the page shows while a task goes on: stage, command line, download buttons."""
    network, run = demo.runs[task]
    filled = dict(zip(flags, values, strict=True))
    files = [str(filled[flag]) for flag in forms.FILES if filled.get(flag)]
    filled["prompt"] = forms.prompts(filled["prompt"] or "")
    own = run.parts.sampling
    usual = dict(num=1, steps=own.steps, guidance=own.guidance_scale, sampler=own.sampler)
    asked = {flag: value for flag, value in filled.items() if value != usual.get(flag)}
    line = [*forms.words(task, network, asked), *demo.words(task, filled)]
    captions = [prompt for prompt in filled["prompt"] for _ in range(int(filled["num"]))]
    nothing = [gr.update(value=None, interactive=False) for _ in _DOWNLOADS]
    yield _WAITING, "", *nothing
    try:
        with refusals_explained():
            for event in watch(functools.partial(demo.make, line)):
                if isinstance(event, Finished):
                    made, written = event.made
                    paths = [str(written[name]) for name in _DOWNLOADS]
                    ready = [gr.update(value=path, interactive=True) for path in paths]
                    yield gallery.sheet(made), forms.shown(line, files), *ready
                else:
                    yield _estimate(task, run, event, captions), "", *nothing
    except UserError as error:
        yield fill(_ERROR, sentence=forms.named(str(error), files)), "", *nothing


def _sample_to_end(demo: Demo, task: str, flags: Sequence[str], *values: object) -> Iterator[tuple]:
    """Yields what `_sample` yields, each with False behind it. Then yields True for the last.

    The True does not come if the user has stopped the task.
    """
    with contextlib.closing(_sample(demo, task, flags, *values)) as contents:
        for shown in contents:
            yield *shown, False
    yield *(gr.skip() for _ in shown), True


def _estimate(task: str, run: Run, step: Step, captions: Sequence[str]) -> Markup:
    """Shows how far sampling is, and the clips as they are estimated by then."""
    clips, rate = to_uint8(np.asarray(step.clips)), run.parts.clip.frame_rate
    captions = tuple([*captions, *[""] * len(clips)][: len(clips)])
    sheet = gallery.sheet(Shown(task, "", rate, captions, clips))
    return fill(_PROGRESS, done=step.done, total=step.total) + sheet
