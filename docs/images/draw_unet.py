"""Draws unet.svg: the Space-Time U-Net of experiments/lumiere_base.py, level by level.

    python docs/images/draw_unet.py

Each level is a strip of frames. Fewer frames mean that time shrank, smaller frames that space did.
"""

import pathlib
import random

from stunet import configs

ROOT = pathlib.Path(__file__).parents[2]
WIDTH, HEIGHT = 1000, 520
SPACE, TIME, INK, GREY = "#3b6fb6", "#d9772b", "#1f2733", "#7a8594"

# Where noise is drawn in each frame of the noisy clip, in fractions of its side.
RANDOM = random.Random(0)
SPECKLES = [
    [(RANDOM.uniform(0.06, 0.94), RANDOM.uniform(0.06, 0.94)) for _ in range(26)] for _ in range(8)
]


def text(x, y, words, size=15, anchor="middle", fill=INK, weight="normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{words}</text>'
    )


def arrow(x1, y1, x2, y2, colour=INK, dashed=False) -> str:
    dash = ' stroke-dasharray="5 5"' if dashed else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
        f'stroke-width="2"{dash} marker-end="url(#{"head" if colour == INK else "grey"})"/>'
    )


def strip(x, y, frames, side, noise=0.0) -> str:
    """Draws frames side by side, centred on (x, y), in which a ball moves to the right."""
    step = side + 4
    left = x - (step * frames - 4) / 2
    parts = []
    for i in range(frames):
        corner, way = left + i * step, i / 8 * (8 / frames)
        ball = corner + side * (0.22 + 0.56 * way * 8 / 7)
        parts.append(
            f'<rect x="{corner:g}" y="{y - side / 2:g}" width="{side:g}" height="{side:g}" '
            f'rx="2" fill="{SPACE}" fill-opacity="0.13" stroke="{SPACE}" stroke-width="1.5"/>'
            f'<circle cx="{ball:g}" cy="{y:g}" r="{side * 0.15:g}" fill="{TIME}" '
            f'fill-opacity="{1 - noise:g}"/>'
        )
        parts += [
            f'<circle cx="{corner + side * a:g}" cy="{y + side * (b - 0.5):g}" r="1.2" '
            f'fill="{INK}" fill-opacity="{noise:g}"/>'
            for a, b in SPECKLES[i % len(SPECKLES)]
            if noise
        ]
    return "".join(parts)


def picture(config) -> str:
    model, data = config.model, config.data
    levels, frames, side = [], data.frames, data.height
    for level, (channels, factor) in enumerate(
        zip(configs.level_channels(model), model.temporal_factors, strict=True)
    ):
        frames //= factor
        side = data.height // 2**level
        levels.append((frames, side, channels))

    rows = [84, 192, 294, 390]
    shown = [(8, 40), (4, 31), (2, 24), (1, 18)]  # frames drawn, and their side in points
    left, right, middle = 204, 796, 500
    parts = []
    for level, ((frames, side, channels), (count, size), y) in enumerate(
        zip(levels, shown, rows, strict=True)
    ):
        size_words = f"{frames} frames of {side}×{side}"
        last = level == len(levels) - 1
        if last:
            parts += [strip(middle, y, count, size)]
            parts += [text(middle, y + 42, size_words, 15, weight="bold")]
            parts += [text(middle, y + 62, f"{channels} features, attention over time", 14)]
            continue
        parts += [strip(left, y, count, size, 0.55 if level == 0 else 0.0)]
        parts += [strip(right, y, count, size)]
        reach = (size + 4) * count / 2 + 10
        parts += [arrow(left + reach, y, right - reach - 6, y, GREY, dashed=True)]
        parts += [text(middle, y - 12, size_words, 15, weight="bold")]
        parts += [text(middle, y + 22, f"{channels} features", 14, fill=GREY)]
        # To the next level, and back from it.
        factor = model.temporal_factors[level + 1]
        below = rows[level + 1]
        top, bottom = y + size / 2 + 8, below - shown[level + 1][1] / 2 - 8
        half = (top + bottom) / 2
        if level + 2 < len(levels):
            parts += [arrow(left, top, left, bottom), arrow(right, bottom, right, top)]
        else:
            parts += [
                f'<path d="M {left} {top} V {below} H {middle - 34}" fill="none" stroke="{INK}" '
                'stroke-width="2" marker-end="url(#head)"/>',
                f'<path d="M {middle + 26} {below} H {right} V {top + 8}" fill="none" '
                f'stroke="{INK}" stroke-width="2" marker-end="url(#head)"/>',
            ]
            half = below - 26
        down = (
            f'<tspan fill="{SPACE}">space ÷ 2</tspan>, <tspan fill="{TIME}">time ÷ {factor}</tspan>'
        )
        up = (
            f'<tspan fill="{SPACE}">space × 2</tspan>, <tspan fill="{TIME}">time × {factor}</tspan>'
        )
        parts += [text(left - 14, half + 5, down, 15, "end", weight="bold")]
        parts += [text(right + 14, half + 5, up, 15, "start", weight="bold")]
    parts += [
        text(left, 40, "noisy clip", 16, weight="bold"),
        text(right, 40, "prediction", 16, weight="bold"),
        text(
            middle, 484, "Noise level and caption reach every layer. Dashed: skip connections.", 14
        ),
        text(
            middle,
            506,
            "Each level above: text-to-image layers, each followed by a temporal convolution.",
            14,
        ),
    ]
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        for name, colour in (("head", INK), ("grey", GREY))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img">'
        "<title>A Space-Time U-Net: each level halves rows, columns and frames, and back</title>"
        f"<defs>{heads}</defs>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


if __name__ == "__main__":
    config = configs.load(str(ROOT / "experiments" / "lumiere_base.py"))
    pathlib.Path(__file__).with_name("unet.svg").write_text(picture(config))
