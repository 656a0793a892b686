"""Lists, reads and writes the objects of a bucket, with the libraries gcsfs and s3fs.

These libraries repeat a request that the store does not answer or answers with an error of its own,
such as 503, with growing pauses. What they raise in the end becomes a UserError here.
"""

import contextlib
import errno
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from stunet.errors import UserError
from stunet.stores.addresses import EXTRAS
from stunet.stores.patience import wait_for_gs

# Orbax's paths in buckets use fsspec, as this module does, also where TensorFlow is installed. Read
# when the first path is made.
os.environ.setdefault("EPATH_USE_TF", "false")

# Bytes of each request for a long part of an object, and of each one while a tar file is listed.
_AT_ONCE, _BLOCK = 32 * 2**20, 2**16


class Missing(UserError):
    """There is no such object, or no such bucket."""


class Object(NamedTuple):
    """Describes an object.

    Attributes:
        size: number of bytes.
        tag: text that changes whenever the content does: its generation in gs://, its ETag in s3://.
    """

    size: int
    tag: str


def listing(address: str) -> dict[str, Object]:
    """Returns the objects below an address, by their names relative to it.

    Raises:
        UserError: there is no such bucket, or it may not be read.
    """
    with explained(address):
        fs, place = _open(address), _place(address)
        found = fs.find(place, detail=True)
        if not found:
            # Listing a missing bucket gives nothing in some libraries, and an error in others.
            fs.ls(place.partition("/")[0])
        return {
            name: Object(entry["size"], _tag(entry))
            for path, entry in found.items()
            # Some programs make empty objects in place of directories.
            if (name := path.removeprefix(place).strip("/")) and not path.endswith("/")
        }


def is_object(address: str) -> bool:
    """Tells whether `address` is that of one object, such as a picture."""
    with explained(address):
        return _open(address).isfile(_place(address))


def fetch(address: str, file: pathlib.Path) -> None:
    """Writes the content of an object to `file`."""
    with explained(address):
        _open(address).get_file(_place(address), str(file))


def fetch_part(address: str, file: pathlib.Path, begin: int, size: int) -> None:
    """Writes `size` bytes of an object, from byte `begin` on, to `file`."""
    with explained(address), file.open("wb") as out:
        fs, place = _open(address), _place(address)
        for start in range(begin, begin + size, _AT_ONCE):
            end = min(start + _AT_ONCE, begin + size)
            out.write(fs.cat_file(place, start=start, end=end))


def read_part(address: str, begin: int, size: int) -> bytes:
    """Returns `size` bytes of an object, from byte `begin` on. One request fetches all."""
    with explained(address):
        return _open(address).cat_file(_place(address), start=begin, end=begin + size)


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """Context manager that opens an object to read parts of it, each when it is needed."""
    with (
        explained(address),
        _open(address).open(_place(address), "rb", block_size=_BLOCK) as file,
    ):
        yield file


def put(address: str, file: pathlib.Path) -> str:
    """Makes the content of `file` an object, whole or not at all. Returns the object's tag."""
    with explained(address, "written"):
        fs, place = _open(address), _place(address)
        fs.put_file(str(file), place)
        return _tag(fs.info(place))


def remove(address: str, names: Collection[str]) -> None:
    """Removes objects, by their names relative to `address`. Those that are gone are left out."""
    fs = _open(address)
    for name in names:
        with explained(f"{address}/{name}", "written"), contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{_place(address)}/{name}")


def read(address: str) -> tuple[bytes, str] | None:
    """Returns the content and the tag of a small object; None if there is none."""
    with explained(address):
        fs, place = _open(address), _place(address)
        try:
            # Tag first: if the object changes in between, `replace` fails.
            tag = _tag(fs.info(place))
            return fs.cat_file(place), tag
        except FileNotFoundError:
            return None


def replace(address: str, content: bytes, tag: str) -> str:
    """Writes a small object if it still has the tag that the caller saw.

    Of several processes that call this at the same time with the same tag, one succeeds.

    Args:
        address: address of the object.
        content: its new content.
        tag: tag of the content to replace; "" if there must be no such object.

    Returns:
        The tag of the new content, or "" if the object was another.
    """
    with explained(address, "written"):
        fs, place = _open(address), _place(address)
        try:
            return _REPLACE[address.partition("://")[0]](fs, place, content, tag)
        except FileExistsError:
            return ""


def _replace_gs(fs: Any, place: str, content: bytes, tag: str) -> str:
    # https://cloud.google.com/storage/docs/request-preconditions
    bucket, _, key = place.partition("/")
    made = fs.call(
        "POST",
        f"{fs._location}/upload/storage/v1/b/{bucket}/o",
        uploadType="media",
        name=key,
        ifGenerationMatch=tag or "0",
        data=content,
        headers={"Content-Type": "application/octet-stream"},
        json_out=True,
    )
    return _tag(made)


def _replace_s3(fs: Any, place: str, content: bytes, tag: str) -> str:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    bucket, _, key = place.partition("/")
    condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
    try:
        made = fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except OSError as error:
        if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
            raise FileExistsError(place) from error
        raise
    return _tag(made)


_REPLACE: dict[str, Callable[[Any, str, bytes, str], str]] = {
    "gs": _replace_gs,
    "s3": _replace_s3,
}


def _tag(entry: dict[str, Any]) -> str:
    return str(entry.get("generation") or entry["ETag"])


def _place(address: str) -> str:
    return address.partition("://")[2]


def _open(address: str) -> Any:
    return _file_system(address.partition("://")[0])


@functools.cache
def _file_system(scheme: str) -> Any:
    """Returns the file system of fsspec for a scheme. One object serves the whole process."""
    import fsspec

    # What they log with a traceback is raised too.
    for library in ("gcsfs", "s3fs", "google.auth"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # Checkpoints are listed through other objects of fsspec, and written without it: a remembered
    # listing would be wrong. `fsspec.config` reaches those objects too.
    for protocol in ("gcs", "gs", "s3"):
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        extra = EXTRAS[scheme]
        raise UserError(
            f"{scheme}:// needs packages that are not installed: pip install 'stunet[{extra}]'"
        ) from error


def prepare(address: str) -> None:
    """Opens the store for programs that use fsspec after this, such as Orbax.

    They see what is there now, and wait while the store does not answer.
    """
    _open(address)
    if address.startswith("gs:"):
        wait_for_gs(_is_passing)


@contextlib.contextmanager
def explained(address: str, done: str = "read") -> Iterator[None]:
    """Context manager that turns what the libraries raise into a sentence about `address`.

    Args:
        address: the address.
        done: what cannot be done with it, "read" or "written".
    """
    try:
        yield
    except FileNotFoundError as error:
        bucket = "/".join(address.split("/")[:3])
        raise Missing(f"{address}: there is no such object, or no bucket {bucket}") from error
    except (UserError, FileExistsError):
        raise
    # gcsfs, aiohttp, botocore and google-auth have no common type.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # Commands explain a disk that is full.
        what, remedy = _PROBLEMS[_problem(error)]
        reason = " ".join(str(error).split("\n", 1)[-1].split()) or type(error).__name__
        raise UserError(f"{address} cannot be {done}: {what}{reason[:200]}; {remedy}") from error


# Kind of an error of a store -> what is wrong, before what the store says, and what to do about it.
_PROBLEMS = {
    "denied": (
        "permission denied: ",
        "ask for the permission to read and write there, or log in with another account",
    ),
    "login": (
        "no login, or one that has expired: ",
        "log in with `gcloud auth application-default login`, or with AWS's credentials",
    ),
    "bucket": ("", "check the name of the bucket"),
    "other": ("", "check the network and the name, and run the same command again"),
}

# Status or name of an error of a store -> its kind.
_KINDS = {
    "403": "denied",
    "AccessDenied": "denied",
    "AllAccessDisabled": "denied",
    "401": "login",
    "ExpiredToken": "login",
    "InvalidAccessKeyId": "login",
    "InvalidToken": "login",
    "SignatureDoesNotMatch": "login",
    "404": "bucket",
    "NoSuchBucket": "bucket",
}


def _problem(error: BaseException) -> str:
    """Returns the kind of a store's error, a key of `_PROBLEMS`."""
    if kind := _KINDS.get(_code(error)):
        return kind
    # gcsfs raises an OSError without a number for the status 403.
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
        return "denied"
    # google-auth and botocore have types of their own for a login that is missing or has expired.
    places = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    is_login = any(place.startswith("google.auth.exceptions.") for place in places)
    return "login" if is_login or "credentials" in str(error).lower() else "other"


def _is_passing(error: Exception) -> bool:
    """Tells whether gcsfs would repeat the request, and no login or right is missing."""
    from gcsfs.retry import is_retriable

    return is_retriable(error) and _problem(error) == "other"


def _code(error: BaseException) -> str:
    """Returns the status or the name of a store's error as text; "" if it has none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if getattr(one, "code", None):
            return str(one.code)
    return ""
