"""Prints the kernels that one block's time goes into, by the TPU compiler's own estimate.

    python benchmarks/block_kernels.py --topology v6e:16x16
    python benchmarks/block_kernels.py --topology v5p:4x4x4 --block "ConvInflation 80x128x128x256"

The block is compiled as in `stunet plan`, forward and backward. Without --block it is the block of
the finest level that the network calls most often. Kernels that hold a convolution or a matrix
product are listed apart from passes over the memory, which multiply nothing. A block takes a minute
or two. The TPU compiler must be installed (`pip install -e '.[tpu]'`); a TPU is not needed.
"""

import argparse
import os
import re

from overrides import parse_with_overrides

# Compiling for chips that are elsewhere must not look for any here. The first import of JAX reads
# these.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

_KERNEL = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (.*?) (?:fusion|copy|pad|slice|convolution)\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_SHOWN = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default="experiments/lumiere_base.py", help="experiment file (%(default)s)"
    )
    parser.add_argument(
        "--topology", required=True, help="TPUs by generation and shape, such as v6e:16x16"
    )
    parser.add_argument("--block", help="name of a block, as stunet plan prints it")
    arguments, overrides = parse_with_overrides(parser)

    from stunet import configs
    from stunet.parallel import mesh as meshes
    from stunet.plan import chips, costs
    from stunet.train import pieces
    from stunet.train.measured import flops
    from stunet.train.parts import make_parts

    config = configs.load(arguments.config, overrides)
    parts = make_parts(config)
    found = {p.name: p for p in pieces.find(parts.denoiser, parts.batch_size)}
    finest = " " + "x".join(map(str, parts.denoiser.clip.shape[:-1])) + "x"
    most = max((p for p in found.values() if finest in p.name), key=lambda p: len(p.calls))
    piece = found.get(arguments.block or most.name)
    if piece is None:
        parser.error(f"no block is called {arguments.block!r}; choose one of {', '.join(found)}")

    topology = chips.find(arguments.topology)
    chip, devices = topology.chip, topology.devices
    if not devices or topology.is_local:
        parser.error("--topology must be TPUs: only their compiler estimates its kernels' time")
    mesh = meshes.make_mesh(parts.layout, devices)
    with meshes.use(mesh, parts.layout.context_axis), chips.silence_stderr():
        text = costs.lower(piece, parts.denoiser.network.remat, mesh).compile().as_text()
    kernels = [
        (
            int(cycles[1]) / chip.hertz,
            "kind=kOutput" in line,
            kernel[2],
            source[1] if source else "",
        )
        for line in text.splitlines()
        if (cycles := _CYCLES.search(line)) and (kernel := _KERNEL.match(line))
        for source in [_SOURCE.search(line)]
    ]
    seconds = sum(time for time, *_ in kernels)
    multiplying = sum(time for time, multiplies, *_ in kernels if multiplies)
    of_peak = 3 * flops.of_piece(piece) / len(devices) / chip.flops
    print(f"{piece.name}, on {arguments.topology}")
    for what, time, rate in (
        ("all kernels", seconds, f"{of_peak / seconds:.1%} of the peak"),
        ("kernels that multiply", multiplying, f"{of_peak / multiplying:.1%}"),
        ("passes that multiply nothing", seconds - multiplying, ""),
    ):
        print(f"{1e3 * time:8.3f} ms  {what}{', ' * bool(rate)}{rate}")
    print()
    for time, multiplies, shape, source in sorted(kernels, reverse=True)[:_SHOWN]:
        kind = "multiplies" if multiplies else "pass"
        written = re.sub(r"\{[^}]*\}", "", shape)
        print(
            f"{1e3 * time:8.3f} ms  {kind:10}  {source.split('/', 1)[-1][-48:]:48}  {written[:60]}"
        )


if __name__ == "__main__":
    main()
