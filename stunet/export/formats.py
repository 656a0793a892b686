"""Defines the formats of `stunet export`, in a table from name to function and options.

The functions import the other modules of `stunet.export` only when they are called, so that the
command line starts without JAX.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stunet.errors import UserError
from stunet.files import atomic_directory, check_vacant


@dataclasses.dataclass(frozen=True)
class Request:
    """The run to export, and the options of the formats.

    Attributes:
        workdir: working directory of the training run.
        sample: keys of the config's section `sample`, with values that replace the run's own.
        prompts: prompts whose token states (the text encoder's output) are written too.
        dtype: precision of the exported weights; None leaves them as the run stores them.
        push: repository on the Hugging Face hub to upload to; None uploads nothing.
        public: whether the weights' config leaves out what names files of this machine.
    """

    workdir: pathlib.Path
    sample: Mapping[str, object]
    prompts: tuple[str, ...]
    dtype: str | None
    push: str | None = None
    public: bool = False


class Format(NamedTuple):
    """A format of `stunet export`.

    Attributes:
        summary: what the format holds, for the help.
        write: function that writes a run into a directory. It returns the number of updates that
            the weights have had.
        options: names of the command-line options that this format takes.
        check: function that raises UserError if what the format needs is missing, such as a
            package.
        after: function of the request and the finished directory. It returns a line to print.
    """

    summary: str
    write: Callable[[Request, pathlib.Path], int]
    options: tuple[str, ...] = ()
    check: Callable[[Request], None] = lambda request: None
    after: Callable[[Request, pathlib.Path], str] = lambda request, directory: ""


def _stablehlo(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import stablehlo

    return _programs(stablehlo.write, request, directory)


def _savedmodel(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import savedmodel

    return _programs(savedmodel.write, request, directory)


def _programs(write: Callable[..., None], request: Request, directory: pathlib.Path) -> int:
    """Loads the run and exports it with `write`. Returns the number of updates of its weights."""
    from stunet.export.programs import find_obstacle
    from stunet.generate.text import load
    from stunet.train.parts import read_parts

    if obstacle := find_obstacle(read_parts(request.workdir, **request.sample)):
        raise UserError(
            f"no programs can be made of {request.workdir}: {obstacle.reason}; {obstacle.remedy}"
        )
    run = load(request.workdir, **request.sample)
    write(directory, run, request.prompts, request.dtype)
    return run.checkpoint


def _hub(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import hub
    from stunet.generate.text import load

    run = load(request.workdir, **request.sample)
    hub.write(directory, run, request.workdir, request.prompts, request.dtype, request.push)
    return run.checkpoint


def _check_hub(request: Request) -> None:
    from stunet.export import hub

    hub.check(request.push)


def _push(request: Request, directory: pathlib.Path) -> str:
    from stunet.export import hub

    return f"uploaded to {hub.push(directory, request.push)}" if request.push else ""


def _check_tensorflow(request: Request) -> None:
    # Set before the first import of TensorFlow, which otherwise prints how its own kernels were
    # compiled. None of them runs here.
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
    from stunet import configs
    from stunet.generate.text import load
    from stunet.train.saved import weights_file

    run = load(request.workdir, **{"autoguidance_scale": 1.0} | request.sample)
    config = run.parts.config
    if request.public:
        if run.parts.dataset.autoencoder:
            raise UserError(
                f"{request.workdir} denoises latents, and its config must name the "
                "directory of the autoencoder; leave --public out"
            )
        config = configs.without_paths(config)
    named = weights_file.cast(run.params, request.dtype)
    weights_file.write(directory / "params.safetensors", named, config, run.checkpoint)
    return run.checkpoint


def _diffusers_unet(request: Request, directory: pathlib.Path) -> int:
    from stunet.weights import diffusers_unet

    return diffusers_unet.write(directory, request.workdir, **request.sample)


def _autoencoder(request: Request, directory: pathlib.Path) -> int:
    from stunet.export import autoencoder

    return autoencoder.write(directory, request.workdir, **request.sample)


# The options of the formats that hold programs.
_PROGRAMS = ("dtype", "prompt", "steps", "sampler", "guidance_scale", "autoguidance_scale")

FORMATS = {
    "stablehlo": Format(
        "the weights, a card that describes them, and programs that need only JAX to sample",
        _stablehlo,
        _PROGRAMS,
    ),
    "savedmodel": Format(
        "the same in TensorFlow's SavedModel format, which needs only TensorFlow",
        _savedmodel,
        _PROGRAMS,
        _check_tensorflow,
    ),
    "hub": Format(
        "the weights with sample clips and a model card, as the Hugging Face hub shows models, and "
        "the programs of stablehlo where they can be made",
        _hub,
        (*_PROGRAMS, "push"),
        _check_hub,
        _push,
    ),
    "safetensors": Format("the weights alone", _safetensors, ("dtype", "public")),
    "diffusers-unet": Format(
        "the spatial weights as diffusers' UNet2DConditionModel loads them", _diffusers_unet
    ),
    "autoencoder": Format(
        "an autoencoder that was trained here, as diffusers' AutoencoderKL and autoencoder.path "
        "load it",
        _autoencoder,
    ),
}


def export(
    form: Format,
    workdir: pathlib.Path,
    out: pathlib.Path,
    *,
    sample: Mapping[str, object],
    prompts: Sequence[str] = (),
    dtype: str | None = None,
    push: str | None = None,
    public: bool = False,
) -> tuple[int, list[pathlib.Path], str]:
    """Writes a trained run in a format.

    Args:
        form: a value of `FORMATS`.
        workdir: working directory of the training run.
        out: directory to create.
        sample: keys of the config's section `sample`, with values that replace the run's own.
        prompts: prompts whose token states (the text encoder's output) are written too.
        dtype: precision of the exported weights; None leaves them as the run stores them.
        push: repository on the Hugging Face hub to upload to; None uploads nothing.
        public: whether the weights' config leaves out what names files of this machine.

    Returns:
        The number of updates that the weights have had, the paths of the files, and a line about
        the upload; "" without one.

    Raises:
        UserError: the run cannot be exported, and nothing is written; or it cannot be uploaded.
    """
    request = Request(workdir, sample, tuple(prompts), dtype, push, public)
    check_vacant(out)
    form.check(request)
    with atomic_directory(out) as partial:
        step = form.write(request, partial)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return step, files, form.after(request, out)
