"""I3D, the video classifier whose logits FVD compares: Inception-v1 with its kernels inflated to
three dimensions (Carreira and Zisserman, arXiv 1705.07750)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows and columns that it has learnt, and the fewest frames that are left enough to pool.
SIZE = 224
FEWEST_FRAMES = 9
CLASSES = 400

# Features of an Inception block: of its 1x1x1 branch; of two branches that first narrow to so many
# and then look around; of the branch that pools.
_BLOCKS = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "MaxPool3d_4a": (3, 3, 3),
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "MaxPool3d_5a": (2, 2, 2),
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}


class I3D(nn.Module):
    """Clips of colour -> logits of the 400 classes of Kinetics, averaged over time, in float32.

    As it infers: norms by the statistics that were learnt, and no dropout. Modules are called as in
    the original.
    """

    @nn.compact
    def __call__(self, clips: Float[Array, "b t 224 224 3"]) -> Float[Array, "b 400"]:
        """
        Args:
            clips: in -1..1, at least 9 frames each.
        """
        if clips.shape[1] < FEWEST_FRAMES:
            raise ValueError(f"I3D takes {FEWEST_FRAMES} frames or more, not {clips.shape[1]}")
        x = _Unit(64, 7, strides=2, name="Conv3d_1a_7x7")(clips)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        x = _Unit(64, 1, name="Conv3d_2b_1x1")(x)
        x = _Unit(192, 3, name="Conv3d_2c_3x3")(x)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        for name, sizes in _BLOCKS.items():
            if name.startswith("MaxPool"):
                x = _max_pool(x, sizes, (2, 2, 2))
            else:
                x = _Inception(*sizes, name=name)(x)
        x = nn.avg_pool(x, (2, 7, 7), (1, 1, 1), "VALID")
        # Of 224x224 pixels one position is left.
        return nn.Dense(CLASSES, dtype=jnp.float32, name="Logits")(x).mean(axis=(1, 2, 3))


class _Inception(nn.Module):
    """Four branches side by side, at the resolution of their input."""

    branch_0: int
    branch_1: tuple[int, int]
    branch_2: tuple[int, int]
    branch_3: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w d"]:
        branches = [_Unit(self.branch_0, 1, name="Branch_0_0a")(x)]
        for i, (narrow, wide) in ((1, self.branch_1), (2, self.branch_2)):
            inside = _Unit(narrow, 1, name=f"Branch_{i}_0a")(x)
            branches.append(_Unit(wide, 3, name=f"Branch_{i}_0b")(inside))
        pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
        branches.append(_Unit(self.branch_3, 1, name="Branch_3_0b")(pooled))
        return jnp.concatenate(branches, axis=-1)


class _Unit(nn.Module):
    """A convolution without bias, a batch norm without scale, ReLU."""

    features: int
    kernel: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t2 h2 w2 d"]:
        x = nn.Conv(
            self.features,
            (self.kernel,) * 3,
            (self.strides,) * 3,
            use_bias=False,
            dtype=jnp.float32,
            name="conv",
        )(x)
        statistics = {
            name: self.param(name, nn.initializers.constant(value), (self.features,), jnp.float32)
            for name, value in (("mean", 0.0), ("variance", 1.0), ("bias", 0.0))
        }
        scaled = (x - statistics["mean"]) * jax.lax.rsqrt(statistics["variance"] + 1e-3)
        return nn.relu(scaled + statistics["bias"])


def _max_pool(x: Array, window: tuple[int, int, int], strides: tuple[int, int, int]) -> Array:
    return nn.max_pool(x, window, strides, "SAME")
