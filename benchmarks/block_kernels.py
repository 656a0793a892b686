"""Which kernels the time of one block goes into, by the TPU compiler's own estimate.

    python benchmarks/block_kernels.py --topology v6e:16x16
    python benchmarks/block_kernels.py --topology v5p:4x4x4 --block "ConvInflation 80x128x128x256"

The block is compiled as in `stunet plan`, forward and backward; without --block it is the one of
the most calls among those of the finest level. Kernels with a convolution or a matrix product in
them are told apart from passes over the memory, which multiply nothing. Takes a minute or two a
block; needs the TPU compiler (`pip install -e .[tpu]`), and no TPU.
"""

import argparse
import os
import re

# Before the first import of JAX: compiling for chips that are not here must not look for any.
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
    parser.add_argument("--config", default="experiments/lumiere_base.py")
    parser.add_argument("--topology", required=True, help="as stunet plan takes it")
    parser.add_argument("--block", help="as stunet plan calls it")
    arguments, overrides = parser.parse_known_args()
    if unknown := [flag for flag in overrides if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {unknown[0]!r}")

    from stunet import configs
    from stunet.parallel import mesh as meshes
    from stunet.plan import chips, costs
    from stunet.train import flops, pieces

    config = configs.load(arguments.config, overrides)
    found = {p.name: p for p in pieces.find(config, config.train.batch_size)}
    finest = f" {config.data.frames}x{config.data.height}x{config.data.width}x"
    most = max((p for p in found.values() if finest in p.name), key=lambda p: len(p.calls))
    piece = found.get(arguments.block or most.name)
    if piece is None:
        parser.error(f"no block is called {arguments.block!r}; there are {', '.join(found)}")

    topology = chips.find(arguments.topology)
    chip, devices = topology.chip, topology.devices
    if not devices or topology.is_local:
        parser.error("--topology must be TPUs: only their compiler estimates its kernels' time")
    mesh = meshes.make_mesh(config.mesh, devices)
    with meshes.use(mesh, config.mesh.context_axis), chips.silence_stderr():
        text = costs.lower(piece, config, mesh).compile().as_text()
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
        ("in all", seconds, f"{of_peak / seconds:.1%} of the peak"),
        ("kernels that multiply", multiplying, f"{of_peak / multiplying:.1%}"),
        ("passes that do not", seconds - multiplying, ""),
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
