"""Colours and textures for drawn clips: how a moving shape and the ground behind it look.

A look turns the coverage of each moving shape, 0 (the ground shows) to 1 (the shape hides it), into
RGB. Patterns are defined by shares of the frame's height. A clip that is drawn four times as large
and then shrunk by averaging is therefore nearly the clip that is drawn small.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from stunet.errors import choose

Coverage = Float[np.ndarray, "t h w"]
Rgb = Float[np.ndarray, "... 3"]

# Colours of shapes, 0..1. The largest value of each is at least 0.9, and that of each colour of the
# ground below at most 0.42, so that a shape can be told from any ground by brightness alone.
SHAPE_COLOURS = {
    "red": (1.0, 0.25, 0.22),
    "yellow": (1.0, 0.85, 0.2),
    "green": (0.35, 0.9, 0.35),
    "blue": (0.3, 0.62, 1.0),
    "pink": (1.0, 0.45, 0.8),
    "white": (0.97, 0.97, 0.97),
}
GROUND_COLOURS = {
    "red": (0.34, 0.08, 0.1),
    "green": (0.06, 0.28, 0.17),
    "blue": (0.08, 0.16, 0.34),
    "purple": (0.22, 0.1, 0.33),
    "brown": (0.3, 0.19, 0.09),
    "grey": (0.22, 0.22, 0.24),
}
# The lighter and the darker part of a pattern, as multiples of the ground's colour.
_TONES = (0.72, 1.22)
# Periods of a pattern in the frame's height.
_PERIODS = 4


@dataclasses.dataclass(frozen=True)
class Ground:
    """Describes the background of a clip, behind the shapes that move.

    Attributes:
        colour: key of `GROUND_COLOURS`.
        pattern: key of `PATTERNS`.
        place: (y, x) of the pattern's origin, as shares of the pattern's period.
    """

    colour: str
    pattern: str
    place: tuple[float, float] = (0.0, 0.0)

    @property
    def phrase(self) -> str:
        """Returns the words of a caption, such as "blue stripes", or "blue" for a plain ground."""
        return self.colour if self.pattern == "plain" else f"{self.colour} {self.pattern}"


def _plain(y, x, sharpness):
    return np.zeros(np.broadcast_shapes(y.shape, x.shape))


def _stripes(y, x, sharpness):
    return _step(np.sin(2 * np.pi * (x + y)), sharpness / 9)


def _checks(y, x, sharpness):
    waves = (np.sin(2 * np.pi * a / 2) for a in (y, x))
    rows, columns = (2 * _step(wave, sharpness / 3) - 1 for wave in waves)
    return (1 + rows * columns) / 2


def _dots(y, x, sharpness):
    away = np.hypot(y % 1 - 0.5, x % 1 - 0.5)
    return _step(0.3 - away, sharpness)


# Kind of ground -> function of rows y [h, 1] and columns x [w], in periods, and of the number of
# pixels in a period. It returns 0 (darker) to 1 (lighter) [h, w].
PATTERNS: dict[str, Callable] = {
    "plain": _plain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
}


def draw_colours(
    coverages: Sequence[Coverage], colours: Sequence[str], ground: Ground
) -> Float[np.ndarray, "t h w 3"]:
    """Draws bright shapes of one colour each on a dark pattern of two tones."""
    (_, height, width), colour = coverages[0].shape, np.array(GROUND_COLOURS[ground.colour])
    darker, lighter = (colour * tone for tone in _TONES)
    tone = pattern(ground, height, width) if ground.pattern != "plain" else 0.5
    clip = _mix(darker, lighter, np.broadcast_to(tone, (height, width)))[None]
    for coverage, name in zip(coverages, colours, strict=True):
        clip = _mix(clip, np.array(SHAPE_COLOURS[name]), coverage)
    return clip


def draw_neon(
    coverages: Sequence[Coverage], colours: Sequence[str], ground: Ground
) -> Float[np.ndarray, "t h w 3"]:
    """Draws tubes of light: a pale core, and a glow of the shape's colour on a black wall."""
    from scipy import ndimage

    height, width = coverages[0].shape[1:]
    wall = np.array(GROUND_COLOURS[ground.colour]) * 0.3
    clip = wall * (0.7 + 0.3 * pattern(ground, height, width)[None, ..., None])
    for coverage, name in zip(coverages, colours, strict=True):
        near, far = (
            ndimage.gaussian_filter(coverage, (0, height * s, height * s), mode="wrap")
            for s in (0.03, 0.1)
        )
        light = np.clip(1.1 * near + 0.9 * far, 0, 1)[..., None]
        clip = clip + light * np.array(SHAPE_COLOURS[name])
        core = np.clip(coverage * 2 - 1, 0, 1)
        clip = _mix(clip, 0.6 + 0.4 * np.array(SHAPE_COLOURS[name]), core)
    return clip


def draw_paper(
    coverages: Sequence[Coverage], colours: Sequence[str], ground: Ground
) -> Float[np.ndarray, "t h w 3"]:
    """Draws ink on ruled paper. The paper and its lines are tinted by the ground's colour."""
    height, width = coverages[0].shape[1:]
    tint = np.array(GROUND_COLOURS[ground.colour])
    paper, rule = 0.86 + 0.32 * (tint - tint.mean()), 0.45 + 0.8 * (tint - tint.mean())
    rows = np.sin(2 * np.pi * (_axis(height, height) + ground.place[0]))
    lines = np.broadcast_to(_step(rows - 0.8, height / _PERIODS / 9)[:, None], (height, width))
    clip = _mix(paper, rule, lines)[None]
    for coverage, name in zip(coverages, colours, strict=True):
        clip = _mix(clip, np.array(SHAPE_COLOURS[name]) ** 2 * 0.55, coverage)
    return clip


# Look -> function (coverages, names of the shapes' colours, ground) that draws a clip in 0..1.
LOOKS: dict[str, Callable] = {
    "colours": draw_colours,
    "neon": draw_neon,
    "paper": draw_paper,
}


def draw(
    look: str, coverages: Sequence[Coverage], colours: Sequence[str], ground: Ground
) -> UInt8[np.ndarray, "t h w 3"]:
    """Draws a clip in a look.

    Args:
        look: key of `LOOKS`.
        coverages: coverage of each shape, 0..1. Later shapes hide earlier ones.
        colours: key of `SHAPE_COLOURS` for each shape.
        ground: what is behind the shapes.

    Raises:
        UserError: there is no such look.
    """
    clip = choose(LOOKS, look, "data.look")(coverages, colours, ground)
    clip = np.broadcast_to(clip, (*coverages[0].shape, 3))
    return np.round(np.clip(clip, 0, 1) * 255).astype(np.uint8)


def pattern(ground: Ground, height: int, width: int) -> Float[np.ndarray, "h w"]:
    """Returns the pattern of a ground: 0 where it is darker, 1 where it is lighter."""
    y, x = ground.place
    rows = _axis(height, height) + y
    columns = _axis(width, height) + x
    return PATTERNS[ground.pattern](rows[:, None], columns, height / _PERIODS)


def _axis(extent: int, height: int) -> np.ndarray:
    """Returns the centres of pixels, in periods of a pattern."""
    return (np.arange(extent) + 0.5) * _PERIODS / height


def _step(value: np.ndarray, sharpness: float) -> np.ndarray:
    """Returns 0 where `value` is negative and 1 where it is positive, with a soft edge between."""
    return np.clip(0.5 + value * sharpness, 0, 1)


def _mix(under: Rgb, over: Rgb, coverage: np.ndarray) -> Rgb:
    return under + (over - under) * coverage[..., None]
