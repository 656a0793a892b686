"""Prints the cost of a frame in clips of different lengths: operations, and predicted time on TPUs.

    python benchmarks/cost_per_frame.py --topology v5p:4x4x4 --frames 16 80 160 --in-a-step 10240

The network resizes in time, and its convolutions reach over a fixed number of frames. Only
attention over time, at the coarsest level, grows faster than the clip. Part of a step's time does
not depend on its clips, such as the gradient of the deepest levels' weights, and all frames share
it. `--in-a-step` compares steps of equally many frames, by changing the batch. The TPU compiler
must be installed (`pip install -e '.[tpu]'`); a TPU is not needed. Each distinct block is compiled
once and cached, so the benchmark can be stopped and run again.
"""

import argparse
import os

from overrides import parse_with_overrides

# Compiling for chips that are elsewhere must not look for any here. The first import of JAX reads
# these.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default="experiments/lumiere_base.py", help="experiment file (%(default)s)"
    )
    parser.add_argument(
        "--topology",
        help="TPUs by generation and shape, such as v5p:4x4x4; without it, operations alone",
    )
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        metavar="N",
        default=[16, 48, 80, 112, 160],
        help="lengths of clips to compare (16 48 80 112 160)",
    )
    parser.add_argument(
        "--in-a-step",
        type=int,
        metavar="N",
        help="frames of a whole batch (otherwise the config's clips of each length)",
    )
    arguments, overrides = parse_with_overrides(parser)
    if odd := [frames for frames in arguments.frames if (arguments.in_a_step or 0) % frames]:
        parser.error(
            f"--in-a-step {arguments.in_a_step} is not a multiple of {odd[0]} frames; "
            "choose a common multiple of all --frames"
        )

    from stunet import configs
    from stunet.plan.costs import Costs
    from stunet.train.measured.flops import model_flops
    from stunet.train.parts import make_parts

    print("frames  operations a frame  of the first  time a frame  of the first")
    first = None
    for frames in arguments.frames:
        config = configs.load(arguments.config, overrides)
        values = {"data.frames": frames}
        if arguments.in_a_step:
            values["train.batch_size"] = arguments.in_a_step // frames
        config = configs.replace(config, values)
        parts = make_parts(config)
        total = parts.batch_size * frames
        row = [model_flops(parts.denoiser, parts.batch_size) / total]
        if arguments.topology:
            with Costs(config, arguments.topology) as costs:
                row.append(sum(cost.seconds for cost in costs.result()) / total)
        first = first or row
        cells = [f"{row[0]:18.4g}  {row[0] / first[0]:12.3f}"]
        cells += [
            f"{1e6 * s:9.2f} us  {s / of:12.3f}" for s, of in zip(row[1:], first[1:], strict=True)
        ]
        print(f"{frames:6d}  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
