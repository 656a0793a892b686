"""Samples from a program that `stunet export --format stablehlo --prompt ...` wrote.

It needs JAX and safetensors, and not stunet:

    python examples/sample_exported.py DIR --seed 0 --out clips.npy
"""

import argparse
import json
import pathlib

import numpy as np
from jax import export
from safetensors.numpy import load_file

parser = argparse.ArgumentParser(description="Samples an exported run, without stunet.")
parser.add_argument("directory", type=pathlib.Path, help="directory that `stunet export` wrote")
parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
parser.add_argument(
    "--out",
    default="clips.npy",
    help="file for the clips, float32 [b, t, h, w, c] in -1..1 (default clips.npy)",
)
arguments = parser.parse_args()

card = json.loads((arguments.directory / "card.json").read_text())
if not card["prompts"]:
    parser.error("the export holds no prompts, and no text encoder: export again with --prompt")
program = card["programs"]["sampler"]
sampler = export.deserialize((arguments.directory / program["file"]).read_bytes())
params = load_file(arguments.directory / card["params"]["file"])
known = load_file(arguments.directory / card["prompts"]["file"])
known["seed"] = np.uint32(arguments.seed)


def value(argument):
    """Returns the value of an argument; zero, if this script does not set it.

    A zero `first_row` is the first batch. A zero mask gives no part of the clip.
    """
    shape = [len(known["text"]) if extent == "b" else extent for extent in argument["shape"]]
    return known.get(argument["name"], np.zeros(shape, argument["dtype"]))


clips = sampler.call(params, *map(value, program["arguments"]))
np.save(arguments.out, clips)
print(f"{arguments.out}: {clips.shape} of {card['prompts']['captions']}")
