"""Prints what a training step on this CPU spends its time on, by kind of operation.

    python benchmarks/step_profile.py --config quickstart
    python benchmarks/step_profile.py --config quickstart --config.model.channels=64

XLA's profiler notes when each operation of the compiled step began and ended, on each thread. The
compiled program says which part of the network an operation comes from. An operation that the
compiler fused from several is counted under the last of them. Times are those of the threads that
begin operations: a large product also uses other threads, which are not counted. So the shares are
a guide, and whether a change pays is measured on the whole step.
"""

import argparse
import collections
import pathlib
import re
import tempfile
import time

import jax
from overrides import parse_with_overrides
from train_step import prepare

from stunet import configs
from stunet.commands.setup import set_up_jax
from stunet.parallel import mesh as meshes
from stunet.train.measured import flops
from stunet.train.parts import make_parts

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (\S+).* ([\w\-]+)\(", re.M)
_SOURCE = re.compile(r'op_name="([^"]*)"')

# Kinds of operations. The first expression that is found in an operation's source names its kind.
KINDS = (
    ("convolution", r"conv_general_dilated$"),
    ("gradients of convolutions: products", r"transpose.*/(conv\w*|proj)/.*while.*dot_general$"),
    ("gradients of convolutions: patches", r"transpose.*/(conv\w*|proj)/.*(while|transpose|rev)"),
    ("attention", r"/(attention|temporal_\d+|text_pooling)/"),
    ("other products", r"dot_general$"),
    ("norms and activations", r"norm|silu|gelu|erf|optimization_barrier"),
    ("biases", r"bias|/(conv\w*|proj)/add|/(conv\w*|proj)/reduce_sum"),
    ("resizing", r"_resize"),
    ("skip connections and residuals", r"layer"),
    ("other parts of the network", r"STUNet"),
    ("noise and loss", r"random|normal|uniform|threefry|jvp"),
    ("optimiser", r""),
)


def kind_of(source: str) -> str:
    """Returns the kind of an operation, by the name of its source in the program."""
    return next(kind for kind, pattern in KINDS if re.search(pattern, source))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any key of the config can follow, such as --config.train.batch_size=2.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="name of an experiment, or its file")
    parser.add_argument("--steps", type=int, default=5, help="steps to profile (5)")
    parser.add_argument("--top", type=int, default=10, help="single operations to list (10)")
    arguments, overrides = parse_with_overrides(parser)
    set_up_jax()
    parts = make_parts(configs.load(arguments.config, overrides))
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh, parts.layout.context_axis):
        state, batch, update = prepare(parts, mesh)
        text = update.lower(state, batch).compile().as_text()
        seconds = []
        for _ in range(2 + arguments.steps):
            begun = time.perf_counter()
            state, _ = jax.block_until_ready(update(state, batch))
            seconds.append(time.perf_counter() - begun)
        with tempfile.TemporaryDirectory() as directory:
            with jax.profiler.trace(directory):
                for _ in range(arguments.steps):
                    state, _ = jax.block_until_ready(update(state, batch))
            (trace,) = pathlib.Path(directory).rglob("*.xplane.pb")
            profile = jax.profiler.ProfileData.from_file(str(trace))

    sources = {}
    for match in _INSTRUCTION.finditer(text):
        name, shape, _ = match.groups()
        line = text[match.start() : text.find("\n", match.end())]
        source = _SOURCE.search(line)
        sources[name] = (source[1] if source else "", shape.partition("{")[0])
    operations = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                # A loop's time is that of the operations in it, which are counted themselves.
                if event.name in sources and not event.name.startswith(("while", "call")):
                    operations[event.name] += event.duration_ns / 1e6 / arguments.steps
    kinds = collections.Counter()
    for name, milliseconds in operations.items():
        kinds[kind_of(sources[name][0])] += milliseconds

    median = sorted(seconds[2:])[arguments.steps // 2]
    rate = flops.model_flops(parts.denoiser, parts.batch_size) / median / 1e9
    total = sum(kinds.values())
    print(f"{1e3 * median:.1f} ms a step, {rate:.0f} GFLOP/s; without the profiler")
    print(f"{total:.1f} ms of threads in the operations of a step, with the profiler\n")
    for kind, milliseconds in kinds.most_common():
        print(f"{milliseconds:9.1f} ms  {milliseconds / total:6.1%}  {kind}")
    print()
    for name, milliseconds in operations.most_common(arguments.top):
        source, shape = sources[name]
        print(f"{milliseconds:9.1f} ms  {shape:28}  {source.split('/', 1)[-1][-70:]}")


if __name__ == "__main__":
    main()
