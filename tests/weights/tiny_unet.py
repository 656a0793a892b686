"""diffusers' U-Nets of both families: published configs, and small ones with random weights."""

import math
import pathlib

import diffusers
import torch

# First width and number of parameters of stage I's published sizes, rounded for M and L.
IF = {"M": (192, 372e6), "L": (320, 935e6), "XL": (704, 4_304_695_110)}


# The published config.json of unet in three pipelines of Stable Diffusion, without the keys that
# begin with an underscore: stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
# stabilityai/stable-diffusion-xl-base-1.0 on huggingface.co.
STABLE_DIFFUSION = {
    "sd15": {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "sd21": {
        "act_fn": "silu",
        "attention_head_dim": [5, 10, 20, 20],
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 1024,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "out_channels": 4,
        "sample_size": 96,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "upcast_attention": True,
        "use_linear_projection": True,
    },
    "sdxl": {
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "center_input_sample": False,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": 2048,
        "cross_attention_norm": None,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_only_cross_attention": None,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 2816,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "sample_size": 128,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "upcast_attention": None,
        "use_linear_projection": True,
    },
}


# Pooled text of 24 features, and a code of 8 for each of six sizes.
SMALL_XL = dict(
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24 + 6 * 8,
    cross_attention_dim=32,
    transformer_layers_per_block=[1, 2, 3],
)


def small(name: str, **changes) -> dict:
    """Returns a published config of Stable Diffusion with three small levels, and other changes."""
    published = STABLE_DIFFUSION[name]
    widths = [width // 40 for width in published["block_out_channels"][-3:]]
    return (
        published
        | dict(down_block_types=published["down_block_types"][-3:])
        | dict(up_block_types=published["up_block_types"][:3])
        | dict(attention_head_dim=2 if name == "sd15" else [width // 8 for width in widths])
        | dict(block_out_channels=widths, cross_attention_dim=16, layers_per_block=1)
        | dict(norm_num_groups=4, sample_size=8)
        | (SMALL_XL if name == "sdxl" else {})
        | changes
    )


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
