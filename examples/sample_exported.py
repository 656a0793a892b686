"""Samples what `stunet export --format stablehlo --prompt ...` wrote, without stunet.

python examples/sample_exported.py DIR --seed 0 --out clips.npy
"""

import argparse
import json
import pathlib

import numpy as np
from jax import export
from safetensors.numpy import load_file

parser = argparse.ArgumentParser(description="Samples an exported run; needs JAX alone.")
parser.add_argument("directory", type=pathlib.Path, help="written by `stunet export`")
parser.add_argument("--seed", type=int, default=0, help="of the noise")
parser.add_argument("--out", default="clips.npy", help="float32 [b, t, h, w, c] in -1..1")
arguments = parser.parse_args()

card = json.loads((arguments.directory / "card.json").read_text())
if not card["prompts"]:
    parser.error("no text encoder is exported: export again, with the states of a --prompt")
program = card["programs"]["sampler"]
sampler = export.deserialize((arguments.directory / program["file"]).read_bytes())
params = load_file(arguments.directory / card["params"]["file"])
known = load_file(arguments.directory / card["prompts"]["file"])
known["seed"] = np.uint32(arguments.seed)


def value(argument):
    """What is not known is zero: the first batch, and nothing given of a clip to be completed."""
    shape = [len(known["text"]) if extent == "b" else extent for extent in argument["shape"]]
    return known.get(argument["name"], np.zeros(shape, argument["dtype"]))


clips = sampler.call(params, *map(value, program["arguments"]))
np.save(arguments.out, clips)
print(f"{arguments.out}: {clips.shape} of {card['prompts']['captions']}")
