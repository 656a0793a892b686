"""Maps addresses such as gs://bucket/run to the places of their copies on this machine."""

import pathlib

from stunet import paths
from stunet.errors import UserError
from stunet.files import user_cache

# Scheme of an address -> the extra of this package that opens it.
EXTRAS = {"gs": "gcs", "s3": "s3"}


def _cache() -> pathlib.Path:
    return user_cache("buckets").absolute()


def local(text: str) -> pathlib.Path:
    """Returns the path in `text`, or for an address the place of its copy on this machine.

    The place depends on the address alone: gs://bucket/run is at gs/bucket/run in the cache.

    Raises:
        UserError: the address is of another kind of store, or names no bucket.
    """
    if not paths.has_scheme(text):
        return paths.local(text)
    scheme, _, rest = text.partition("://")
    names = [name for name in rest.split("/") if name]
    if scheme not in EXTRAS:
        kinds = " or ".join(f"{kind}://" for kind in EXTRAS)
        raise UserError(
            f"{text!r} is an address that cannot be opened; give a path, or one with {kinds}"
        )
    if not names or any(name in (".", "..") or "\0" in name for name in names):
        raise UserError(f"{text!r} names no bucket; write {scheme}://BUCKET/PATH")
    return _cache().joinpath(scheme, *names)


def address(path: pathlib.Path) -> str:
    """Returns the address of which `path` is the copy; "" for any other path."""
    try:
        scheme, *names = path.absolute().relative_to(_cache()).parts
    except ValueError:  # elsewhere, or the cache itself
        return ""
    return f"{scheme}://{'/'.join(names)}" if scheme in EXTRAS and names else ""


def portable(path: pathlib.Path) -> str:
    """Returns the text from which `local` makes this path on any machine.

    That is the address if `path` is the copy of one, and the absolute path otherwise. Another
    machine or user may keep its copies elsewhere.
    """
    return address(path) or str(path.absolute())


def shown(text: str) -> str:
    """Returns `text`, in which addresses stand in place of the paths of their copies."""
    for scheme in EXTRAS:
        text = text.replace(f"{_cache() / scheme}/", f"{scheme}://")
    return text
