"""The formats of `stunet export`: one table, from a name to its options and its function.

This module parses; what a format holds is written by a function beside it, imported when it is
asked for, so that the command line starts without JAX.
"""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stunet.errors import UserError, choose
from stunet.files import atomic_directory, check_vacant
from stunet.generate.task import add_settings, sampling_settings


@dataclasses.dataclass(frozen=True)
class Request:
    """What every format is asked.

    Attributes:
        workdir: of the training run.
        sample: settings of `configs.Sample` that replace the run's own.
        own: the options that were given, by name.
    """

    workdir: pathlib.Path
    sample: Mapping[str, object]
    own: Mapping[str, Any]


class Format(NamedTuple):
    """A format of `stunet export`.

    Attributes:
        summary: for the help.
        write: writes it into a directory. Returns the updates that the weights have had.
        options: of OPTIONS, those that it has.
        check: raises UserError if something that it needs is not installed.
    """

    summary: str
    write: Callable[[Request, pathlib.Path], int]
    options: tuple[str, ...] = ()
    check: Callable[[], None] = lambda: None


def _stablehlo(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import stablehlo

    return _programs(stablehlo.write, request, directory)


def _savedmodel(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import savedmodel

    return _programs(savedmodel.write, request, directory)


def _programs(write: Callable[..., None], request: Request, directory: pathlib.Path) -> int:
    """Of a format that holds the programs of `stunet.export.programs`."""
    from stunet.generate.text import load_unconditioned

    run = load_unconditioned(request.workdir, **request.sample)
    write(directory, run, request.own.get("prompt", ()), request.own.get("dtype"))
    return run.checkpoint


def _check_tensorflow() -> None:
    # Else they tell on stderr how TensorFlow's own kernels, which nothing here runs, are compiled.
    # Before its first import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import orbax.export  # noqa: F401
        import tensorflow  # noqa: F401
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--format savedmodel needs TensorFlow and orbax-export ({reason}); "
            "pip install 'stunet[savedmodel]'"
        ) from error


def _safetensors(request: Request, directory: pathlib.Path) -> int:
    from stunet.generate.text import load
    from stunet.train import weights_file

    run = load(request.workdir)
    named = weights_file.cast(run.params, request.own.get("dtype"))
    weights_file.write(directory / "params.safetensors", named, run.config, run.checkpoint)
    return run.checkpoint


def _diffusers_unet(request: Request, directory: pathlib.Path) -> int:
    from stunet.weights import diffusers_unet

    return diffusers_unet.write(directory, request.workdir)


# Of what holds the programs.
_PROGRAMS = ("dtype", "prompt", "steps", "sampler", "guidance_scale")

FORMATS = {
    "stablehlo": Format(
        "programs that sample with JAX alone, weights and a card", _stablehlo, _PROGRAMS
    ),
    "savedmodel": Format(
        "the same as a SavedModel, for TensorFlow alone",
        _savedmodel,
        _PROGRAMS,
        _check_tensorflow,
    ),
    "safetensors": Format("the weights alone", _safetensors, ("dtype",)),
    "diffusers-unet": Format(
        "the spatial weights as diffusers' UNet2DConditionModel loads them", _diffusers_unet
    ),
}

# Option -> its flag.
OPTIONS = {
    "dtype": "--dtype",
    "prompt": "--prompt",
    "steps": "--steps",
    "sampler": "--sampler",
    "guidance_scale": "--guidance",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives the parser of `stunet export` its arguments."""
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of the training run")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="directory to create")
    formats = "; ".join(f"{name}: {form.summary}" for name, form in FORMATS.items())
    parser.add_argument("--format", required=True, metavar="NAME", help=formats)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the weights (as the run stores them)"
    )
    programs = parser.add_argument_group("of the programs", "all but --prompt are fixed in them")
    programs.add_argument(
        "--prompt", action="append", help="whose token states to write too; may be repeated"
    )
    add_settings(programs)


def run(arguments: argparse.Namespace) -> str:
    """Writes what the command line asks for. Returns what to print: of which update the weights
    are, and the files and their sizes.

    Raises:
        UserError: it cannot be done; nothing is written then.
    """
    form = choose(FORMATS, arguments.format, "format of `stunet export`")
    given = {name: v for name in OPTIONS if (v := getattr(arguments, name)) is not None}
    for name in given:
        if name not in form.options:
            others = [other for other, form in FORMATS.items() if name in form.options]
            raise UserError(
                f"{OPTIONS[name]} means nothing to --format {arguments.format}; leave it out, or "
                f"choose --format {' or '.join(others)}"
            )
    check_vacant(arguments.out)
    form.check()
    request = Request(arguments.workdir, sampling_settings(arguments), given)
    with atomic_directory(arguments.out) as partial:
        step = form.write(request, partial)
    files = sorted(path for path in arguments.out.rglob("*") if path.is_file())
    sizes = [f"{file.stat().st_size / 2**20:9.2f} MiB  {file}" for file in files]
    return "\n".join([f"the averaged weights after {step} updates", *sizes])
