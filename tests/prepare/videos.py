"""Writes videos with PyAV alone, independent of the code under test."""

from fractions import Fraction

import av
import numpy as np


def make_video(path, pictures, fps=10, codec="libx264", pix_fmt=None):
    """Writes pictures uint8 [t, h, w, 3] as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pix_fmt or ("bgr0" if codec == "ffv1" else "yuv420p")
        for count, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = count, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(frames, seed=0, size=32):
    """Returns coarse noise, so that no two pictures are the same."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, 4, 4, 3))
    return np.kron(coarse, np.ones((1, size // 4, size // 4, 1))).astype(np.uint8)


def scene(seed, frames, speed=2):
    """Returns a smooth random picture that moves sideways, uint8 [frames, 64, 96, 3]."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (4, 30, 3)).astype(np.uint8)
    wide = np.kron(wide, np.ones((16, 16, 1), np.uint8))
    return np.stack([wide[:, i * speed : i * speed + 96] for i in range(frames)])
