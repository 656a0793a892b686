"""Finds objects that users wrote, such as a sampler, by names such as "my_package.module:name".

A config may give such a name in place of one from a table of choices. The protocols below say what
the object must have. Its module is imported only if the user trusts the package, with `--trust` on
the command line or in the environment variable `STUNET_TRUST`: a config may come from a stranger,
and a name in it must not run code.
"""

import hashlib
import importlib
import inspect
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from stunet.errors import UserError, choose

Entry = TypeVar("Entry")

# Names of trusted packages, separated by commas. Processes that this one starts inherit it.
TRUST = "STUNET_TRUST"

_WORD = r"[A-Za-z_]\w*"
_NAME = re.compile(rf"(?P<module>(?P<package>{_WORD})(\.{_WORD})*):(?P<object>{_WORD})")


class Sampler(Protocol):
    """The object that `sample.sampler` names is like a `stunet.diffusion.samplers.Sampler`."""

    num_kept: int
    calls: int
    may_churn: bool

    def update(self, step): ...

    def grid(self, schedule, t_start, fraction): ...

    def keep(self, step): ...


class NoiseSchedule(Protocol):
    """The object that `diffusion.schedule` names is like a `stunet.diffusion.schedules.Curve`."""

    def log_snr(self, t, log_snr_min, log_snr_max): ...

    def time(self, log_snr, log_snr_min, log_snr_max): ...


class TimeSampling(Protocol):
    """The function that `diffusion.time_sampling` names maps shares of times to times.

    It is like those in `stunet.diffusion.times.QUANTILES`.
    """

    def __call__(self, u, mean, std): ...


class LossWeighting(Protocol):
    """The function that `diffusion.weighting` names returns the weight of each noise level.

    It is like those in `stunet.diffusion.loss.WEIGHTINGS`.
    """

    def __call__(self, t, log_snr, settings): ...


class Optimizer(Protocol):
    """The object that `train.optimizer` names is like a `stunet.train.optim.methods.Method`."""

    around: Any
    average: Any

    def make(self, numbers): ...


class LearningRate(Protocol):
    """The function that `train.schedule` names makes a schedule of the learning rate.

    It is like those in `stunet.train.optim.learning_rates.SCHEDULES`.
    """

    def __call__(self, course): ...


class Source(Protocol):
    """The function that `data.source` names opens the clips of a split.

    It is like those in `stunet.data.sources.SOURCES`. Its option `path` is `data.path`.
    """

    def __call__(self, split, clip, text, seed, *, path): ...


class TextEncoder(Protocol):
    """The function that `text.encoder` names makes a text encoder.

    `stunet.nn.text.text_encoder` says what an encoder is.
    """

    def __call__(self, max_length, dim): ...


class Tracker(Protocol):
    """The function that `log.trackers` names begins to show a run.

    It is like those in `stunet.train.measured.trackers.TRACKERS`.
    """

    def __call__(self, run): ...


class Metric(Protocol):
    """The object that `--metrics` names is like a `stunet.evaluate.groups.MetricGroup`."""

    summary: str
    companions: Sequence[str]
    min_clips: int
    compare: Any
    rows: Mapping[str, Any]

    def measure(self, clips, scene, borders): ...

    def check(self, shape): ...


def names_object(name: str) -> bool:
    """Tells whether `name` has the form "package.module:name"."""
    return _NAME.fullmatch(name) is not None


def find(table: Mapping[str, Entry], name: str, protocol: type) -> Entry:
    """Returns `table[name]`, or the user's own object of that name.

    Args:
        table: stunet's own choices.
        name: a key of the table, or a name such as "my_package.module:name".
        protocol: what a user's own object must have, one of the protocols above.

    Raises:
        UserError: there is no such choice, or `load` refuses the object.
    """
    if names_object(name):
        return load(name, protocol)
    return choose(table, name, _noun(protocol))


def trust(packages: str) -> None:
    """Lets this process, and those that it starts, import packages that a config names.

    Args:
        packages: names of packages, separated by commas.
    """
    os.environ[TRUST] = ",".join(filter(None, (os.environ.get(TRUST), packages)))


def is_trusted(name: str) -> bool:
    """Tells whether the user trusts the package of a name such as "package.module:name"."""
    package = _NAME.fullmatch(name)["package"]
    return package in map(str.strip, os.environ.get(TRUST, "").split(","))


def load(name: str, protocol: type) -> Any:
    """Imports a user's object and checks that it has what `protocol` lists.

    Args:
        name: a name such as "package.module:name".
        protocol: one of the protocols of this module.

    Raises:
        UserError: the package is not trusted or cannot be imported, it has no such object, or
            the object lacks something.
    """
    found = _NAME.fullmatch(name)
    if not is_trusted(name):
        raise UserError(
            f"{name!r} would run code of the package {found['package']!r}; if you trust it, add "
            f"--trust {found['package']} to the command, or to the environment variable {TRUST}"
        )
    try:
        module = importlib.import_module(found["module"])
    except Exception as error:
        raise UserError(
            f"the module of {name!r} cannot be imported ({type(error).__name__}: {error}); install "
            "its package, or put its folder on PYTHONPATH"
        ) from error
    if not hasattr(module, found["object"]):
        raise UserError(f"{name!r}: the module {found['module']} has no {found['object']}")
    if getattr(module, "__file__", None):
        _FILES.add(module.__file__)
    entry = getattr(module, found["object"])
    if mistake := _mistake(entry, protocol):
        raise UserError(
            f"{name!r} is no {_noun(protocol)}: it {mistake}; stunet.extensions."
            f"{protocol.__name__} says what is needed"
        )
    return entry


# Files of the modules of users' own objects that this process has loaded.
_FILES: set[str] = set()


def digest() -> bytes:
    """Returns a hash of the modules in which the users' own objects of this process are."""
    parts = (pathlib.Path(file).read_bytes() for file in sorted(_FILES))
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _noun(protocol: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", protocol.__name__).lower()


def _mistake(entry: Any, protocol: type) -> str | None:
    """Says what `entry` lacks of a protocol, as a clause without a subject."""
    for name in inspect.get_annotations(protocol):
        if not hasattr(entry, name):
            return f"has no attribute {name!r}"
    for name, method in vars(protocol).items():
        if not inspect.isfunction(method) or (name.startswith("_") and name != "__call__"):
            continue
        is_itself = name == "__call__"
        function = entry if is_itself else getattr(entry, name, None)
        if not callable(function):
            return "cannot be called" if is_itself else f"has no function {name!r}"
        # Without the protocol's own `self`.
        wanted = inspect.signature(method)
        wanted = wanted.replace(parameters=list(wanted.parameters.values())[1:])
        if not _takes(function, wanted):
            return f"does not take {wanted}" if is_itself else f"has a {name} without {wanted}"
    return None


def _takes(function: Any, wanted: inspect.Signature) -> bool:
    """Tells whether `function` can be called as `wanted` says."""
    by_keyword = [p.name for p in wanted.parameters.values() if p.kind is p.KEYWORD_ONLY]
    positional = len(wanted.parameters) - len(by_keyword)
    try:
        inspect.signature(function).bind(*range(positional), **dict.fromkeys(by_keyword))
    except TypeError:
        return False
    except ValueError:
        pass  # A function in C may hide what it takes.
    return True
