"""I3D, the video classifier whose logits FVD compares.

It is Inception-v1 with its kernels inflated to three dimensions (Carreira and Zisserman, arXiv
1705.07750).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIZE = 224  # rows and columns of the clips that it was trained on
FEWEST_FRAMES = 9  # with fewer, too few are left for the last pooling
CLASSES = 400

# The blocks after the stem, by their names in the original. For an Inception block: features of the
# branches of `_Inception`. For a pooling: its window, in frames, rows and columns.
_BLOCKS = {
    "Mixed_3b": dict(branch_0=64, branch_1=(96, 128), branch_2=(16, 32), branch_3=32),
    "Mixed_3c": dict(branch_0=128, branch_1=(128, 192), branch_2=(32, 96), branch_3=64),
    "MaxPool3d_4a": (3, 3, 3),
    "Mixed_4b": dict(branch_0=192, branch_1=(96, 208), branch_2=(16, 48), branch_3=64),
    "Mixed_4c": dict(branch_0=160, branch_1=(112, 224), branch_2=(24, 64), branch_3=64),
    "Mixed_4d": dict(branch_0=128, branch_1=(128, 256), branch_2=(24, 64), branch_3=64),
    "Mixed_4e": dict(branch_0=112, branch_1=(144, 288), branch_2=(32, 64), branch_3=64),
    "Mixed_4f": dict(branch_0=256, branch_1=(160, 320), branch_2=(32, 128), branch_3=128),
    "MaxPool3d_5a": (2, 2, 2),
    "Mixed_5b": dict(branch_0=256, branch_1=(160, 320), branch_2=(32, 128), branch_3=128),
    "Mixed_5c": dict(branch_0=384, branch_1=(192, 384), branch_2=(48, 128), branch_3=128),
}


class I3D(nn.Module):
    """Classifies clips: returns the logits of the 400 classes of Kinetics, averaged over time.

    This is the network for inference only: norms use the learned statistics, and there is no
    dropout. Modules have the same names as in the original code.
    """

    @nn.compact
    def __call__(self, clips: Float[Array, "b t 224 224 3"]) -> Float[Array, "b 400"]:
        """Returns the logits of each clip, in float32.

        Args:
            clips: RGB clips in -1..1, of at least 9 frames.

        Raises:
            ValueError: the clips have fewer than 9 frames.
        """
        if clips.shape[1] < FEWEST_FRAMES:
            raise ValueError(f"I3D takes {FEWEST_FRAMES} frames or more, not {clips.shape[1]}")
        x = _Unit(features=64, kernel=7, strides=2, name="Conv3d_1a_7x7")(clips)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        x = _Unit(features=64, kernel=1, name="Conv3d_2b_1x1")(x)
        x = _Unit(features=192, kernel=3, name="Conv3d_2c_3x3")(x)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        for name, block in _BLOCKS.items():
            if name.startswith("MaxPool"):
                x = _max_pool(x, block, (2, 2, 2))
            else:
                x = _Inception(**block, name=name)(x)
        x = nn.avg_pool(x, (2, 7, 7), (1, 1, 1), "VALID")
        # The pooling leaves a single position of 224x224 pixels, and one or more in time.
        logits = nn.Dense(features=CLASSES, dtype=jnp.float32, name="Logits")(x)
        return logits.mean(axis=(1, 2, 3))


class _Inception(nn.Module):
    """Four branches side by side, whose outputs are concatenated along the channels.

    Attributes:
        branch_0: features of a 1x1x1 convolution.
        branch_1: features of a 1x1x1 convolution and of the 3x3x3 convolution after it.
        branch_2: features of a 1x1x1 convolution and of the 3x3x3 convolution after it.
        branch_3: features of a 1x1x1 convolution after a max pooling.
    """

    branch_0: int
    branch_1: tuple[int, int]
    branch_2: tuple[int, int]
    branch_3: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w d"]:
        branches = [_Unit(features=self.branch_0, kernel=1, name="Branch_0_0a")(x)]
        for i, (narrow, wide) in ((1, self.branch_1), (2, self.branch_2)):
            inside = _Unit(features=narrow, kernel=1, name=f"Branch_{i}_0a")(x)
            branches.append(_Unit(features=wide, kernel=3, name=f"Branch_{i}_0b")(inside))
        pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
        branches.append(_Unit(features=self.branch_3, kernel=1, name="Branch_3_0b")(pooled))
        return jnp.concatenate(branches, axis=-1)


class _Unit(nn.Module):
    """A convolution without bias, a batch norm without scale, and a ReLU.

    Attributes:
        features: channels of the output.
        kernel: extent of the kernel in time, rows and columns.
        strides: stride in time, rows and columns.
    """

    features: int
    kernel: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
        conv = nn.Conv(
            features=self.features,
            kernel_size=(self.kernel,) * 3,
            strides=(self.strides,) * 3,
            use_bias=False,
            dtype=jnp.float32,
            name="conv",
        )
        x = conv(x)
        statistics = {
            name: self.param(name, nn.initializers.constant(value), (self.features,), jnp.float32)
            for name, value in (("mean", 0.0), ("variance", 1.0), ("bias", 0.0))
        }
        scaled = (x - statistics["mean"]) * jax.lax.rsqrt(statistics["variance"] + 1e-3)
        return nn.relu(scaled + statistics["bias"])


def _max_pool(x: Array, window: tuple[int, int, int], strides: tuple[int, int, int]) -> Array:
    return nn.max_pool(x, window, strides, "SAME")
