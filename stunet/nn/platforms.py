"""Functions that take another form on each platform."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

_ASSUMED: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform_dependent(
    *arguments: Any, default: Callable[..., Any], **forms: Callable[..., Any]
) -> Any:
    """Calls the form of a function that suits the platform which the program is compiled for.

    It is `jax.lax.platform_dependent`, except within `assume_platform`.

    Args:
        *arguments: arguments of the function.
        default: form for platforms that `forms` does not name.
        **forms: form for each platform that has its own, such as `tpu`, `cuda` or `cpu`.
    """
    platform = _ASSUMED.get()
    if platform is None:
        return lax.platform_dependent(*arguments, default=default, **forms)
    return forms.get(platform, default)(*arguments)


@contextlib.contextmanager
def assume_platform(platform: str) -> Iterator[None]:
    """Context manager in which traces hold the forms of one platform alone.

    JAX decides on a platform only when it compiles, so a trace holds the forms of all platforms,
    and what each of them keeps for the backward pass. To add up a step's memory from a trace, one
    platform's forms must be chosen.
    """
    token = _ASSUMED.set(platform)
    try:
        yield
    finally:
        _ASSUMED.reset(token)
