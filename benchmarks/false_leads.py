"""Counts how often a report calls a lead clear where no arm (variant) is better than another.

    python benchmarks/false_leads.py

Each report has three arms in two groups, so that six pairs of arms are compared. All clips of all
arms are drawn from the same distribution. The table is in docs/how-to/sweeps.md.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stunet.report.conclusions import Ranking, rank
from stunet.report.results import Arms, Run

ARMS, GROUPS = ("A", "B", "C"), ("slow", "fast")
METRIC = "coherent"

# Values of the clips of one seed.
CLIPS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "64 with a normal value": lambda rng: rng.normal(size=64),
    "16, half of them steady": lambda rng: rng.binomial(1, 0.5, 16),
    "64, of which 98% are steady": lambda rng: rng.binomial(1, 0.98, 64),
    "6 with a drift near 0 or 0.3": lambda rng: (
        0.3 * rng.binomial(1, 0.4, 6) + rng.normal(0, 1e-3, 6)
    ),
}


class Shares(NamedTuple):
    """Holds the share of reports with at least one false lead, 0..1.

    Attributes:
        uncorrected: without any correction.
        holm: after Holm's correction.
        rounded: after Holm's correction, with the variance of rounding (`rounding_variance`). This
            is what a report says.
    """

    uncorrected: float
    holm: float
    rounded: float


def simulate(clips: str, seeds: int, reports: int) -> Shares:
    """Simulates reports of arms that do not differ.

    Args:
        clips: key of `CLIPS`.
        seeds: runs of each arm.
        reports: number of reports.
    """
    rng, found = np.random.default_rng(seeds), []
    for _ in range(reports):
        drawn = np.array([CLIPS[clips](rng) for _ in range(len(GROUPS) * len(ARMS) * seeds)])
        with_clips = _rank(drawn, seeds, keep_clips=True)
        # Where the clips are not known, no rounding is added.
        without = _rank(drawn, seeds, keep_clips=False)
        found.append(
            (
                any(ranking.clear or ranking.clear_alone for ranking in without),
                any(ranking.clear for ranking in without),
                any(ranking.clear for ranking in with_clips),
            )
        )
    return Shares(*np.mean(found, axis=0).tolist())


def _rank(drawn: np.ndarray, seeds: int, keep_clips: bool) -> list[Ranking]:
    runs = iter([_run(i % seeds, clips, keep_clips) for i, clips in enumerate(drawn.tolist())])
    groups: dict[str, Arms] = {
        group: {arm: [next(runs) for _ in range(seeds)] for arm in ARMS} for group in GROUPS
    }
    return [ranking for rankings in rank(groups).values() for ranking in rankings]


def _run(seed: int, clips: list[float], keep_clips: bool) -> Run:
    return Run(
        name="",
        arm="",
        seed=seed,
        directory=pathlib.Path(),
        settings={},
        step=1,
        total_steps=1,
        lines=(),
        metrics={METRIC: sum(clips) / len(clips)},
        better={METRIC: "higher"},
        step_flops=None,
        training_flops=1,
        sampling_flops=None,
        clips={METRIC: clips} if keep_clips else {},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--reports", type=int, default=1000, metavar="N", help="reports of each row (default 1000)"
    )
    arguments = parser.parse_args()
    print("| a seed's clips | seeds | uncorrected | Holm | Holm and rounding |")
    print("|---|---:|---:|---:|---:|")
    for name in CLIPS:
        for seeds in (3, 5):
            shares = simulate(name, seeds, arguments.reports)
            cells = " | ".join(f"{share:.1%}" for share in shares)
            print(f"| {name} | {seeds} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
