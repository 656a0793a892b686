"""The card of an exported run: all that its programs' user needs to know, as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import stunet
from stunet import configs
from stunet.diffusion import samplers
from stunet.export.programs import PLATFORMS, Argument, Program
from stunet.generate.text import Run
from stunet.train.state import count_parameters
from stunet.train.step import noise_schedule

# Of the layout described here.
VERSION = 1

# Prediction -> the estimate of the clean clip, in the terms of `stunet.diffusion.prediction`.
X0 = {
    "eps": "(x_t - sigma * output) / alpha",
    "v": "alpha * x_t - sigma * output",
    "x0": "output",
}


def make_card(
    run: Run,
    programs: Mapping[str, Program],
    files: Mapping[str, str],
    prompts: Sequence[str],
    calling_convention: int,
) -> dict[str, Any]:
    """The card, of JSON values.

    Args:
        run: whose config holds the settings that were exported.
        programs: by name.
        files: of each program, and of "params" and, if there are any, of "prompts".
        prompts: whose states are in that file.
        calling_convention: `jax.export`'s version of it.
    """
    config, data = run.config, run.config.data
    return {
        "format": "stunet stablehlo",
        "version": VERSION,
        "stunet": stunet.__version__,
        "training_step": run.checkpoint,
        "params": {
            "file": files["params"],
            "count": count_parameters(run.params),
            "meaning": "the averaged weights; each program takes them as a dict, by the names in "
            "the file",
        },
        "programs": {
            name: {
                "file": files[name],
                "meaning": program.meaning,
                "call": _call(name, program),
                "arguments": [_argument(a) for a in program.arguments],
                "result": _argument(program.result),
            }
            for name, program in programs.items()
        },
        "clip": {
            "frames": data.frames,
            "height": data.height,
            "width": data.width,
            "channels": data.channels,
            "frames_per_second": configs.frame_rate(data),
            "range": [-1, 1],
        },
        "diffusion": _diffusion(config),
        "sampling": _sampling(config),
        "text": dataclasses.asdict(config.text),
        "prompts": {"file": files["prompts"], "captions": list(prompts)} if prompts else None,
        "jax": {
            "version": jax.__version__,
            "calling_convention_version": calling_convention,
            "platforms": list(PLATFORMS),
        },
        "config": dataclasses.asdict(config),
    }


def _call(name: str, program: Program) -> str:
    arguments = ", ".join(["params", *(a.name for a in program.arguments)])
    return f"{program.result.name} = {name}({arguments})"


def _argument(argument: Argument) -> dict[str, Any]:
    return argument._asdict() | {"shape": list(argument.shape)}


def _diffusion(config: configs.Config) -> dict[str, Any]:
    return {
        "prediction": config.diffusion.prediction,
        "x0": X0[config.diffusion.prediction],
        "alpha": "sqrt(sigmoid(log_snr))",
        "sigma": "sqrt(sigmoid(-log_snr))",
        "schedule": dataclasses.asdict(noise_schedule(config.diffusion)),
    }


def _sampling(config: configs.Config) -> dict[str, Any]:
    settings, schedule = config.sample, noise_schedule(config.diffusion)
    times = samplers.time_grid(settings.sampler, schedule=schedule, steps=settings.steps)
    return {
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "threshold": settings.threshold,
        "threshold_percentile": settings.threshold_percentile,
        "fixed": "at export: for others export again, or call the denoiser",
        "times": times.tolist(),
        "log_snr": schedule(times).tolist(),
    }
