"""Sources and text encoder: what is drawn fits into the clip, and the clip into the network."""

import contextlib
import math
from collections.abc import Iterator

from stunet.configs import text_encoders
from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.schema import MAIN, Config, all_sources, clip_span
from stunet.errors import UserError


def check_data(config: Config) -> None:
    """Checks that a config names its data.

    A config that `stunet inflate` wrote may name no data yet, and `stunet plan` needs no data.
    Training and evaluation need data.

    Raises:
        UserError: a source is "clips", and its path is empty.
    """
    for name, data in all_sources(config.data).items():
        with about_source(name):
            check_data_path(data.source, data.path)


@contextlib.contextmanager
def about_source(name: str) -> Iterator[None]:
    """Context manager that puts the name of a source of `data.mix` before each message.

    Messages about the main source, which `data` itself describes, stay as they are.
    """
    try:
        yield
    except UserError as error:
        if name == MAIN:
            raise
        raise UserError(f"data.mix.{name}: {error}") from error


def check_data_path(source: str, path: str) -> None:
    """Checks that a source of stored clips has a path.

    Raises:
        UserError: `source` is "clips", and `path` is empty.
    """
    if source == "clips" and not path:
        raise UserError(
            "data.source is 'clips', and data.path is empty; name the directory of the records, "
            "for example with --config.data.path=runs/clips"
        )


def text_encoder(config: Config) -> Mistakes:
    """Checks the settings of the text encoder, without loading its weights.

    The machine that trains may not have the weights, because records can hold the text states.
    """
    text = config.text
    if text_encoders.is_own(text.encoder):
        return
    if not text_encoders.is_known(text.encoder):
        yield f"text.encoder is {text.encoder!r}; choose one of {text_encoders.CHOICES}"
    if text.encoder == "minilm" and text.dim != 384:
        yield (
            f"text.dim is {text.dim}, and the states of 'minilm' have 384 features; set text.dim "
            "to 384"
        )
    if text.encoder == "bytes" and text.fingerprint:
        yield f"text.fingerprint is {text.fingerprint!r}, and 'bytes' has none; leave it empty"


def source(config: Config) -> Mistakes:
    """Checks that the digits or objects that a synthetic source draws fit into the clip."""
    data = config.data
    pixels = f"{data.height}x{data.width}"
    if data.source == "moving_digits" and min(data.height, data.width) < data.digit_size:
        yield f"data.digit_size is {data.digit_size}, larger than the clip's {pixels} pixels"
    if data.source == "moving_digits" and data.look != "grey" and data.channels == 1:
        yield (
            f"data.look is {data.look!r} and data.channels 1; that look has colours: set "
            "data.channels to 3"
        )
    if data.source == "moving_digits" and data.look == "grey" and data.trail:
        yield (
            f"data.trail is {data.trail:g} and data.look 'grey'; white digits on black leave no "
            "trail: set data.trail to 0, or data.look to 'colours'"
        )
    if data.source == "motions" and data.width < 2 * data.object_size:
        yield (
            f"data.object_size is {data.object_size:g}; it must be at most half of data.width, "
            f"which is {data.width}"
        )
    if data.source == "motions" and data.motion == "rotate" and min(data.height, data.width) < 8:
        yield (
            f"data.motion is 'rotate', and the clip has {pixels} pixels; an arm needs at least "
            "8x8 pixels"
        )
    if data.source == "motions" and data.caption_speed and not data.speed_octaves:
        yield (
            "data.caption_speed is True, and data.speed_octaves is 0, so all objects move at about "
            "the same speed; raise data.speed_octaves or set data.caption_speed to False"
        )


def frames(config: Config) -> Mistakes:
    """Checks that the number of frames suits the network, the keyframes and the source."""
    model, data, stride = config.model, config.data, config.tsr.stride
    # Clips of one frame pass through the spatial layers alone.
    if model.temporal and data.frames > 1 and not config.autoencoder.level_features:
        total = math.prod(model.temporal_factors)
        yield from divides(
            data.frames, "data.frames", total, "the product of model.temporal_factors"
        )
    if stride > 1 and (data.frames == 1 or (data.frames - 1) % stride):
        yield (
            f"data.frames is {data.frames} and tsr.stride {stride}; the first and the last frame "
            f"of a clip are keyframes, {_keyframe_remedy(config)}"
        )
    if data.cut_from and data.cut_from < clip_span(data):
        yield (
            f"data.cut_from is {data.cut_from}, and a clip of {data.frames} frames at data.stride "
            f"{data.stride} spans {clip_span(data)} frames of the source; set data.cut_from to "
            f"{clip_span(data)} or more, or to 0"
        )


def _keyframe_remedy(config: Config) -> str:
    """Names the nearest number of frames that keyframes and temporal factors allow.

    An allowed number is one more than a multiple of `tsr.stride`, and a multiple of the product of
    the temporal factors. There may be no such number.
    """
    stride, frames = config.tsr.stride, config.data.frames
    total = math.prod(config.model.temporal_factors) if config.model.temporal else 1
    fitting = [n for n in range(1 + stride, frames + stride * total + 2, stride) if n % total == 0]
    if fitting:
        return f"so try data.frames {min(fitting, key=lambda n: abs(n - frames))}"
    return f"which no multiple of {total} frames allows: try another tsr.stride"
