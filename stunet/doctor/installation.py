"""Checks the installed packages, reading and writing videos, and the cache of compiled programs."""

import importlib
import os
import pathlib
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata

import numpy as np
from packaging.requirements import Requirement

from stunet.data import media
from stunet.doctor.findings import Finding, checked, wrong
from stunet.errors import UserError
from stunet.files import user_cache
from stunet.prepare.decode import decode_clips

# Modules whose name is not that of their package.
MODULES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax.checkpoint",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "scikit-learn": "sklearn",
}


def check() -> Iterator[Finding]:
    """Yields findings about Python, the packages, reading and writing videos, and the cache."""
    yield Finding("Python", platform.python_version())
    yield from _packages()
    yield checked("video", _video, "reinstall av: pip install --force-reinstall av")
    yield checked("cache", _cache)


def requirements() -> list[Requirement]:
    """Returns the packages that every installation needs.

    Raises:
        PackageNotFoundError: stunet is not installed as a package, although Python may be
            able to import its source.
    """
    parsed = [Requirement(line) for line in metadata.requires("stunet") or ()]
    return [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]


def module(package: str) -> str:
    """Returns the name by which a package is imported, such as "PIL" for "pillow"."""
    return MODULES.get(package, package.replace("-", "_"))


def _packages() -> Iterator[Finding]:
    try:
        needed = requirements()
    except metadata.PackageNotFoundError:
        yield wrong("packages", "stunet itself is not installed", "run: pip install -e .")
        return
    bad = [finding for one in needed if (finding := _package(one))]
    fit = len(needed) - len(bad)
    yield Finding("packages", f"{fit} of {len(needed)} are there, fit and can be imported")
    yield from bad


def _package(needed: Requirement) -> Finding | None:
    """Returns a finding if a package is missing, broken or of an unsuitable version, else None."""
    quoted = f"run: pip install '{needed}'"
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return wrong(needed.name, "is not installed", quoted)
    if not needed.specifier.contains(version, prereleases=True):
        return wrong(needed.name, f"has version {version}", quoted)
    try:
        importlib.import_module(module(needed.name))
    except Exception as error:  # A package may raise anything when it is imported.
        reason = next(iter(str(error).splitlines()), "")
        said = f"cannot be imported ({type(error).__name__}: {reason})"
        return wrong(needed.name, said, f"run: pip install --force-reinstall '{needed}'")
    return None


def _video() -> str:
    """Writes a short video and reads it back.

    Raises:
        UserError: the clip that was read differs from the clip that was written.
    """
    brightness = np.linspace(-0.5, 0.5, 4, dtype=np.float32)
    clip = np.broadcast_to(brightness[:, None, None, None], (4, 16, 16, 3))
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "clip.mp4"
        media.write_mp4(file, clip[None], 8)
        (back,) = decode_clips(file, 4, 8, 16, 16, 3)
    difference = np.abs(back.astype(np.float32) / 127.5 - 1 - clip).max()
    if difference > 0.1:
        raise UserError(f"an H.264 clip comes back changed, by {difference:.2f} of 2")
    return "an H.264 clip was written and read back"


def _cache() -> str:
    """Checks that files can be written into the directory of compiled programs.

    Raises:
        UserError: the directory cannot be written.
    """
    place = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    directory = pathlib.Path(place) if place else user_cache("xla")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error.strerror}), so every run compiles again; set "
            "XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR to a directory of yours"
        ) from error
    return f"compiled programs are kept in {directory}"
