"""Writes the files that accompany exported programs: the card and the token states of prompts.

The card is a JSON file with everything that a user of the programs needs to know.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import stunet
from stunet import tensorfiles
from stunet.data.spec import make_encoder
from stunet.diffusion import samplers
from stunet.export.programs import PLATFORMS, Argument, Program
from stunet.generate.text import Run
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.sampling import SamplerSettings
from stunet.train.state import count_parameters

# Version of the card's layout.
VERSION = 1
CARD, _PROMPTS = "card.json", "prompts.safetensors"

# Prediction -> estimate of the clean clip, with the symbols of `stunet.diffusion.prediction`.
X0 = {
    "eps": "(x_t - sigma * output) / alpha",
    "v": "alpha * x_t - sigma * output",
    "x0": "output",
    "flow": "(x_t - sigma * output) / (alpha + sigma)",
    "edm": "(alpha * x_t / 4 + sigma * output * (alpha**2 / 4 + sigma**2) ** 0.5 / 2)"
    " / (alpha**2 / 4 + sigma**2)",
}


class Form(NamedTuple):
    """The entries of the card (card.json) that depend on the export format.

    Attributes:
        name: name of the format.
        params: entries that say where the weights are, and how a program gets them.
        program: function that takes a program's name and the program. It returns entries that say
            where the program is, and how to call it.
        jax: further entries about JAX, such as the version of its serialization.
        others: entries about the other packages that wrote the files, by the package's name.
    """

    name: str
    params: Mapping[str, str]
    program: Callable[[str, Program], Mapping[str, str]]
    jax: Mapping[str, Any] = {}
    others: Mapping[str, Any] = {}


def write(
    directory: pathlib.Path,
    run: Run,
    programs: Mapping[str, Program],
    prompts: Sequence[str],
    form: Form,
) -> None:
    """Writes the card (card.json), and the token states of prompts if there are any.

    Args:
        directory: directory to write into, which exists.
        run: the run, with the sampling settings that the programs use.
        programs: programs by name.
        prompts: prompts whose token states are written, since text encoders are not exported.
        form: the entries of the card that depend on the export format.
    """
    card = _card(run, programs, form)
    if prompts:
        text, text_mask = make_encoder(run.parts.denoiser.text)(list(prompts))
        tensorfiles.write(directory / _PROMPTS, {"text": text, "text_mask": text_mask})
        card["prompts"] = {"file": _PROMPTS, "captions": list(prompts)}
    (directory / CARD).write_text(json.dumps(card, indent=1) + "\n")


def _card(run: Run, programs: Mapping[str, Program], form: Form) -> dict[str, Any]:
    denoiser, clip = run.parts.denoiser, run.parts.denoiser.clip
    return {
        "format": f"stunet {form.name}",
        "version": VERSION,
        "stunet": stunet.__version__,
        "training_step": run.checkpoint,
        "params": {"count": count_parameters(run.params), **form.params},
        "programs": {
            name: {
                "meaning": program.meaning,
                **form.program(name, program),
                "arguments": [_argument(a) for a in program.arguments],
                "result": _argument(program.result),
            }
            for name, program in programs.items()
        },
        "clip": {
            "frames": clip.frames,
            "height": clip.height,
            "width": clip.width,
            "channels": clip.channels,
            "frames_per_second": clip.frame_rate,
            "range": [-1, 1],
        },
        "diffusion": _diffusion(denoiser),
        "sampling": _sampling(denoiser, run.parts.sampling),
        "text": dataclasses.asdict(denoiser.text),
        "prompts": None,
        "jax": {"version": jax.__version__, "platforms": list(PLATFORMS)} | form.jax,
        **form.others,
        "config": dataclasses.asdict(run.parts.config),
    }


def _argument(argument: Argument) -> dict[str, Any]:
    return argument._asdict() | {"shape": list(argument.shape)}


def _diffusion(denoiser: Denoiser) -> dict[str, Any]:
    return {
        "prediction": denoiser.prediction,
        "x0": X0[denoiser.prediction],
        "alpha": "sqrt(sigmoid(log_snr))",
        "sigma": "sqrt(sigmoid(-log_snr))",
        "schedule": dataclasses.asdict(denoiser.schedule),
    }


def _sampling(denoiser: Denoiser, settings: SamplerSettings) -> dict[str, Any]:
    schedule = denoiser.schedule
    times = samplers.time_grid(
        settings.sampler, schedule=schedule, steps=settings.steps, churn=settings.churn
    )
    return {
        **dataclasses.asdict(settings),
        "fixed": "at export: for others export again, or call the denoiser",
        "times": times.tolist(),
        # JSON has no -inf. From the lowest float32 come the same amplitudes, 0 and 1.
        "log_snr": jnp.maximum(schedule(times), jnp.finfo(jnp.float32).min).tolist(),
    }
