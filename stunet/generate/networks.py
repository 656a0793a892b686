"""Finds the trained network that a task needs, in a directory that may hold several.

A network is a working directory of `stunet train`, or a weights file of `stunet export`. A
directory of several networks has one in each subdirectory, as the directory of a sweep does. Such
directories may also come with stunet. They are then found by name.
"""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

from stunet.errors import UserError
from stunet.formatting import first_few
from stunet.train.parts import read_parts

WEIGHTS = "params.safetensors"
_PACKAGE = pathlib.Path(__file__).parents[1]

# Task of `stunet sample` -> conditionings of networks that can do it, the most suitable first.
_CONDITIONINGS = {
    "text": ("none", "masks"),
    **dict.fromkeys(("image", "inpaint", "cinemagraph"), ("masks",)),
    "video": ("none", "masks"),
    "upscale": ("upscale",),
    "style": ("none", "masks"),
}


def find(place: pathlib.Path, task: str) -> pathlib.Path:
    """Returns the working directory or the weights file of the network for a task.

    Text-to-image networks and autoencoders are never chosen, because they make no clips. Name the
    directory of a text-to-image network to use it.

    Args:
        place: a network, a directory of several, or the name of one that comes with stunet, such as
            "lumiere-mini" or "lumiere-mini/base". A path to something that exists always wins.
        task: a task of `stunet sample`.

    Raises:
        UserError: the directory holds several networks, and none or more than one of them can do
            the task.
    """
    place = _shipped(place)
    if network := _network(place):
        return network
    networks = list(_networks(place))
    if not networks:
        return place  # Reading it says what is missing.
    kinds = {network: _kind(network) for network in networks}
    for conditioning in _CONDITIONINGS[task]:
        fitting = [network for network, kind in kinds.items() if kind == conditioning]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = _names(place, fitting)
            raise UserError(f"{place} holds several networks for this task; give one of {names}")
    needed = " or ".join(_CONDITIONINGS[task])
    raise UserError(
        f"{place} holds no network for this task (conditioned on: {needed}), but "
        f"{_names(place, networks)}"
    )


def find_tasks(place: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the network for each task that the networks of `place` can do.

    Tasks are in the order of `stunet sample`.

    Args:
        place: as for `find`.

    Raises:
        UserError: no task can be done.
    """
    found = {}
    for task, conditionings in _CONDITIONINGS.items():
        with contextlib.suppress(UserError):
            network = find(place, task)
            if read_parts(network).denoiser.conditioning.name in conditionings:
                found[task] = network
    if not found:
        kind = read_parts(find(place, "text")).denoiser.conditioning.name
        raise UserError(
            f"{place} holds no network that a task of `stunet sample` begins with (it is "
            f"conditioned on: {kind}); give a run that makes clips"
        )
    return found


def shipped() -> list[str]:
    """Returns the names of the directories of networks that come with stunet."""
    folder = _folder()
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def samples(place: pathlib.Path, network: pathlib.Path) -> pathlib.Path:
    """Returns the directory for the samples of a network if the user names none.

    Args:
        place: what the user gave for the network.
        network: what `find` returned for it.
    """
    if _shipped(place) != place:
        return pathlib.Path("samples")  # Nothing is written where stunet is installed.
    return (network.parent if network.is_file() else network) / "samples"


def _folder() -> pathlib.Path:
    folder = _PACKAGE / "pretrained"  # in a wheel
    return folder if folder.is_dir() else _PACKAGE.parent / "pretrained"  # in a checkout


def _shipped(place: pathlib.Path) -> pathlib.Path:
    if place.exists() or not place.parts or place.parts[0] not in shipped():
        return place
    return _folder() / place


def _network(place: pathlib.Path) -> pathlib.Path | None:
    """Returns the network that `place` itself is or holds, or None if it is none."""
    if place.is_file() or (place / "config.json").is_file():
        return place
    weights = place / WEIGHTS
    return weights if weights.is_file() else None


def _networks(place: pathlib.Path) -> Iterator[pathlib.Path]:
    for child in sorted(place.iterdir()) if place.is_dir() else ():
        if child.is_dir() and (network := _network(child)):
            yield network


def _kind(network: pathlib.Path) -> str:
    """Returns the conditioning of a network that makes clips.

    Returns "pictures" for a text-to-image network, and "autoencoder" for an autoencoder.
    """
    parts = read_parts(network)
    if parts.trains_autoencoder:
        return "autoencoder"
    denoiser = parts.denoiser
    makes_clips = denoiser.network.temporal_factors is not None
    return denoiser.conditioning.name if makes_clips else "pictures"


def _names(place: pathlib.Path, networks: Sequence[pathlib.Path]) -> str:
    names = (n.parent if n.name == WEIGHTS else n for n in networks)
    return first_few([str(place / name.name) for name in names])
