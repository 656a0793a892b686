"""What a frame costs in clips of different lengths: operations, and predicted time on TPUs.

    python benchmarks/cost_per_frame.py --topology v5p:4x4x4 --frames 16 80 160 --in-a-step 10240

The network resizes in time and convolves in time at a fixed reach; only attention over time, at the
coarsest level, grows faster than the clip. What a step takes whatever its clips hold, such as the
gradient of the deepest levels' weights, is shared by all of its frames: `--in-a-step` keeps their
number, by the batch. Needs the TPU compiler (`pip install -e .[tpu]`), but no TPU; each distinct
block is compiled once and remembered, so that it can be stopped.
"""

import argparse
import os

# Before the first import of JAX: compiling for chips that are not here must not look for any.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="experiments/lumiere_base.py")
    parser.add_argument("--topology", help="without it, operations alone")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 48, 80, 112, 160])
    parser.add_argument(
        "--in-a-step", type=int, help="frames of a whole batch (otherwise the config's clips)"
    )
    arguments, overrides = parser.parse_known_args()
    if unknown := [flag for flag in overrides if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {unknown[0]!r}")
    if odd := [frames for frames in arguments.frames if (arguments.in_a_step or 0) % frames]:
        parser.error(f"clips of {odd[0]} frames do not make {arguments.in_a_step} frames a step")

    from stunet import configs
    from stunet.plan.costs import Costs
    from stunet.train.flops import model_flops
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
        in_all = parts.batch_size * frames
        row = [model_flops(parts.denoiser, parts.batch_size) / in_all]
        if arguments.topology:
            with Costs(config, arguments.topology) as costs:
                row.append(sum(cost.seconds for cost in costs.result()) / in_all)
        first = first or row
        said = [f"{row[0]:18.4g}  {row[0] / first[0]:12.3f}"]
        said += [
            f"{1e6 * s:9.2f} us  {s / of:12.3f}" for s, of in zip(row[1:], first[1:], strict=True)
        ]
        print(f"{frames:6d}  {'  '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
