"""Exports a run for JAX (`stunet export --format stablehlo`): programs, weights and card.json."""

import pathlib
from collections.abc import Sequence

import jax

from stunet.export import card
from stunet.export.programs import Program, export_program, make_programs
from stunet.generate.text import Run
from stunet.train.saved import weights_file

_PARAMS = "params.safetensors"


def write(
    directory: pathlib.Path, run: Run, prompts: Sequence[str] = (), dtype: str | None = None
) -> None:
    """Writes all files that an inference system needs to sample from a run.

    These are the weights, the programs, and card.json, which describes them. If there are prompts,
    a further file holds their token states.

    Args:
        directory: directory to write into, which exists.
        run: run whose network needs only captions (`text.load_unconditioned`), with the sampling
            settings to export.
        prompts: prompts whose token states (the text encoder's output) are written too.
        dtype: dtype of the written weights, "float32" or "bfloat16"; None keeps their dtypes.
    """
    named = weights_file.cast(run.params, dtype)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in named.items()}
    programs = make_programs(run.parts.denoiser, run.parts.sampling, run.params)
    weights_file.write(directory / _PARAMS, named, run.parts.config, run.checkpoint)
    for name, program in programs.items():
        exported = export_program(program, shapes)
        (directory / _file(name)).write_bytes(exported.serialize())
    form = card.Form(
        "stablehlo",
        {
            "file": _PARAMS,
            "meaning": "the averaged weights; each program takes them as a dict, by the names in "
            "the file",
        },
        _place,
        {"calling_convention_version": exported.calling_convention_version},
    )
    card.write(directory, run, programs, prompts, form)


def _file(name: str) -> str:
    return f"{name}.jax_export"


def _place(name: str, program: Program) -> dict[str, str]:
    arguments = ", ".join(["params", *(a.name for a in program.arguments)])
    return {"file": _file(name), "call": f"{program.result.name} = {name}({arguments})"}
