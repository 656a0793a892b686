"""Fetches weights that `stunet export --format hub` wrote from the Hugging Face hub.

An address is `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION` for a branch, a tag or a commit. Only
the weights are fetched, into the cache of huggingface_hub. Offline, the cache alone is read.
"""

import pathlib
import re
from types import ModuleType

from stunet import configs
from stunet.errors import UserError
from stunet.generate.networks import WEIGHTS
from stunet.train.saved import weights_file

SCHEME = "hf://"
_ADDRESS = re.compile(rf"{SCHEME}(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\0]+))?", re.ASCII)


def library(what: str) -> ModuleType:
    """Imports huggingface_hub.

    Args:
        what: what needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{what} needs huggingface_hub; pip install 'stunet[hub]'") from error
    return huggingface_hub


def failures() -> tuple[type[Exception], ...]:
    """Returns the types of all errors of the hub, of the network and of wrong names."""
    from httpx import HTTPError  # huggingface_hub needs it.

    return OSError, ValueError, HTTPError


def one_line(error: Exception) -> str:
    """Returns the message of an error without its line breaks."""
    return " ".join(str(error).split())


def fetch(address: str) -> pathlib.Path:
    """Returns the path of the weights file of a model on the hub, and fetches it if need be.

    Raises:
        UserError: the address is none, the hub or its cache has no such model, the model was not
            written by `stunet export --format hub`, or its config names files of this machine.
    """
    if not (found := _ADDRESS.fullmatch(address)):
        raise UserError(
            f"{address!r} is no address of a model; write hf://OWNER/NAME, or "
            "hf://OWNER/NAME@REVISION for one of its versions"
        )
    hub = library(address)
    try:
        folder = hub.snapshot_download(
            found["repo"], revision=found["revision"], allow_patterns=[WEIGHTS, configs.WEAKER]
        )
    except failures() as error:
        raise UserError(f"{address} cannot be fetched ({one_line(error)})") from error
    weights = pathlib.Path(folder) / WEIGHTS
    if not weights.is_file():
        raise UserError(
            f"{address} has no {WEIGHTS}, as `stunet export --format hub` writes it; if this "
            "machine is offline, fetch it online first"
        )
    _check_paths(address, weights)
    return weights


def _check_paths(address: str, weights: pathlib.Path) -> None:
    """Checks that the config of a stranger's model makes nothing read other files."""
    config = weights_file.read_header(weights).config
    named = configs.paths_in(config) if config else {}
    if named:
        key, value = next(iter(named.items()))
        raise UserError(
            f"{address}: its config has the path {value!r} in {key}, and a model on the hub may "
            "name no files outside it"
        )
