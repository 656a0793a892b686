"""Writes the model card (README.md) of an exported run, as the Hugging Face hub shows it."""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple, TypedDict

import numpy as np

from stunet import jsonfiles
from stunet.evaluate import metrics
from stunet.evaluate.run import FILE
from stunet.export.programs import Obstacle
from stunet.generate.hub import library
from stunet.generate.text import Run
from stunet.train.measured import metric_lines
from stunet.train.state import count_parameters

_TAGS = ["stunet", "space-time-u-net", "video-diffusion", "jax", "flax"]

_BODY = """\
# {name}

A Space-Time U-Net that {makes}: {frames} frames of {height}x{width} pixels, at {fps:g} frames per
second. It has {parameters:,} parameters and was trained for {updates:,} updates with stunet. The
weights are the run's averaged weights.

## Use

{use}

{programs}
Clips are sampled in {steps} steps of `{sampler}`, with a guidance scale of {guidance:g}.

{samples}{metrics}## Data and objective

| | |
|---|---|
| data | `{source}` |
| text encoder | `{encoder}` |
| autoencoder | {autoencoder} |
| noise schedule | `{schedule}` |
| prediction | `{prediction}` |

<details><summary>The whole config</summary>

```json
{config}
```

</details>

## License

The license of the weights is not stated. Whoever publishes them adds `license:` to the head of this
file.
"""

_PROGRAMS = """\
`sampler.jax_export` and `denoiser.jax_export` need only JAX; `card.json` describes their
arguments."""

_FROM_CAPTIONS = """\
```python
import stunet

model = stunet.load("hf://{repo}"{autoencoder})
clip = model.sample({prompt})  # float32 [t, h, w, c] in -1..1
```"""

_FROM_CLIPS = """\
```
hf download {repo} --local-dir {name}
stunet sample {task}{autoencoder}
```"""

_AUTOENCODER = """

The network denoises latents, and the autoencoder is not part of this model. `DIR` is the directory
of the autoencoder, as diffusers saves it, with the fingerprint `{of.fingerprint}`. stunet refuses
another one."""


class _Kind(NamedTuple):
    """Says how the hub lists a kind of network, and how a card shows its use.

    Attributes:
        task: task on the hub.
        makes: predicate for the first sentence.
        sample: the rest of a command line of `stunet sample`; "" for networks that need only
            captions, which `stunet.load` loads.
    """

    task: str
    makes: str
    sample: str = ""


# Conditioning -> kind of network.
_CAPTIONS = _Kind("text-to-video", "makes clips from captions")
_KINDS = {
    "none": _CAPTIONS,
    "masks": _CAPTIONS,
    "upscale": _Kind(
        "video-to-video", "enlarges clips", "upscale --workdir {name} --video clip.mp4"
    ),
    "tsr": _Kind(
        "video-to-video",
        "fills in the frames between keyframes",
        'text --workdir KEYFRAMES --tsr {name}/params.safetensors --prompt "a caption"',
    ),
}


class _Column(TypedDict):
    mean: float | None


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """The part of `evaluation.json` that a card shows.

    Attributes:
        checkpoint: number of updates of the weights that were evaluated.
        generated: mean of each metric over sampled clips, by name.
        real: mean of each metric over real clips, by name.
        sets: number of clips in each set, by the set's name.
    """

    checkpoint: int | None = None
    generated: dict[str, _Column] = dataclasses.field(default_factory=dict)
    real: dict[str, _Column] = dataclasses.field(default_factory=dict)
    sets: dict[str, int] = dataclasses.field(default_factory=dict)


def write(
    run: Run,
    workdir: pathlib.Path,
    samples: Mapping[str, str],
    repo: str,
    obstacle: Obstacle | None = None,
) -> str:
    """Returns the text of the model card: metadata in YAML for the hub, and Markdown for people.

    It shows metrics of the same weights: those of the run's `evaluation.json`, or those that were
    measured in training.

    Args:
        run: the exported run.
        workdir: working directory of the run.
        samples: path of a sample clip by its prompt, relative to the card.
        repo: name of the repository on the hub.
        obstacle: why there are no programs beside the card; None if there are.
    """
    name, denoiser, sampling = repo.partition("/")[2], run.parts.denoiser, run.parts.sampling
    kind, clip, autoencoder = _kind(run), run.parts.clip, run.parts.dataset.autoencoder
    columns, note = _columns(run, workdir)
    source = run.parts.dataset.source
    data = library("--format hub").ModelCardData(
        library_name="stunet",
        pipeline_tag=kind.task,
        tags=[kind.task, *_TAGS],
        model_name=name,
        eval_results=_results(columns, source, kind.task),
        **_widget(samples),
    )
    table = metrics.table(columns, markdown=True) if columns else ""
    body = _BODY.format(
        name=name,
        makes=kind.makes,
        **dataclasses.asdict(clip) | {"fps": clip.frame_rate},
        parameters=count_parameters(run.params),
        updates=run.checkpoint,
        use=_use(run, repo, next(iter(samples), "a caption")),
        programs=f"There are no programs that need only JAX: {obstacle.reason}."
        if obstacle
        else _PROGRAMS,
        steps=sampling.steps,
        sampler=sampling.sampler,
        guidance=sampling.guidance_scale,
        samples=_gallery(samples),
        metrics=f"## Metrics\n\n{table}\n\n{note}\n\n" if columns else "",
        source=source,
        encoder=denoiser.text.encoder,
        autoencoder=f"`{autoencoder.fingerprint}`" if autoencoder else "none",
        schedule=denoiser.schedule.name,
        prediction=denoiser.prediction,
        config=json.dumps(dataclasses.asdict(run.parts.config), indent=1),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _kind(run: Run) -> _Kind:
    return _KINDS[run.parts.denoiser.conditioning.name]


def _use(run: Run, repo: str, prompt: str) -> str:
    """Returns how to make clips with the model, in Markdown."""
    name, kind, of = repo.partition("/")[2], _kind(run), run.parts.dataset.autoencoder
    if kind.sample:
        flag, task = " --autoencoder DIR" if of else "", kind.sample.format(name=name)
        use = _FROM_CLIPS.format(repo=repo, name=name, task=task, autoencoder=flag)
    else:
        argument, quoted = (
            ', autoencoder="DIR"' if of else "",
            json.dumps(prompt, ensure_ascii=False),
        )
        use = _FROM_CAPTIONS.format(repo=repo, prompt=quoted, autoencoder=argument)
    return use + (_AUTOENCODER.format(of=of) if of else "")


def _columns(run: Run, workdir: pathlib.Path) -> tuple[dict[str, metrics.MetricValues], str]:
    """Returns the metrics of the exported weights by the set of clips, and a note about them."""
    if (workdir / FILE).is_file():
        found = jsonfiles.read(workdir / FILE, _Evaluation)
        if found.checkpoint == run.checkpoint:
            columns = {
                name: {k: np.array([v]) for k, c in of.items() if (v := c["mean"]) is not None}
                for name, of in (("generated", found.generated), ("real", found.real))
                if of
            }
            counts = ", ".join(f"{count} {name}" for name, count in found.sets.items())
            return columns, f"Means over clips: {counts}."
    file = workdir / metric_lines.FILE
    measured = {
        name.removeprefix("eval/"): np.array([float(value)])
        for line, _ in (metric_lines.read(file).values if workdir.is_dir() else ())
        if line["step"] == run.checkpoint
        for name, value in line.items()
        if name.startswith("eval/")
    }
    note = f"Means over {run.parts.evaluation.num} sampled clips, measured in training."
    return ({"generated": measured} if measured else {}), note


def _results(columns: Mapping[str, metrics.MetricValues], source: str, task: str) -> list | None:
    """Returns the metrics of sampled clips as the hub's index of evaluations holds them."""
    hub = library("--format hub")
    return [
        hub.EvalResult(
            task_type=task,
            dataset_type=source,
            dataset_name=source,
            metric_type=name,
            metric_name=metrics.METRICS[name].label,
            metric_value=round(metrics.mean(values), 6),
        )
        for name, values in columns.get("generated", {}).items()
        if name in metrics.METRICS
    ] or None


def _widget(samples: Mapping[str, str]) -> dict[str, list]:
    """Returns the sample clips as the hub's page of a model shows them."""
    shown = [{"text": prompt, "output": {"url": file}} for prompt, file in samples.items()]
    return {"widget": shown} if shown else {}


def _gallery(samples: Mapping[str, str]) -> str:
    """Returns the sample clips with their prompts in Markdown; "" if there are none."""
    if not samples:
        return ""
    lines = [
        f"* {html.escape(' '.join(prompt.split()))}<br>\n  ![]({file})"
        for prompt, file in samples.items()
    ]
    return "\n".join(["## Samples", "", *lines, "", ""])
