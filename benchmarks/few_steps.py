"""Compares distilled networks with their teacher, at the same few sampling steps.

    python benchmarks/few_steps.py --teacher runs/quickstart --students runs/quickstart_1 \\
      runs/quickstart_2 runs/quickstart_4 runs/quickstart_8 --out few_steps.png

All sample with DDIM from the same noise, for the captions of held-out clips, each at its own
`sample.guidance_scale`. For each student, the command prints how far its clips are from those that
the teacher makes in its own number of steps: the root mean square difference of values in -1..1,
with 95% intervals over clips. The same is printed of the teacher's clips in as many steps as the
student takes. It also prints the share of clips in which velocity is steady, and the share of clips
of a moving digit that show all that their captions say, with Wilson's 95% intervals. The figure
shows frames of some clips.
"""

import argparse
import pathlib

import numpy as np
import plot

from stunet.commands.setup import set_up_jax
from stunet.evaluate import comparison
from stunet.evaluate.groups import find
from stunet.evaluate.scene import Scene, scene_of
from stunet.generate import text
from stunet.report.statistics import share_interval, t_interval
from stunet.train.parts import read_parts

# Clips and frames of each in the figure.
CLIPS, FRAMES = 3, 8
# Column of the table -> group of metrics, and the metric of which it has the share of clips.
SHARES = {"as asked": ("captions", "right_caption"), "steady": ("coherence", "coherent")}


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the root mean square difference of each clip, `[n]`."""
    return np.sqrt(np.square(a - b).mean((1, 2, 3, 4)))


def sampled(workdir: pathlib.Path, captions: list[str], steps: int) -> np.ndarray:
    """Returns the clips that a run makes in `steps` steps of DDIM; 0 stands for its own number."""
    settings = {"sampler": "ddim"} | ({"steps": steps} if steps else {})
    run = text.load_unconditioned(workdir, **settings)
    return text.sample_clips(run, captions, batch_size=40)


def shares(clips: np.ndarray, scene: Scene) -> list[str]:
    """Returns the cells of `SHARES`; "-" where the data tell nothing about the clips."""
    cells = []
    for group, metric in SHARES.values():
        hits = find(group).measure(clips, scene, ()).get(metric)
        if hits is None:
            cells.append("-")
            continue
        low, high = share_interval(int(hits.sum()), len(hits))
        cells.append(f"{hits.mean():.0%} ({low:.0%} to {high:.0%})")
    return cells


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
    """Samples with the teacher and with each student, prints the table and draws clips."""
    parts = read_parts(arguments.teacher)
    held_out = comparison.from_dataset(parts.dataset, arguments.num)
    has_text = parts.denoiser.network.text_features > 0
    captions = held_out.captions if has_text else [""] * arguments.num
    scene = scene_of(held_out.real, held_out.real_indices, captions=has_text, keyframes=False)
    best = sampled(arguments.teacher, captions, 0)
    rows = {"teacher": best}

    def tell(steps: object, network: str, far: str, others: list[str]) -> None:
        line = f"{steps:>6} {network:>8} {far:>15}" + "".join(f"{cell:>22}" for cell in others)
        print(line, flush=True)

    tell("steps", "network", "distance", list(SHARES))
    tell(parts.sampling.steps, "teacher", "-", shares(best, scene))
    students = {path: read_parts(path).config.distil.steps for path in arguments.students}
    for student, steps in sorted(students.items(), key=lambda item: item[1]):
        for name, place in (("teacher", arguments.teacher), ("student", student)):
            clips = sampled(place, captions, steps)
            rows[f"{name}, {steps} step{'s' * (steps > 1)}"] = clips
            apart = t_interval(distance(clips, best).tolist())
            far = f"{apart.mean:.3f} ± {apart.half or 0:.3f}"
            tell(steps, name, far, shares(clips, scene))
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
        "--num", type=int, default=120, metavar="N", help="number of clips (default %(default)s)"
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
