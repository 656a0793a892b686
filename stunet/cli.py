"""The command line: parses, calls one function of a room, prints."""

import argparse
import contextlib
import os
import pathlib
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from stunet.errors import UserError
from stunet.export import formats
from stunet.files import user_cache
from stunet.generate import command as sample_command
from stunet.generate.task import (
    add_sampling,
    at_least_one,
    measuring_bar,
    sampling_bar,
    sampling_settings,
)
from stunet.generate.tasks import add_cascade


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `stunet COMMAND ...`. Returns the exit status: 0, or 1 after a mistake of the user's, or
    what `stunet train --stop-status` says."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["sample"]:
            sample_command.check_named(argv[1:])
        arguments = _parse(argv)
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"stunet {argv[0]}: {error}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [flag for flag in rest if flag.startswith("--config.")]
    configurable = hasattr(arguments, "config")
    if len(overrides) != len(rest) or (rest and not configurable):
        unknown = next(flag for flag in rest if not configurable or flag not in overrides)
        parser.error(f"unknown argument {unknown!r} for {arguments.command}")
    arguments.overrides = overrides
    return arguments


def _train(arguments) -> int:
    from stunet import configs
    from stunet.sweep import members

    # A sweep's file may count operations: with JAX, which must not have begun before hosts join.
    config = None
    if arguments.member is None:
        config = configs.load(arguments.config, arguments.overrides)
    set_up_jax()
    from stunet.parallel import hosts
    from stunet.train.loop import train

    hosts.join(arguments.coordinator, arguments.processes, arguments.process)
    with hosts.failing_together("stunet train"):
        if config is None:
            config = members.find(arguments.config, arguments.member, arguments.overrides).config
        step = train(config, arguments.workdir)
    if hosts.is_first():
        print(f"metrics      {arguments.workdir / 'metrics.jsonl'}")
        print(f"checkpoints  {arguments.workdir / 'checkpoints'}")
    return arguments.stop_status if step < config.train.steps else 0


def _sample(arguments) -> None:
    set_up_jax()
    print(sample_command.run(arguments))


def _export(arguments) -> None:
    set_up_jax()
    print(formats.run(arguments))


def _evaluate(arguments) -> None:
    set_up_jax()
    from stunet.evaluate import metrics
    from stunet.evaluate.run import evaluate

    evaluation = evaluate(
        arguments.workdir,
        metrics=arguments.metrics,
        protocol=arguments.protocol,
        tsr=arguments.tsr,
        augmentation=arguments.augmentation,
        out=arguments.out,
        num=arguments.num,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        window=arguments.window,
        on_step=sampling_bar(),
        on_clips=measuring_bar(),
        **sampling_settings(arguments),
    )
    print(metrics.table(evaluation.columns, titles=evaluation.words))
    print(f"\n{evaluation.said()}  {evaluation.file}")


def _prepare(arguments) -> None:
    from stunet.nn.text import text_encoder
    from stunet.prepare.prepare import prepare

    if arguments.text_encoder != "bytes":
        set_up_jax()
    encoder = text_encoder(arguments.text_encoder, arguments.text_max_length, arguments.text_dim)
    print(
        prepare(
            arguments.input,
            arguments.output,
            frames=arguments.frames,
            fps=arguments.fps,
            height=arguments.height,
            width=arguments.width,
            channels=arguments.channels,
            encode_text=encoder,
            text_encoder=arguments.text_encoder,
            text_fingerprint=encoder.fingerprint,
            val_fraction=arguments.val_fraction,
        )
    )


def _plan(arguments) -> None:
    local = arguments.topology == "local"
    if not local:
        # Compiling for chips that are not here needs none, and must not look for any. Before the
        # first import of JAX.
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
    from stunet import configs
    from stunet.plan import chips, costs, report, search
    from stunet.plan.plan import make_plan

    config = configs.load(arguments.config, arguments.overrides)
    chip, devices = chips.devices(arguments.topology, arguments.slices)
    if arguments.search:
        with _elapsed(f"searching layouts for {len(devices)} x {chip.name}"):
            found = search.rank(config, chip, len(devices), arguments.slices)
        if not arguments.json:
            print(report.ranking(found, chip), end="\n\n", flush=True)
        config = found[0].applied(config)
    topology = None if local else (arguments.topology, arguments.slices)
    with (
        _elapsed(f"compiling for {len(devices)} x {chip.name}"),
        contextlib.nullcontext()
        if arguments.memory_only or local  # Only TPUs' compiler estimates its kernels' time.
        else costs.Costs(config, *topology, scale=not arguments.every_block) as pieces,
    ):
        plan = make_plan(config, chip, devices, topology, pieces)
    print(report.as_json(plan) if arguments.json else report.text(plan))
    if plan.over:
        message = f"the program does not fit {chip.name}, by {plan.over / 2**30:.2f} GiB"
        if not local:
            changes = search.remedy(config, plan.mesh, chip, arguments.slices)
            message += "; by estimate, "
            message += f"it would with {' '.join(changes)}" if changes else "no layout would"
        raise UserError(message)


def _inflate(arguments) -> None:
    set_up_jax()
    from stunet.weights.inflate import inflate

    print(
        inflate(
            arguments.t2i,
            arguments.out,
            arguments.frames,
            arguments.temporal_factors,
            arguments.overrides,
        )
    )


def _sweep(arguments) -> None:
    environment = dict(os.environ)
    # A sweep file may count operations, for which this process needs no accelerator: that is the
    # members'. Before the first import of JAX.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from stunet.sweep import members, run, workdir

    entries = members.load(arguments.config, arguments.overrides)
    made_by = ["sweep", "--config", arguments.config, "--workdir", str(arguments.workdir)]
    question = members.question(arguments.config)
    workdir.claim(arguments.workdir, entries, made_by + arguments.overrides, question)
    if arguments.dry_run:
        lines = []
        for entry in entries:
            if not workdir.is_done(arguments.workdir, entry):
                line = shlex.join(["stunet", *workdir.arguments(arguments.workdir, entry)])
                needs = ", ".join(getattr(entry, "after", ()))
                lines.append(f"{line}  # after {needs}" if needs else line)
        # At once, for readers that take but the first lines.
        print("\n".join(lines), end="\n" if lines else "")
        return
    run.run(arguments.workdir, entries, arguments.jobs, environment)
    print(f"all {len(entries)} done; {shlex.join(['stunet', 'report', str(arguments.workdir)])}")


def _report(arguments) -> None:
    # Counts operations, for which it needs no accelerator. Before the first import of JAX.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from stunet.report.report import write_report

    out = arguments.out or arguments.workdir / "report.html"
    write_report(arguments.workdir, out)
    print(f"report     {out}")


@contextlib.contextmanager
def _elapsed(what: str) -> Iterator[None]:
    """Within: a line on the terminal says what is going on, and for how long."""
    done, terminal = threading.Event(), os.fdopen(os.dup(2), "w")
    begun = time.monotonic()

    def show() -> None:
        while not done.wait(1):
            minutes, seconds = divmod(int(time.monotonic() - begun), 60)
            terminal.write(f"\r{what}: {minutes} min {seconds:02d} s")
            terminal.flush()

    thread = threading.Thread(target=show, daemon=True)
    if terminal.isatty():
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
            terminal.write("\r\033[K")
        terminal.close()


def set_up_jax() -> None:
    """Compiled programs are kept between runs, where the user has not said otherwise."""
    import jax
    from absl import logging

    # Orbax and grain report their routine there; what goes wrong reaches the user as an exception.
    logging.set_verbosity(logging.FATAL)

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(user_cache("xla")))


def _factors(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(factor) for factor in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers, as 1,2,2,2") from None


def _status(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not an exit status, 0 to 255")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stunet",
        description="Space-Time U-Nets: video diffusion over the whole clip in a single pass.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, summary: str, **kwargs):
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            **kwargs,
        )
        sub.set_defaults(run=run)
        return sub

    train = command(
        "train",
        _train,
        "train a config, or continue a run",
        epilog="any key of the config: --config.train.steps=2000 (see stunet/configs/schema.py)",
    )
    train.add_argument("--config", required=True, help="experiment file, as experiments/*.py")
    train.add_argument("--workdir", required=True, type=pathlib.Path, help="all output goes here")
    train.add_argument("--member", metavar="NAME", help="of --config, which is a sweep's file")
    train.add_argument(
        "--stop-status",
        type=_status,
        default=0,
        metavar="N",
        help="exit status when SIGTERM or Ctrl-C has ended the run before its last update",
    )
    several = train.add_argument_group(
        "several processes",
        "found by themselves on TPU pods, GKE and SLURM; elsewhere give all three to each process",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--processes", type=int, metavar="N", help="how many; 1: look for none")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")

    sample = command("sample", _sample, "sample clips from a trained run")
    sample_command.add_tasks(sample)

    export = command("export", _export, "write a trained run for use elsewhere")
    formats.add_arguments(export)

    evaluate = command("evaluate", _evaluate, "judge how the clips of a trained run move")
    evaluate.add_argument("--workdir", required=True, type=pathlib.Path, help="of the training run")
    evaluate.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="of coherence, pixels, flow and fvd (all but fvd, or the protocol's)",
    )
    evaluate.add_argument(
        "--protocol",
        type=pathlib.Path,
        metavar="FILE",
        help="prompts and clips of other data, as experiments/ucf101_zero_shot.py",
    )
    evaluate.add_argument(
        "--num", type=at_least_one, help="clips to sample (64, or the protocol's)"
    )
    add_cascade(evaluate)
    add_sampling(evaluate)
    evaluate.add_argument("--batch-size", type=at_least_one, default=32, help="clips at once")
    evaluate.add_argument(
        "--window",
        type=at_least_one,
        default=0,
        metavar="FRAMES",
        help="tell what happens at every so many frames from elsewhere (a cascade's own windows)",
    )
    evaluate.add_argument(
        "--out",
        type=pathlib.Path,
        help="directory of evaluation.json, samples/ and evaluation/ (WORKDIR)",
    )

    plan = command(
        "plan",
        _plan,
        "say whether a run fits a TPU topology, or this machine, and how fast it will be",
        epilog="any key of the config: --config.mesh.context=4 (see stunet/configs/schema.py)",
    )
    plan.add_argument("--config", required=True, help="experiment file, as experiments/*.py")
    plan.add_argument(
        "--topology",
        required=True,
        help="generation and shape, as v5p:4x4x4, v5e:16x16, v6e:16x16; or local: this machine",
    )
    plan.add_argument("--slices", type=at_least_one, default=1, help="of that topology")
    plan.add_argument(
        "--memory-only", action="store_true", help="say what fits, several times sooner"
    )
    plan.add_argument(
        "--every-block",
        action="store_true",
        help="compile those too whose time follows, within a few percent, from a narrower one's",
    )
    plan.add_argument(
        "--search",
        action="store_true",
        help="rank meshes, remat policies and microbatches that fit, and plan the first",
    )
    plan.add_argument("--json", action="store_true", help="print JSON")

    inflate = command(
        "inflate",
        _inflate,
        "make a text-to-image U-Net the frozen half of a Space-Time U-Net",
        epilog="any key of the config that the U-Net leaves open: --config.data.path=runs/clips "
        "(see stunet/configs/schema.py)",
    )
    # It has no file of its own, and takes keys all the same.
    inflate.set_defaults(config=None)
    inflate.add_argument(
        "--t2i",
        required=True,
        type=pathlib.Path,
        metavar="DIR",
        help="a diffusers U-Net of DeepFloyd IF's family: config.json and safetensors",
    )
    inflate.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="DIR", help="working directory to create"
    )
    inflate.add_argument("--frames", required=True, type=at_least_one, help="of a clip")
    inflate.add_argument(
        "--temporal-factors",
        type=_factors,
        metavar="1,2,...",
        help="by how much time shrinks on entering each level (1, then 2 for each coarser)",
    )

    sweep = command(
        "sweep",
        _sweep,
        "train each member of a sweep, or go on with what is not done",
        epilog="any key of every member's config: --config.train.steps=2000",
    )
    sweep.add_argument("--config", required=True, help="sweep file, as experiments/sweeps/*.py")
    sweep.add_argument("--workdir", required=True, type=pathlib.Path, help="all output goes here")
    sweep.add_argument("--jobs", type=at_least_one, default=1, help="processes at a time")
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="write the members' configs and print the commands, for a scheduler",
    )

    report = command("report", _report, "show a sweep, or a run, on one page of HTML")
    report.add_argument("workdir", type=pathlib.Path, help="of the sweep or the run")
    report.add_argument("--out", type=pathlib.Path, help="file (WORKDIR/report.html)")

    prepare = command("prepare", _prepare, "cut a folder of videos into records of clips")
    prepare.add_argument("input", type=pathlib.Path, help="folder of videos")
    prepare.add_argument("output", type=pathlib.Path, help="directory to create")
    prepare.add_argument("--frames", type=at_least_one, default=16, help="of a clip")
    prepare.add_argument("--fps", type=float, default=8.0, help="frames per second of a clip")
    prepare.add_argument("--height", type=at_least_one, default=32, help="rows of a clip")
    prepare.add_argument("--width", type=at_least_one, default=32, help="columns of a clip")
    prepare.add_argument("--channels", type=int, choices=(1, 3), default=3, help="grey or RGB")
    prepare.add_argument("--val-fraction", type=float, default=0.1, help="of clips held out")
    prepare.add_argument(
        "--text-encoder",
        default="bytes",
        metavar="NAME",
        help="of the captions: bytes, minilm, or t5:DIR, a T5-v1.1 checkpoint",
    )
    prepare.add_argument("--text-max-length", type=at_least_one, default=64, help="tokens")
    prepare.add_argument(
        "--text-dim", type=int, help="width of a token's state (64 of bytes; else the encoder's)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
