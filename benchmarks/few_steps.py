"""Compares distilled networks with their teacher, at the same few sampling steps.

    python benchmarks/few_steps.py --teacher runs/arm --students runs/arm_1 runs/arm_2 \\
      runs/arm_4 runs/arm_8 --out few_steps.png

All sample with DDIM from the same noise, without captions. For each student, the command prints
how far its clips are from those that the teacher makes in `distil.teacher_steps`: the root mean
square difference of values in -1..1, with 95% intervals over clips. The same is printed of the
teacher's clips in as many steps as the student takes. The figure shows frames of some clips.
"""

import argparse
import pathlib

import numpy as np
import plot

from stunet.commands.setup import set_up_jax
from stunet.generate import text
from stunet.report.statistics import t_interval
from stunet.train.parts import read_parts

# Clips and frames of each in the figure.
CLIPS, FRAMES = 3, 8


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the root mean square difference of each clip, `[n]`."""
    return np.sqrt(np.square(a - b).mean((1, 2, 3, 4)))


def sampled(workdir: pathlib.Path, steps: int, num: int) -> np.ndarray:
    """Returns `num` clips that a run makes in `steps` steps of DDIM."""
    run = text.load_unconditioned(workdir, sampler="ddim", steps=steps)
    return text.sample_clips(run, [""] * num, batch_size=32)


def draw(file: pathlib.Path, rows: dict[str, np.ndarray]) -> None:
    """Draws frames of the first clips of each row, one row of pictures for each name."""
    _, frames, height, width, _ = next(iter(rows.values())).shape
    times = max(1, 36 // width)
    shown = np.linspace(0, frames - 1, FRAMES).astype(int)
    cell = width * times + 2
    sheet = plot.Sheet(
        150 + CLIPS * (FRAMES * cell + 14), 90 + len(rows) * (height * times + 6) + 10
    )
    sheet.title("Clips in few steps, from the same noise", f"{FRAMES} of {frames} frames each")
    for row, (name, clips) in enumerate(rows.items()):
        top = 90 + row * (height * times + 6)
        sheet.text(12, top + height * times // 2, name, anchor="lm")
        for clip in range(CLIPS):
            for place, frame in enumerate(shown):
                left = 140 + clip * (FRAMES * cell + 14) + place * cell
                sheet.picture(left, top, clips[clip, frame], times)
    sheet.save(file)


def measure(arguments: argparse.Namespace) -> None:
    """Samples with the teacher and with each student, prints distances and draws clips."""
    students = {path: read_parts(path) for path in arguments.students}
    most = max(parts.config.distil.teacher_steps for parts in students.values())
    best = sampled(arguments.teacher, most, arguments.num)
    rows = {f"teacher, {most} steps": best}
    print(f"{'steps':>6}{'teacher':>18}{'student':>18}   distance from the teacher in {most} steps")
    for workdir, parts in sorted(students.items(), key=lambda each: each[1].config.distil.steps):
        steps, cells = parts.config.distil.steps, []
        for name, place in (("teacher", arguments.teacher), ("student", workdir)):
            clips = sampled(place, steps, arguments.num)
            rows[f"{name}, {steps} step{'s' * (steps > 1)}"] = clips
            interval = t_interval(distance(clips, best).tolist())
            cells.append(f"{interval.mean:.3f} ± {interval.half or 0:.3f}")
        print(f"{steps:6}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    draw(arguments.out, rows)
    print(f"figure  {arguments.out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--teacher", required=True, type=pathlib.Path, metavar="DIR", help="the run (required)"
    )
    parser.add_argument(
        "--students",
        required=True,
        nargs="+",
        type=pathlib.Path,
        metavar="DIR",
        help="runs that were distilled from it (required)",
    )
    parser.add_argument(
        "--num", type=int, default=128, metavar="N", help="number of clips (default %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("few_steps.png"),
        metavar="FILE",
        help="PNG to write (default %(default)s)",
    )
    arguments = parser.parse_args()
    set_up_jax()
    measure(arguments)


if __name__ == "__main__":
    main()
