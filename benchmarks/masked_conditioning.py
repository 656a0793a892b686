"""Measures what a network that is conditioned on masks makes of held-out clips.

    python benchmarks/masked_conditioning.py --workdir runs/masked_digits

For image-to-video, inpainting and cinemagraphs the command prints

    known PSNR    PSNR of given pixels as the network makes them, before the given ones are put
                  back, in dB with a peak of 2 (values in -1..1)
    made PSNR     PSNR of the other pixels against the held-out clip (outside of its box a
                  cinemagraph stands still, inside it is the clip)
    copied PSNR   PSNR of the other pixels if they are copied from the first frame, the nearest
                  frame that is known
    motion known  mean change of given pixels from frame to frame, in the clips as they are written,
                  0..2
    motion made   the same of the other pixels

The box is the middle half of rows and columns. Inpainting gives the whole first frame, so that
there is a frame to copy.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from stunet.data.sources import make_source
from stunet.generate import masked
from stunet.generate.text import Run


def measure(
    run: Run, clips: np.ndarray, captions: Sequence[str], seed: int
) -> dict[str, dict[str, float]]:
    """Returns the numbers of each task, over all clips.

    Args:
        run: run of a network that is conditioned on masks.
        clips: clips `[n, t, h, w, c]` in -1..1.
        captions: caption of each clip.
        seed: seed of the noise.
    """
    _, frames, rows, columns, _ = clips.shape
    box = np.zeros((rows, columns), bool)
    box[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4] = True
    later = (np.arange(frames) > 0)[:, None, None]
    copied = np.repeat(clips[:, :1], frames, axis=1)
    inside = np.where(box[..., None], clips, copied)
    # By task: the true clips, and True for pixels that are not given.
    tasks = {
        "image": (clips, np.broadcast_to(later, clips.shape[1:4])),
        "inpaint": (clips, later & box),
        "cinemagraph": (inside, later & box),
    }
    measured = {}
    for name, (truth, open_) in tasks.items():
        given = ~open_[None, ..., None]
        made = masked.complete(run, captions, truth, given, put_back=False, seed=seed)
        change = np.abs(np.diff(np.where(given, truth, made), axis=1))
        outside = ~open_[1:]
        measured[name] = {
            "known PSNR": _psnr(made[:, ~open_], truth[:, ~open_]),
            "made PSNR": _psnr(made[:, open_], truth[:, open_]),
            "copied PSNR": _psnr(copied[:, open_], truth[:, open_]),
            "motion known": change[:, outside].mean() if outside.any() else float("nan"),
            "motion made": change[:, ~outside].mean(),
        }
    return measured


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(4 / np.mean(np.square(a - b))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="training run (required)"
    )
    parser.add_argument(
        "--num", type=int, default=32, metavar="N", help="number of held-out clips (default 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    arguments = parser.parse_args()
    run = masked.load_masked(arguments.workdir)
    source = make_source(run.parts.dataset, "val")
    examples = [source[i] for i in range(min(arguments.num, len(source)))]
    clips = np.stack([e["video"] for e in examples]).astype(np.float32) / 127.5 - 1
    measured = measure(run, clips, [e["caption"] for e in examples], arguments.seed)
    names = list(next(iter(measured.values())))
    print("".join(f"{name:>14}" for name in ("", *names)))
    for task, found in measured.items():
        print(f"{task:>14}" + "".join(f"{found[name]:14.3f}" for name in names))


if __name__ == "__main__":
    main()
