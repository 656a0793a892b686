"""A diffusers config.json maps to a config and back, or is refused; its noise levels are kept."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers
import tiny_unet
import torch
from from_config import noise_schedule

from stunet import configs
from stunet.errors import UserError
from stunet.train.parts import make_parts
from stunet.weights.diffusers_config import to_diffusers, to_stunet

STAGE_I = json.loads(json.dumps(tiny_unet.flags((8, 16))))
STAGE_II = STAGE_I | dict(
    in_channels=6,
    layers_per_block=[1, 2],
    only_cross_attention=True,
    resnet_out_scale_factor=1.5,
    mid_block_scale_factor=1.5,
    resnet_skip_time_act=True,
    time_embedding_act_fn="gelu",
    class_embed_type="timestep",
)
SD1, SD2, SDXL = (tiny_unet.small(name) for name in ("sd15", "sd21", "sdxl"))


def test_each_step_is_told_the_noise_that_it_was_trained_with():
    """Compares with diffusers' own schedule, to within a twentieth of a step."""
    scheduler = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    signal = scheduler.alphas_cumprod.double().numpy()
    config = to_stunet(STAGE_I, "config.json")
    time = noise_schedule(config).time(jnp.asarray(np.log(signal / (1 - signal))))
    steps = config.model.time_scale * np.asarray(time)
    np.testing.assert_allclose(steps, np.arange(1000), atol=0.05)


@pytest.mark.parametrize(
    "found",
    [
        STAGE_I,
        STAGE_II,
        STAGE_I | dict(out_channels=3, sample_size=[8, 16]),
        *tiny_unet.STABLE_DIFFUSION.values(),
        SD2 | dict(transformer_layers_per_block=[1, 2, 3], sample_size=[8, 16]),
    ],
)
def test_diffusers_makes_the_same_network_of_what_is_written(found):
    config = to_stunet(found, "config.json")
    written = to_diffusers(make_parts(config))
    assert to_stunet(json.loads(json.dumps(written)), "config.json") == config
    flags = {k: v for k, v in written.items() if not k.startswith("_")}
    with torch.device("meta"):
        first, second = (diffusers.UNet2DConditionModel(**f).state_dict() for f in (found, flags))
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}


def test_the_inflated_network_adds_time_and_freezes_the_rest():
    found = STAGE_I | dict(
        block_out_channels=[8, 16, 16],
        down_block_types=[STAGE_I["down_block_types"][i] for i in (0, 1, 1)],
        up_block_types=[STAGE_I["up_block_types"][i] for i in (0, 0, 1)],
    )
    config = to_stunet(found, "config.json", frames=80)
    assert config.freeze == "spatial"
    assert config.model.temporal
    assert config.model.temporal_factors == (1, 2, 2)
    assert config.data.frames == 80
    assert to_stunet(found, "x", 80, (1, 4, 1)).model.temporal_factors == (1, 4, 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"down_block_types": ["DownBlock2D", "KDownBlock2D"]},
            "'KDownBlock2D'.: a U-Net of another family; DeepFloyd IF's has Resnet",
        ),
        (
            {
                "down_block_types": ["ResnetDownsampleBlock2D"] * 2,
                "up_block_types": ["ResnetUpsampleBlock2D"] * 2,
            },
            "CrossAttnDownBlock2D at the end",
        ),
        ({"_class_name": "UNet2DModel"}, "config.json is of a UNet2DModel; a UNet2DConditionModel"),
        ({"resnet_time_scale_shift": "default"}, "'default': .* has 'scale_shift'"),
        ({"cross_attention_norm": None}, "'cross_attention_norm' None: .* has 'group_norm'"),
        ({"class_embed_type": "projection"}, "'class_embed_type' 'projection': .* or 'timestep'"),
        ({"center_input_sample": True}, "'center_input_sample' True: .* has False"),
        ({"norm_eps": 1e-6}, "'norm_eps' 1e-06: .* has 1e-05"),
        ({"act_fn": "mish"}, "model.activation is 'mish'; choose one of 'gelu', 'silu'"),
        ({"timestep_post_act": "silu"}, "'timestep_post_act' 'silu'"),
        ({"conv_in_kernel": 5}, "'conv_in_kernel' 5"),
        ({"encoder_hid_dim": None}, "'encoder_hid_dim' None: the width of text states is needed"),
        ({"sample_size": None}, "'sample_size' None: rows and columns"),
        ({"resnet_skip_time_act": True}, "'time_embedding_act_fn' None: .* it must be 'gelu'"),
        ({"time_embedding_act_fn": "gelu"}, "'time_embedding_act_fn' 'gelu': .* it must be None"),
        ({"mid_block_scale_factor": 1.4}, "'mid_block_scale_factor' 1.4: .*factor, 1.0"),
        ({"mid_block_only_cross_attention": True}, "it must be only_cross_attention, False"),
        ({"only_cross_attention": [False, True]}, "one value for all levels is needed"),
        ({"out_channels": 4}, "'out_channels' 4: a picture of 3 channels is needed, or twice"),
        ({"in_channels": "3"}, "'in_channels' '3': it must be a whole number"),
        ({"up_block_types": ["ResnetUpsampleBlock2D"] * 2}, "'up_block_types' .* DeepFloyd IF's"),
        ({"attention_head_dim": 5}, "cannot be inflated so: .*it must be a multiple of 5"),
        ({"frobnicate": 2}, "'frobnicate' 2: which is not known here, and may change the network"),
    ],
)
def test_a_network_that_ours_is_not_is_refused_by_name_and_value(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        to_stunet(STAGE_I | changes, "config.json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"addition_embed_type": "image"}, "'addition_embed_type' 'image': .* has None or 'text_t"),
        ({"dual_cross_attention": True}, "'dual_cross_attention' True: .* has False"),
        ({"only_cross_attention": True}, "'only_cross_attention' True: .* has False"),
        ({"only_cross_attention": [True] * 3}, r"'only_cross_attention' \[True, .* has False"),
        ({"in_channels": 9}, "'in_channels' 9: it must be out_channels, 4; .* as for inpainting"),
        ({"attention_head_dim": [1, 2, 4]}, "'attention_head_dim' .*in spite of its name"),
        ({"attention_head_dim": [1, 2]}, "'attention_head_dim' .*whole numbers of heads are"),
        ({"transformer_layers_per_block": [[1], 2, 2]}, "'transformer_layers_per_block' .*level"),
        ({"transformer_layers_per_block": 0}, "'transformer_layers_per_block' 0: a whole number"),
        ({"class_embed_type": "projection"}, "'class_embed_type' 'projection': .* has None"),
        ({"mid_block_type": None}, "'mid_block_type' None: .* has 'UNetMidBlock2DCrossAttn'"),
        ({"attention_head_dim": 3}, "cannot be inflated so: .* multiple of 3 .model.heads"),
    ],
)
def test_another_u_net_with_stable_diffusion_s_blocks_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        to_stunet(SD1 | changes, "config.json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"use_linear_projection": False}, "'use_linear_projection' False: Stable Diffusion XL"),
        ({"act_fn": "gelu"}, "'act_fn' 'gelu': Stable Diffusion XL has 'silu'"),
        ({"addition_time_embed_dim": None}, "'addition_time_embed_dim' None: the width of each"),
        ({"projection_class_embeddings_input_dim": 40}, "40: the width of .* refiner"),
        ({"projection_class_embeddings_input_dim": 100}, "100: the width of .* refiner"),
    ],
)
def test_another_u_net_with_the_sizes_of_stable_diffusion_xl_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        to_stunet(SDXL | changes, "config.json")


def test_heads_are_read_as_a_number_or_a_width():
    published = tiny_unet.STABLE_DIFFUSION
    one, two = (to_stunet(published[name], name).model for name in ("sd15", "sd21"))
    assert (one.family, one.heads) == ("sd1", 8)
    assert (two.family, two.heads, two.head_channels) == ("sd2", 0, 64)


def test_a_key_that_is_missing_is_named():
    found = {k: v for k, v in STAGE_I.items() if k != "cross_attention_dim"}
    with pytest.raises(UserError, match=r"config.json has no 'cross_attention_dim', which the"):
        to_stunet(found, "config.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("model.patch_size=2", "model.patch_size is 2, and diffusers' UNet2DConditionModel has no"),
        ("model.text_groups=4", "model.text_groups is 4, and"),
        ("model.attention_levels=(True, False)", "the coarsest level does not attend, and"),
        ("model.text_features=0", "model.text_features is 0, and"),
    ],
)
def test_a_network_that_diffusers_does_not_have(change, sentence):
    config = configs.override(to_stunet(STAGE_I, "config.json"), [f"--config.{change}"])
    with pytest.raises(UserError, match=sentence):
        to_diffusers(make_parts(config))
