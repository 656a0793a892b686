"""The spatial network is diffusers' `UNet2DConditionModel` of DeepFloyd IF, weight for weight."""

import dataclasses
import math

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.nn.stunet import STUNet, stack_layers

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

# Names of our modules' weights, and what PyTorch calls them. Both sides agree on the rest.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "norm1/norm/scale": "norm1.weight",
    "norm1/norm/bias": "norm1.bias",
    "norm2/norm/scale": "norm2.weight",
    "norm2/norm/bias": "norm2.bias",
    "to_out/kernel": "to_out.0.weight",
    "to_out/bias": "to_out.0.bias",
    "positional_embedding": "pool.positional_embedding",
    **{
        f"{name}/{ours}": f"pool.{name}.{theirs}"
        for name in ("q_proj", "k_proj", "v_proj")
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    },
}


def modules(levels: int, layers: int) -> dict[str, str]:
    """Our modules -> theirs. They number the way up from the coarsest level, we from the finest."""
    table = {
        "conv_in": "conv_in",
        "time_embedding": "time_embedding",
        "text_pooling": "add_embedding",
        "text_proj": "encoder_hid_proj",
        "mid_layer/resnet": "mid_block.resnets.0",
        "mid_layer/attention": "mid_block.attentions.0",
        "mid_resnet": "mid_block.resnets.1",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    }
    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{levels - 1 - level}"
        table |= {f"down_{level}_resize": f"{down}.downsamplers.0"}
        table |= {f"up_{level}_resize": f"{up}.upsamplers.0"}
        for i in range(layers):
            table |= {f"down_{level}_layer_{i}/resnet": f"{down}.resnets.{i}"}
            table |= {f"down_{level}_layer_{i}/attention": f"{down}.attentions.{i}"}
        for i in range(layers + 1):
            table |= {f"up_{level}_layer_{i}/resnet": f"{up}.resnets.{i}"}
            table |= {f"up_{level}_layer_{i}/attention": f"{up}.attentions.{i}"}
    return table


def their_name(ours: str, table: dict[str, str]) -> str:
    module = max((m for m in table if ours.startswith(m + "/")), key=len)
    path = ours.removeprefix(module + "/")
    leaf = max((end for end in LEAVES if f"/{path}".endswith("/" + end)), key=len)
    inner = path.removesuffix(leaf).replace("/", ".")
    return f"{table[module]}.{inner}{LEAVES[leaf]}"


def to_jax(tensor, shape) -> jax.Array:
    """A PyTorch weight in our axis order: [o, i] -> [i, o], [o, i, h, w] -> [1, h, w, i, o]."""
    value = tensor.detach().numpy()
    if len(shape) == 5:
        value = value.transpose(2, 3, 1, 0)[None]
    elif len(shape) == 2 and shape[0] != 1:
        value = value.T
    assert value.shape == shape
    return jnp.asarray(value)


@dataclasses.dataclass(frozen=True)
class Config:
    """A small network of the family; attention at every level but the finest."""

    channels: tuple[int, ...]
    layers: int = 1
    head_channels: int = 8
    groups: int = 4
    activation: str = "gelu"
    in_channels: int = 3
    out_channels: int = 6
    text_in: int = 24
    text_features: int = 32
    pooling_heads: int = 4
    cosine_first: bool = True
    frequency_shift: float = 0.0
    scan: bool = False
    frames: int = 1

    def theirs(self):
        coarser = len(self.channels) - 1
        return diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            act_fn=self.activation,
            addition_embed_type="text" if self.pooling_heads else None,
            addition_embed_type_num_heads=self.pooling_heads or 64,
            attention_head_dim=self.head_channels,
            block_out_channels=self.channels,
            cross_attention_dim=self.text_features,
            cross_attention_norm="group_norm",
            encoder_hid_dim=self.text_in,
            encoder_hid_dim_type="text_proj",
            flip_sin_to_cos=self.cosine_first,
            freq_shift=self.frequency_shift,
            layers_per_block=self.layers,
            norm_num_groups=self.groups,
            resnet_time_scale_shift="scale_shift",
            down_block_types=("ResnetDownsampleBlock2D",)
            + ("SimpleCrossAttnDownBlock2D",) * coarser,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D",) * coarser + ("ResnetUpsampleBlock2D",),
        )

    def ours(self, scan=False) -> STUNet:
        return STUNet(
            channels=self.channels,
            out_channels=self.out_channels,
            layers_per_level=self.layers,
            attention_levels=(False,) + (True,) * (len(self.channels) - 1),
            temporal_factors=None,
            groups=self.groups,
            head_channels=self.head_channels,
            text_features=self.text_features,
            text_pooling_heads=self.pooling_heads,
            activation=self.activation,
            time_scale=1.0,
            cosine_first=self.cosine_first,
            frequency_shift=self.frequency_shift,
            scan_layers=scan,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Our parameters' shapes, by path."""
        size = 2 ** (len(self.channels) - 1)
        x = jax.ShapeDtypeStruct((1, 1, size, size, self.in_channels), jnp.float32)
        time = jax.ShapeDtypeStruct((1,), jnp.float32)
        text = jax.ShapeDtypeStruct((1, 2, self.text_in), jnp.float32)
        init = jax.eval_shape(self.ours().init, jax.random.key(0), x, time, text)
        flat = flax.traverse_util.flatten_dict(nn.unbox(init)["params"], sep="/")
        return {path: leaf.shape for path, leaf in flat.items()}


def randomise(model) -> None:
    """Makes every weight matter: none is left at zero or one, as initialisation would."""
    for name, p in model.named_parameters():
        if p.ndim == 1:
            mean = 1.0 if name.endswith("weight") else 0.0
            torch.nn.init.normal_(p, mean, 0.3)
        else:
            torch.nn.init.normal_(p, 0.0, 1.0 / math.sqrt(p[0].numel()))


@pytest.mark.parametrize(
    "config",
    [
        Config((8, 16, 24), in_channels=4, out_channels=3),
        Config((16, 32), frames=3, layers=2, head_channels=16, groups=8, activation="silu"),
        Config(
            (8, 8),
            layers=3,
            frames=2,
            pooling_heads=0,
            scan=True,
            cosine_first=False,
            frequency_shift=1.0,
            head_channels=4,
        ),
    ],
    ids=["three_levels", "wide_silu_two_layers", "no_pooled_text_three_layers_scanned"],
)
def test_outputs_agree_with_diffusers(config):
    torch.manual_seed(0)
    theirs = config.theirs().eval()
    randomise(theirs)

    weights = theirs.state_dict()
    table = modules(len(config.channels), config.layers)
    params = {}
    for path, shape in config.shapes().items():
        params[path] = to_jax(weights.pop(their_name(path, table)), shape)  # raises if taken twice
    assert not weights, f"weights of diffusers that have no place here: {list(weights)}"
    params = flax.traverse_util.unflatten_dict(params, sep="/")
    if config.scan:
        params = stack_layers(params)

    rng = np.random.default_rng(0)
    b, t, length = 2, config.frames, 5
    x = rng.normal(size=(b, t, 8, 8, config.in_channels)).astype(np.float32)
    time = np.array([3.0, 871.0], np.float32)
    text = rng.normal(size=(b, length, config.text_in)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    quick_to_compile = {"xla_backend_optimization_level": 0}
    apply = jax.jit(config.ours(config.scan).apply, compiler_options=quick_to_compile)
    got = apply({"params": params}, x, time, text, mask)

    with torch.no_grad():  # each frame is an image of its own, with its clip's time and text
        want = theirs(
            torch.from_numpy(x.reshape(b * t, 8, 8, -1).transpose(0, 3, 1, 2)),
            torch.from_numpy(time.repeat(t)),
            torch.from_numpy(text.repeat(t, axis=0)),
            encoder_attention_mask=torch.from_numpy(mask.repeat(t, axis=0)),
        ).sample.numpy()
    want = want.transpose(0, 2, 3, 1).reshape(got.shape)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_if_xl_has_its_published_size():
    """4.3 billion parameters, counted by shape here and there."""
    channels = (704, 1408, 2112, 2816)
    config = Config(
        channels,
        layers=3,
        head_channels=64,
        groups=32,
        text_in=4096,
        text_features=channels[-1],
        pooling_heads=64,
    )
    with torch.device("meta"):
        theirs = sum(p.numel() for p in config.theirs().parameters())
    assert sum(math.prod(shape) for shape in config.shapes().values()) == theirs == 4_304_695_110
