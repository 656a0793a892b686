"""Exports a run for TensorFlow (`stunet export --format savedmodel`).

Writes programs and weights as a SavedModel, and card.json.

orbax-export wraps the StableHLO of each program in a TensorFlow function, and stores the weights as
TensorFlow variables. TensorFlow compiles the function with XLA. Importing this module needs
TensorFlow.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import tensorflow as tf
from orbax.export import ExportManager, JaxModule, ServingConfig

from stunet.export import card
from stunet.export.programs import (
    BATCH,
    PLATFORMS,
    Argument,
    Program,
    bare_file_names,
    make_programs,
)
from stunet.generate.text import Run
from stunet.train.saved import weights_file


def write(
    directory: pathlib.Path, run: Run, prompts: Sequence[str] = (), dtype: str | None = None
) -> None:
    """Writes a SavedModel with a signature for each program, and card.json, which describes it.

    Args:
        directory: directory to write into, which exists.
        run: run whose network needs only captions (`text.load_unconditioned`), with the sampling
            settings to export.
        prompts: prompts whose token states (the text encoder's output) are written too.
        dtype: dtype of the written weights, "float32" or "bfloat16"; None keeps their dtypes.
    """
    for accelerator in ("GPU", "TPU"):
        # TensorFlow would take all memory of the accelerator, and computes nothing on it here.
        tf.config.set_visible_devices([], accelerator)
    programs = make_programs(run.parts.denoiser, run.parts.sampling, run.params)
    module = JaxModule(
        weights_file.cast(run.params, dtype),
        {name: _of_a_dict(program) for name, program in programs.items()},
        input_polymorphic_shape={
            name: {a.name: ", ".join(map(str, a.shape)) for a in program.arguments}
            for name, program in programs.items()
        },
        jax2tf_kwargs={name: {"native_serialization_platforms": PLATFORMS} for name in programs},
    )
    signatures = [
        ServingConfig(name, [{a.name: _spec(a) for a in program.arguments}], method_key=name)
        for name, program in programs.items()
    ]
    with bare_file_names():
        ExportManager(module, signatures).save(str(directory))
    form = card.Form(
        "savedmodel",
        {
            "file": "variables",
            "meaning": "the averaged weights; variables of the SavedModel, which programs have",
        },
        _place,
        others={"tensorflow": {"version": tf.__version__}},
    )
    card.write(directory, run, programs, prompts, form)


def _of_a_dict(program: Program) -> Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]:
    """Wraps a program for orbax-export: the wrapper takes and returns dicts of arrays by name."""

    def function(named, arguments):
        values = (arguments[a.name] for a in program.arguments)
        return {program.result.name: program.function(named, *values)}

    return function


def _spec(argument: Argument) -> tf.TensorSpec:
    shape = [None if extent == BATCH else extent for extent in argument.shape]
    return tf.TensorSpec(shape, argument.dtype, argument.name)


def _place(name: str, program: Program) -> dict[str, str]:
    arguments = ", ".join(f"{a.name}={a.name}" for a in program.arguments)
    return {
        "signature": name,
        "call": f"{program.result.name} = tf.saved_model.load(directory).signatures[{name!r}]"
        f"({arguments})[{program.result.name!r}]",
    }
