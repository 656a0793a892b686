"""Compares networks of different objectives by the error of their estimates of the clean clip.

    python benchmarks/denoising_error.py --sweep runs/objectives

Losses of different objectives weigh noise levels differently, so they cannot be compared. Here all
networks see the same held-out clips with the same noise, at the same log-SNRs, and their captions.
The table has the mean squared error of the clean clip, of values in -1..1, with a column for each
log-SNR. Runs whose names differ in the seed alone share a row: their mean, with a 95% interval.
Instead of `--sweep`, `--workdirs` names single runs.
"""

import argparse
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stunet.commands.setup import set_up_jax
from stunet.data.sources import make_source
from stunet.diffusion.prediction import add_noise, to_x0
from stunet.generate import text
from stunet.report.statistics import t_interval
from stunet.train.objectives.objective import to_float

LOG_SNRS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0)


def errors(workdir: pathlib.Path, clips: int) -> list[float]:
    """Returns the mean squared error of the clean clip at each of `LOG_SNRS`.

    Args:
        workdir: working directory of a run that needs nothing but captions.
        clips: number of held-out clips.
    """
    run = text.load_unconditioned(workdir)
    denoiser = run.parts.denoiser
    source = make_source(run.parts.dataset, "val")
    rows = [source[i] for i in range(min(clips, len(source)))]
    x0, states, mask = (
        jnp.asarray(np.stack([row[key] for row in rows])) for key in ("video", "text", "text_mask")
    )
    x0 = to_float(x0)
    noise = jax.random.normal(jax.random.key(0), x0.shape)
    given = denoiser.conditioning.nothing(x0)

    @jax.jit
    def error(params, log_snr):
        levels = jnp.full(len(rows), log_snr)
        x_t = add_noise(x0, noise, levels)
        times = denoiser.schedule.time(levels)
        output = denoiser.predict(params, x_t, times, states, mask, *given)
        return jnp.square(to_x0(denoiser.prediction, output, x_t, levels) - x0).mean()

    return [float(error(run.params, log_snr)) for log_snr in LOG_SNRS]


def show(label: str, runs: Sequence[Sequence[float]]) -> None:
    """Prints the row of several runs with one label."""
    intervals = [t_interval(list(values)) for values in zip(*runs, strict=True)]
    cells = [f"{i.mean:.4f}" + (f" ± {i.half:.4f}" if i.half else "") for i in intervals]
    print(f"{label:28}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--sweep", type=pathlib.Path, metavar="DIR", help="directory of a sweep")
    where.add_argument("--workdirs", nargs="+", type=pathlib.Path, metavar="DIR", help="runs")
    parser.add_argument(
        "--num", type=int, default=64, metavar="N", help="held-out clips (default %(default)s)"
    )
    arguments = parser.parse_args()
    set_up_jax()
    groups: dict[str, list[pathlib.Path]] = {}
    for workdir in arguments.workdirs or sorted(arguments.sweep.glob("*,seed=*")):
        if (workdir / "checkpoints").is_dir():
            groups.setdefault(workdir.name.rpartition(",seed=")[0] or workdir.name, []).append(
                workdir
            )
    measured = functools.partial(errors, clips=arguments.num)
    print(f"{'log-SNR':28}" + "".join(f"{log_snr:>18g}" for log_snr in LOG_SNRS))
    for label, workdirs in groups.items():
        show(label, list(map(measured, workdirs)))


if __name__ == "__main__":
    main()
