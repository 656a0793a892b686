"""diffusers' U-Nets of the family of DeepFloyd IF: configs, and small ones with random weights."""

import math
import pathlib

import diffusers
import torch

# First width and number of parameters of stage I's published sizes, rounded for M and L.
IF = {"M": (192, 372e6), "L": (320, 935e6), "XL": (704, 4_304_695_110)}


def flags(widths: tuple[int, ...], **changes) -> dict:
    """Returns arguments of a U-Net of stage I with attention at all levels except the finest."""
    coarser = len(widths) - 1
    return {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 6,
        "act_fn": "gelu",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 4,
        "attention_head_dim": 8,
        "block_out_channels": widths,
        "cross_attention_dim": 32,
        "cross_attention_norm": "group_norm",
        "encoder_hid_dim": 16,
        "encoder_hid_dim_type": "text_proj",
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ("ResnetDownsampleBlock2D",)
        + ("SimpleCrossAttnDownBlock2D",) * coarser,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D",) * coarser + ("ResnetUpsampleBlock2D",),
    } | changes


def full_size(name: str) -> dict:
    """Returns the arguments of a published size of IF's stage I."""
    widths = tuple(IF[name][0] * multiple for multiple in (1, 2, 3, 4))
    return flags(
        widths,
        sample_size=64,
        addition_embed_type_num_heads=64,
        attention_head_dim=64,
        cross_attention_dim=widths[-1],
        encoder_hid_dim=4096,
        layers_per_block=3,
        norm_num_groups=32,
    )


def make(flags: dict, seed: int = 0) -> diffusers.UNet2DConditionModel:
    """Makes a U-Net in which no weight is zero or one, as some are at initialisation."""
    torch.manual_seed(seed)
    model = diffusers.UNet2DConditionModel(**flags).eval()
    for name, p in model.named_parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, 1.0 if name.endswith("weight") else 0.0, 0.3)
        else:
            torch.nn.init.normal_(p, 0.0, 1.0 / math.sqrt(p[0].numel()))
    return model


def save(directory: pathlib.Path, flags: dict, **kwargs) -> diffusers.UNet2DConditionModel:
    """Makes a U-Net, writes it with `kwargs` of `save_pretrained`, and returns it."""
    model = make(flags)
    model.save_pretrained(directory, **kwargs)
    return model
