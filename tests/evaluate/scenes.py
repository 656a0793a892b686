"""Clips of known motion, which the tests of this folder change in known ways."""

import numpy as np

from stunet.data.synthetic.drawing import render
from stunet.data.synthetic.motions import MOTIONS, Motions
from stunet.data.synthetic.stage import Stage

FRAMES = 16
KINDS = [("glide", 16), ("glide", 1), ("cross", 16), ("cross", 1)]
KINDS += [("bounce", 16), ("bounce", 1), ("rotate", 16)]
FREE_KINDS = [(m, h) for m in ("fall", "pendulum", "wander", "turn") for h in (16, 1)]


def scaled(videos) -> np.ndarray:
    """Returns clips in -1..1 from uint8."""
    return np.stack(videos).astype(np.float32) / 127.5 - 1


class Scene:
    """Clips of one motion, with the true positions and shapes of their objects."""

    def __init__(self, motion, height=16, num=12, frames=FRAMES, **options):
        options = {"period": 9.0, "spread": 0.2} | options
        self.stage = Stage(motion, height, 16, **options)
        source = Motions("val", self.stage, frames)
        self.clips = scaled([source[i]["video"] for i in range(num)])
        self.movers = [source.movers(i) for i in range(num)]
        self.truth = np.stack([source.truth(i).positions for i in range(num)])
        self.shapes = [tuple(m.shape for m in movers) for movers in self.movers]

    def drawn(self, distance) -> np.ndarray:
        """Draws the same objects after they have moved `distance(mover)` [t] pixels."""
        clips = []
        for movers in self.movers:
            phases = [m.phase + distance(m) / (m.speed * m.period) for m in movers]
            place = MOTIONS[self.stage.motion].place
            at = np.stack([place(self.stage, *mp)[0] for mp in zip(movers, phases, strict=True)])
            clips.append(render(self.stage, [m.shape for m in movers], at)[..., None])
        return scaled(clips)

    def at(self, positions) -> np.ndarray:
        """Draws the same objects at positions [n, o, t, 2]."""
        pairs = zip(self.shapes, positions, strict=True)
        return scaled([render(self.stage, shapes, at)[..., None] for shapes, at in pairs])
