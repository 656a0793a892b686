"""Measures how faithfully a run that trained on few clips reproduces one of them.

    python benchmarks/overfit_psnr.py --workdir runs/one_clip

It samples the caption of the first training clip with several seeds. For each it prints the PSNR
between sample and clip, in dB over all frames, pixels and channels. The peak is 2, since values lie
in -1..1.
"""

import argparse
import pathlib

import numpy as np

from stunet.data.sources import make_source
from stunet.generate.text import text_to_video
from stunet.train.parts import read_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="working directory of the run"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (3)")
    arguments = parser.parse_args()
    example = make_source(read_parts(arguments.workdir).dataset, "train")[0]
    truth = example["video"].astype(np.float32) / 127.5 - 1
    for seed in range(arguments.seeds):
        clips, _ = text_to_video(arguments.workdir, [example["caption"]], seed=seed)
        error = np.mean(np.square(clips[0] - truth))
        print(f"seed {seed}: PSNR {10 * np.log10(4 / error):.1f} dB")


if __name__ == "__main__":
    main()
