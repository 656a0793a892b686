"""Measures the time from the command to the end of the first update, and its parts.

    python benchmarks/start_time.py --config quickstart
    python benchmarks/start_time.py --config quickstart --config.data.frames=8

`stunet train` runs five times, each time in a process of its own:

* cold: no compiled program is on the disk;
* warm: the programs that the cold run compiled are on the disk;
* restart: the run also restores a checkpoint, as do the next two;
* restart elsewhere: no compiled program is on the disk, as on another host;
* with --compiled: only the update that `stunet compile` has saved is on the disk.

JAX itself reports the time that it takes to trace, lower, and compile or read programs. One thread
compiles the update while another makes or restores the state, and both are counted. So the parts
add up to more than the time to the end of the first update.

Each run ends after its first update. Times are in seconds. Python's bytecode files and the system's
file cache are warm in all five runs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

# JAX's event that reports a time -> name of this time in the table.
COMPILING = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling, or reading what was compiled",
}
ROWS = (
    "importing",
    *COMPILING.values(),
    "the first update itself",
    "to the end of the first update",
    "processor time until then",
)
TOTAL, PROCESSOR = ROWS[-2:]

# Name of a start, its work directory, its cache of compiled programs, and its `train.steps`.
STARTS = (
    ("cold", "a", "cache", 1),
    ("warm", "b", "cache", 1),
    ("restart", "b", "cache", 2),
    ("restart elsewhere", "b", "empty", 3),
    ("with --compiled", "b", "empty_too", 4),
)


def child(began: float, arguments: list[str]) -> None:
    """Runs `stunet train`, and prints the times of the parts of its start on the last line.

    Args:
        began: time of the system's clock just before this process was started, in seconds.
        arguments: arguments of `stunet train`.
    """
    from stunet import cli
    from stunet.commands.setup import set_up_jax

    set_up_jax()
    import jax

    from stunet.train import loop  # noqa: F401  (imports what training needs
    from stunet.train.measured import reporting

    parts = dict.fromkeys(ROWS, 0.0)
    parts["importing"] = time.time() - began
    seen = []

    def compiled(event: str, seconds: float, **_) -> None:
        if event in COMPILING and not parts[TOTAL]:
            parts[COMPILING[event]] += seconds

    jax.monitoring.register_event_duration_secs_listener(compiled)
    add = reporting.Reporter.add

    def first(self, step, measured) -> None:
        if not seen:
            called = time.time()
            jax.block_until_ready(measured)
            seen.append(step)
            parts["the first update itself"] = time.time() - called
            parts[TOTAL] = time.time() - began
            parts[PROCESSOR] = time.process_time()
        add(self, step, measured)

    reporting.Reporter.add = first
    status = cli.main(["train", *arguments])
    print(json.dumps(parts))
    sys.stdout.flush()
    os._exit(status)


def measure(workdir: pathlib.Path, cache: pathlib.Path, arguments: list[str]) -> dict[str, float]:
    """Starts `stunet train` in a new process and returns the seconds of each part, by name."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, __file__, "--child", str(time.time()), f"--workdir={workdir}"]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="experiment, as for `stunet train`")
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        help="how often to measure (default 1); the medians are printed",
    )
    known, overrides = parser.parse_known_args()
    arguments = [f"--config={known.config}", *overrides]
    columns: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in STARTS}
    for _ in range(known.repeat):
        with tempfile.TemporaryDirectory() as name:
            place = pathlib.Path(name)
            program = place / "step.program"
            # The compiled update depends on `train.steps`, through the decay of the learning rate.
            compiling = ["compile", "--topology=local", f"--out={program}", *arguments]
            compiling += [f"--config.train.steps={STARTS[-1][-1]}"]
            subprocess.run([sys.executable, "-m", "stunet", *compiling], check=True)
            for column, run, cache, steps in STARTS:
                ends = [*arguments, f"--config.train.steps={steps}"]
                ends += ["--change=train.steps"] if steps > 1 else []
                ends += [f"--compiled={program}"] if column == "with --compiled" else []
                columns[column].append(measure(place / run, place / cache, ends))
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for row in ROWS:
        cells = (sorted(run[row] for run in runs)[len(runs) // 2] for runs in columns.values())
        print(f"| {row} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
