"""Names of a U-Net's layers in Stability's code, which LoRA files for Stable Diffusion XL use.

That code numbers all blocks on the way down, and all on the way up, without levels. A block is a
layer with a residual block and attention, or a block that halves a frame. What doubles a frame ends
the block before it. diffusers counts layers within levels.
"""

import re
from collections import Counter
from collections.abc import Iterable

# Layers outside the numbered blocks, and within residual blocks: diffusers' names -> Stability's.
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# The part of a layer's name that says which block it is in.
_BLOCK = re.compile(r"(?:\w+_block(?:s\.\d+)?\.(?:resnets|attentions)\.\d+|[\w.]+)")


def layers(weights: Iterable[str]) -> dict[str, str]:
    """Returns the name of each layer in Stability's code, by its name in diffusers.

    Layers that Stability's code does not have are left out.

    Args:
        weights: names of all weights in diffusers' U-Net. Biases have no name of their own here.
    """
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    blocks = _OUTSIDE | _numbered(names)
    found = {}
    for name in names:
        block = _BLOCK.match(name)[0]
        if block in blocks:
            rest = name[len(block) :]
            if ".resnets." in block:
                rest = f".{_IN_RESNET[rest.lstrip('.')]}"
            found[name] = blocks[block] + rest
    return found


def _numbered(names: list[str]) -> dict[str, str]:
    """Returns the names of the blocks on the way down and up."""
    depths = Counter(
        m[1] for n in names if (m := re.match(r"down_blocks\.(\d+)\.resnets.*conv1", n))
    )
    counts = [depths[level] for level in sorted(depths, key=int)]
    blocks, number = {}, 1
    for level, count in enumerate(counts):
        here = f"down_blocks.{level}"
        for i in range(count):
            blocks[f"{here}.resnets.{i}"] = f"input_blocks.{number}.0"
            blocks[f"{here}.attentions.{i}"] = f"input_blocks.{number}.1"
            number += 1
        blocks[f"{here}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
        number += 1
    number = 0
    for level, count in enumerate(reversed(counts)):
        here = f"up_blocks.{level}"
        attends = any(name.startswith(f"{here}.attentions.") for name in names)
        for i in range(count + 1):
            blocks[f"{here}.resnets.{i}"] = f"output_blocks.{number}.0"
            blocks[f"{here}.attentions.{i}"] = f"output_blocks.{number}.1"
            number += 1
        blocks[f"{here}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{1 + attends}.conv"
    return blocks
