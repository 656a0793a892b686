"""Defines the programs that are exported: functions of arrays alone, for any number of clips.

`jax.export` writes a program as StableHLO, once for all platforms, with a symbolic number of clips.
To run a program, one needs JAX but not this package. Each program takes the weights as its first
argument, a dict of arrays by name.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array

from stunet.nn import parameters
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.parts import Parts
from stunet.train.sampling import SamplerSettings, make_loop

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH = "b"


class Obstacle(NamedTuple):
    """Says why no programs can be made of a run.

    Attributes:
        reason: clause that gives the reason.
        remedy: clause that says what to do instead, for the formats that consist of programs.
    """

    reason: str
    remedy: str


class Argument(NamedTuple):
    """An argument of a program, or the result of a program.

    Attributes:
        name: name in card.json. `Program.function` takes its arguments by position.
        shape: extent of each axis, where `BATCH` stands for the number of clips.
        dtype: name of the NumPy dtype.
        meaning: what the array holds, with its range.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


class Program(NamedTuple):
    """A program to be exported.

    Attributes:
        meaning: what the program does.
        function: takes the parameters, as a dict by name, and then the arguments. It returns the
            result.
        arguments: descriptions of the arguments that follow the parameters.
        result: description of the array that the program returns.
    """

    meaning: str
    function: Callable[..., Array]
    arguments: tuple[Argument, ...]
    result: Argument


def _given_clips(clip: tuple[int | str, ...]) -> tuple[Argument, ...]:
    return (
        Argument("clips", clip, "float32", "of which a part is given, -1..1"),
        Argument(
            "given",
            (*clip[:-1], 1),
            "bool",
            "True where pixels are given, as in `stunet sample image` and `inpaint`; all False: "
            "nothing is",
        ),
    )


# Conditioning -> what programs are given beside the caption. The other kinds need more than one
# pass over the clip, or more than one network.
_GIVEN: dict[str, Callable[[tuple[int | str, ...]], tuple[Argument, ...]]] = {
    "none": lambda clip: (),
    "masks": _given_clips,
}


# Other conditioning -> why it fits no program.
_NEEDS_A_CLIP = {
    "upscale": "the network enlarges clips (upscale.factor is {given.upscale_factor}), and "
    "programs make clips from captions alone",
    "tsr": "the network fills in the frames between keyframes (tsr.stride is "
    "{given.keyframe_stride}), and programs make clips from captions alone",
}


def find_obstacle(parts: Parts) -> Obstacle | None:
    """Returns why no programs can be made of a run, or None if they can.

    Raises:
        UserError: the run trains an autoencoder, which makes no clips.
    """
    given, scale = parts.denoiser.conditioning, parts.sampling.autoguidance_scale
    as_weights = "give --format hub, which writes weights that `stunet sample` reads"
    if given.name not in _GIVEN:
        return Obstacle(_NEEDS_A_CLIP[given.name].format(given=given), as_weights)
    if parts.dataset.autoencoder:
        return Obstacle(
            "the network denoises latents, and programs hold no autoencoder to decode them",
            as_weights,
        )
    if scale != 1:
        return Obstacle(
            f"sample.autoguidance_scale is {scale:g}, and programs hold the weights of one network "
            "alone",
            "give --autoguidance 1",
        )
    return None


def make_programs(denoiser: Denoiser, settings: SamplerSettings, params: Any) -> dict[str, Program]:
    """Returns the programs that are exported for a run, by name.

    Args:
        denoiser: the network and its conditioning.
        settings: how clips are sampled.
        params: parameters of the network, as arrays or as their shapes and dtypes.
    """
    # The kernel of flash attention needs to know the number of clips; this computes the same.
    network = denoiser.network.clone(flash_attention=False)
    denoiser = dataclasses.replace(denoiser, network=network)
    loop = make_loop(denoiser, settings)
    clip = (BATCH, *denoiser.clip.shape)
    text = (BATCH, *denoiser.text.shape)
    captions = (
        Argument("text", text, "float32", "token states; 0 where there is none"),
        Argument("text_mask", text[:2], "bool", "True at tokens; all False: no caption"),
    )
    given = _GIVEN[denoiser.conditioning.name](clip)

    def denoise(named, x_t, time, text, text_mask, *given):
        values = parameters.unflatten(named, params)
        return denoiser.predict(values, x_t, time, text, text_mask, *_seen(given))

    def sample(named, text, text_mask, seed, first_row, *given):
        params_, clean = parameters.unflatten(named, params), _seen(given) or None
        clips = loop(params_, text, text_mask, seed, clean, first_row)
        clips = jnp.clip(clips, -1, 1)
        return jnp.where(given[1], given[0], clips) if given else clips

    return {
        "denoiser": Program(
            "the network once, without guidance",
            denoise,
            (
                Argument("x_t", clip, "float32", "noisy clips: alpha x0 + sigma noise"),
                Argument("time", (BATCH,), "float32", "noise time of each, 0 (clean) to 1 (noise)"),
                *captions,
                *given,
            ),
            Argument("output", clip, "float32", "the prediction: see `diffusion`"),
        ),
        "sampler": Program(
            "clips from captions, as `stunet sample` makes them: all steps, guided",
            sample,
            (
                *captions,
                Argument("seed", (), "uint32", "of the noise"),
                Argument(
                    "first_row",
                    (),
                    "int32",
                    "row i has the noise of clip first_row + i of the seed: 0, but for the later "
                    "of several batches",
                ),
                *given,
            ),
            Argument("clips", clip, "float32", "-1 (black) to 1 (white)"),
        ),
    }


def export_program(program: Program, named: dict[str, Any]) -> export.Exported:
    """Exports a program for all of `PLATFORMS` and any number of clips.

    Args:
        program: a program from `make_programs`.
        named: shapes and dtypes of the parameters, by name.
    """
    (batch,) = export.symbolic_shape(BATCH)

    def spec(argument: Argument) -> jax.ShapeDtypeStruct:
        shape = tuple(batch if extent == BATCH else extent for extent in argument.shape)
        return jax.ShapeDtypeStruct(shape, argument.dtype)

    write = export.export(jax.jit(program.function), platforms=PLATFORMS)
    with bare_file_names():
        return write(named, *map(spec, program.arguments))


@contextlib.contextmanager
def bare_file_names() -> Iterator[None]:
    """Context manager that leaves directories out of the source locations in exported programs."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, r".*[/\\]")
    try:
        yield
    finally:
        jax.config.update(option, before)


def _seen(given: tuple[Array, ...]) -> tuple[Array, ...]:
    """Converts the conditioning clips and their mask, if there are any, to float32."""
    return tuple(x.astype(jnp.float32) for x in given)
