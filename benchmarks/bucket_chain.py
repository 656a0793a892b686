"""Takes a small run in a bucket through everything, with nothing on this machine but the cache.

    python benchmarks/bucket_chain.py gs chain      # prepare, train, sample, evaluate, export
    python benchmarks/bucket_chain.py gs quickstart # the same, with the quickstart's own config
    python benchmarks/bucket_chain.py gs processes  # a run of two processes, and of one
    python benchmarks/bucket_chain.py s3 sweep      # two runs, killed, and a report of both
    python benchmarks/bucket_chain.py s3 refusing   # every third request is answered with 503
    python benchmarks/bucket_chain.py gs down       # a minute in which every request is refused
    python benchmarks/bucket_chain.py s3 slow       # every request takes half a second more

`chain` kills `prepare` once and the training ten times with kill -9, each time at a random moment,
and removes the cache after each, so that another machine might as well go on. `quickstart` does so
to all 4,400 updates of experiments/quickstart.py, within some 100 updates after a checkpoint, so
that little has to be computed again; `--on-disk DIR` keeps the run on a disk for the next trial.
`sweep` kills the sweep and its members once, as a machine that fails. Each trial compares the
result with that of the same commands on a disk, bit for bit, and ends with status 1 if they differ.
The buckets are emulators on this machine (`tests/stores/servers.py`).
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

sys.path.extend(
    str(pathlib.Path(__file__).parents[1] / "tests" / room)
    for room in ("stores", "faults", "prepare", "train")
)

import event_files
import servers
import training
from processes import Ended, Process, Server
from videos import make_video, noise

from stunet import configs
from stunet.stores import addresses, mirror, objects

ROOT = pathlib.Path(__file__).parents[1]
KILLS, STEPS = 10, 30
_STEPS_OF_TESTS = training.STEPS
# Seconds after which a command has hung. Each of thousands of refused requests takes a pause.
_PATIENCE = 3600
# Each process has a cache of its own, named by its last argument, as on a machine of its own.
_OWN_CACHE = 'for last; do :; done; XDG_CACHE_HOME="$XDG_CACHE_HOME/$last" exec "$@"'
_PREPARE = ("--side=16", "--fps=8", "--min-seconds=0.5", "--cut-threshold=0", "--workers=1")
_SWEEP = """
from stunet.sweep.members import Step, product


def get_sweep():
    members = product(get_config(), {"seed": (0, 1)}, "of")
    names = tuple(member.name for member in members)
    page = ("report", "{sweep}/" + names[0])
    return [*members, Step("page", page, names, f"{names[0]}/report.html")]
"""
_DATA = """    config.data.source = "clips"
    config.data.path = {path!r}
    config.data.fps = 8.0
    return config
"""


class Trial:
    """Holds the emulator's bucket, a server of processes, and what the trial is to keep.

    Attributes:
        bucket: address of the bucket.
        scratch: directory for everything that is not in the bucket.
        faults: file that switches faults of the emulator on.
        on_disk: working directory of the run on a disk.
    """

    def __init__(self, bucket: str, scratch: pathlib.Path, server: Server, on_disk: pathlib.Path):
        self.bucket, self.scratch, self.server, self.on_disk = bucket, scratch, server, on_disk
        self.faults = scratch / "faults"

    def experiment(self, name: str, steps: int, data: str = "") -> pathlib.Path:
        """Writes a config, of clips in `data` or of moving digits."""
        text = training.EXPERIMENT.replace(f"steps = {_STEPS_OF_TESTS}", f"steps = {steps}")
        if data:
            text = text.replace("    return config\n", _DATA.format(path=data))
        file = self.scratch / f"{name}.py"
        file.write_text(text)
        training.STEPS = steps
        return file

    def run(self, *words: object, **how) -> Ended:
        """Runs a command to its end, which must be a success."""
        begin = time.monotonic()
        process = self.server.start(*words, **how)
        ended = process.end(process.hangs(patience=_PATIENCE, idle=_PATIENCE))
        print(f"{words[0]}: status {ended.status}, {time.monotonic() - begin:.0f} s", flush=True)
        check(ended.status == 0 and not ended.unseemly, ended.output)
        return ended

    def kill(self, *words: object, at: Callable[[Process], object], **how) -> bool:
        """Starts a command, kills it at a moment for which `at` waits, and empties the cache.

        Returns:
            True if the command was still running.
        """
        process = self.server.start(*words, **how)
        at(process)
        process.signal(signal.SIGKILL)
        ended = process.wait()
        check(ended.status in (0, -signal.SIGKILL) and not ended.unseemly, ended.output)
        self.empty_cache()
        return ended.status == -signal.SIGKILL

    def empty_cache(self) -> None:
        shutil.rmtree(self.scratch / "cache", ignore_errors=True)

    def result(self, run: str) -> dict:
        copy = addresses.local(run)
        mirror.pull(copy)
        return training.result(copy, mirror.place(copy, "checkpoints"))

    def compare(self, run: str, on_disk: pathlib.Path) -> None:
        different = training.differences(self.result(run), training.result(on_disk))
        print(f"differs from the run on a disk in: {different or 'nothing'}", flush=True)
        check(not different, run)


def check(is_right: bool, reason: str) -> None:
    if not is_right:
        raise SystemExit(f"failed: {reason}")


def after(seconds: float) -> Callable[[Process], object]:
    """Returns a function that waits for some seconds, or for the end of the process."""
    return lambda process: process.has_ended(seconds)


def chain(trial: Trial) -> None:
    videos, draw = trial.scratch / "videos", random.Random(0)
    for number in range(6):
        make_video(videos / f"{number}.mp4", noise(80, number), fps=8)
    for file in videos.iterdir():
        objects.put(f"{trial.bucket}/videos/{file.name}", file)
    words = ("prepare", f"{trial.bucket}/videos", f"{trial.bucket}/shots", *_PREPARE)
    was_running = trial.kill(*words, at=after(draw.uniform(0.5, 3)))
    print(f"prepare: killed {was_running}", flush=True)
    trial.run(*words)
    trial.run("prepare", videos, trial.scratch / "shots", *_PREPARE)
    for file in (trial.scratch / "shots" / "shards").glob("*.array_record"):
        found = objects.read(f"{trial.bucket}/shots/shards/{file.name}")[0]
        check(found == file.read_bytes(), f"{file.name} differs")
    config = trial.experiment("on_disk", STEPS, str(trial.scratch / "shots"))
    trial.run("train", f"--config={config}", f"--workdir={trial.on_disk}")
    config = trial.experiment("in_bucket", STEPS, f"{trial.bucket}/shots")
    train_with_kills(trial, config, [after(draw.uniform(4, 20)) for _ in range(KILLS)])
    use(trial)


def quickstart(trial: Trial) -> None:
    config = configs.start_from("quickstart")
    training.STEPS, every = config.train.steps, config.checkpoint.every
    trial.run("train", "--config=quickstart", f"--workdir={trial.on_disk}", real=True)
    draw, copy = random.Random(0), addresses.local(f"{trial.bucket}/run") / "metrics.jsonl"

    def at_update(update: int) -> Callable[[Process], object]:
        def wait(process: Process) -> None:
            while not process.has_ended(0.1):
                with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
                    if json.loads(copy.read_text().splitlines()[-1])["step"] >= update:
                        process.has_ended(draw.uniform(0, 5))
                        return

        return wait

    saved = [kill * config.train.steps // KILLS // every * every for kill in range(KILLS)]
    updates = sorted(update + draw.randrange(100) for update in saved)
    print(f"to kill after updates {updates}", flush=True)
    train_with_kills(trial, "quickstart", [*map(at_update, updates)], real=True)
    use(trial, real=True)


def train_with_kills(
    trial: Trial, config: object, kills: Sequence[Callable[[Process], object]], **how
) -> None:
    """Trains in the bucket, kills the training at some moments, and compares it with the disk's."""
    run, begin = f"{trial.bucket}/run", time.monotonic()
    words = ("train", f"--config={config}", f"--workdir={run}")
    for number, at in enumerate(kills, 1):
        # A machine that is killed and starts again waits for nobody: its name is the same.
        was_running = trial.kill(*words, at=at, **how)
        steps = {name.split("/")[1] for name in objects.listing(run) if "checkpoints/" in name}
        there = sorted(int(step) for step in steps if step.isdecimal())
        print(f"kill {number}: checkpoints {there}", flush=True)
        check(was_running, f"the run ended before it was killed {len(kills)} times")
    trial.run(*words, **how)
    print(f"train: {len(kills)} kills, {time.monotonic() - begin:.0f} s")
    trial.compare(run, trial.on_disk)
    copy = addresses.local(run)
    lines = map(json.loads, (copy / "metrics.jsonl").read_text().splitlines())
    wanted = {(line["step"], name.replace("=", "_")) for line in lines for name in line}
    points = [point[:2] for point in event_files.points(copy) if "system/" not in point[1]]
    missing = {point for point in wanted if point[1] != "step"} - {*points}
    print(f"TensorBoard: {len(points)} points, {len(missing)} missing", flush=True)
    check(not missing and len(points) == len({*points}), "events are missing or doubled")


def use(trial: Trial, **how) -> None:
    """Samples, evaluates, exports and reports the run in the bucket."""
    run = f"{trial.bucket}/run"
    for words in (
        ("sample", "text", f"--workdir={run}", "--num=1", "--prompt=any"),
        ("evaluate", f"--workdir={run}", "--num=4", "--batch-size=4", "--metrics=pixels"),
        ("export", f"--workdir={run}", "--format=safetensors", f"--out={run}/exported"),
        ("report", run),
    ):
        trial.empty_cache()
        trial.run(*words, **how)
    names = objects.listing(run)
    for end in (".gif", "evaluation.json", ".safetensors", "report.html"):
        check(any(name.endswith(end) for name in names), f"there is no {end}")


def processes(trial: Trial) -> None:
    config = trial.experiment("experiment", 8)
    places = {
        "2 in the bucket": (2, f"{trial.bucket}/run"),
        "2 on a disk": (2, str(trial.scratch / "two")),
        "1 on a disk": (1, str(trial.scratch / "one")),
    }
    weights = {}
    for name, (count, run) in places.items():
        command = [sys.executable, str(ROOT / "launch" / "local.py"), f"--processes={count}"]
        command += [f"--devices-per-process={2 // count}", "--", "sh", "-c", _OWN_CACHE, "sh"]
        command += [sys.executable, "-m", "stunet", "train", f"--config={config}"]
        command += [f"--workdir={run}", "--config.mesh.fsdp=2"]
        if run.startswith(trial.bucket):
            # On Linux its processes die with the launcher.
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as launcher:
                while not any("checkpoints/4/" in name for name in objects.listing(run)):
                    check(launcher.poll() is None, "the run ended before its update 4 was saved")
                    time.sleep(0.1)
                launcher.kill()
            trial.empty_cache()
            print(f"{name}: killed at checkpoint 4", flush=True)
        begin = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True)
        print(f"{name}: status {ended.returncode}, {time.monotonic() - begin:.0f} s", flush=True)
        check(ended.returncode == 0, ended.stdout + ended.stderr)
        trial.empty_cache()
        out = trial.scratch / f"exported {name}"
        trial.run("export", f"--workdir={run}", "--format=safetensors", f"--out={out}", real=True)
        files = sorted(out.glob("*.safetensors"))
        check(bool(files), "nothing was exported")
        weights[name] = {file.name: file.read_bytes() for file in files}
    first, *others = weights.values()
    for name, other in zip([*weights][1:], others, strict=True):
        print(f"exported weights differ from {name}: {first != other}", flush=True)
        check(first == other, "the weights differ")


def sweep(trial: Trial) -> None:
    file = trial.experiment("experiment", 8)
    file.write_text(file.read_text() + _SWEEP)
    places = (f"{trial.bucket}/sweep", str(trial.scratch / "sweep"))
    for place in places:
        words = ("sweep", f"--config={file}", f"--workdir={place}")
        if place == places[0]:
            process = trial.server.start(*words)
            begun = "of,seed=1/checkpoints/2/"
            while not process.has_ended(0.1):
                if any(begun in name for name in objects.listing(place)):
                    break
            children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
            below = children.read_text().split()
            process.signal(signal.SIGKILL)
            for number in below:
                os.kill(int(number), signal.SIGKILL)
            print(f"sweep: status {process.wait().status}, {len(below)} member killed", flush=True)
            trial.empty_cache()
        trial.run(*words)
    trial.empty_cache()
    trial.run("report", places[0])
    check("report.html" in objects.listing(places[0]), "there is no page")
    for name in ("of,seed=0", "of,seed=1"):
        trial.compare(f"{places[0]}/{name}", trial.scratch / "sweep" / name)


def disturbed(trial: Trial, mode: str) -> None:
    config = trial.experiment("experiment", 4)
    trial.run("train", f"--config={config}", f"--workdir={trial.on_disk}")
    trial.faults.write_text(mode)
    trial.run("train", f"--config={config}", f"--workdir={trial.bucket}/run")
    trial.faults.write_text("")
    trial.compare(f"{trial.bucket}/run", trial.on_disk)


def down(trial: Trial) -> None:
    config = trial.experiment("experiment", 8)
    trial.run("train", f"--config={config}", f"--workdir={trial.on_disk}")
    run = f"{trial.bucket}/run"
    words = ("train", f"--config={config}", f"--workdir={run}")
    process = trial.server.start(*words)
    while not any("checkpoints/2/" in name for name in objects.listing(run)):
        check(not process.has_ended(0.05), "the run ended before its second update was saved")
    trial.faults.write_text("1")
    begin = time.monotonic()
    process.has_ended(60)
    time.sleep(max(0, begin + 60 - time.monotonic()))
    trial.faults.write_text("")
    ended = process.end(process.hangs(patience=_PATIENCE, idle=_PATIENCE))
    print(f"train: status {ended.status}, {time.monotonic() - begin:.0f} s from the outage on")
    check(not ended.unseemly, ended.output)
    if ended.status:  # A checkpoint that was being written failed.
        print(ended.last_line)
        trial.run(*words)
    trial.compare(run, trial.on_disk)


TRIALS: dict[str, Callable[[Trial], None]] = {
    "chain": chain,
    "quickstart": quickstart,
    "processes": processes,
    "sweep": sweep,
    "down": down,
    "refusing": lambda trial: disturbed(trial, "3"),
    "slow": lambda trial: disturbed(trial, "slow"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scheme", choices=("gs", "s3"))
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument(
        "--on-disk",
        type=pathlib.Path,
        metavar="DIR",
        help="working directory of the run on a disk, kept for another trial (default: a temporary "
        "one)",
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (scratch / "faults").touch()
        faults = str(scratch / "faults")
        os.environ |= stack.enter_context(servers.running(arguments.scheme, faults))
        os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
        server = stack.enter_context(Server(scratch))
        begin = time.monotonic()
        bucket = f"{arguments.scheme}://{servers.BUCKET}"
        on_disk = arguments.on_disk or scratch / "run"
        TRIALS[arguments.trial](Trial(bucket, scratch, server, on_disk))
        print(f"{arguments.scheme} {arguments.trial}: {time.monotonic() - begin:.0f} s, all right")


if __name__ == "__main__":
    main()
