"""Chooses the implementation of a function by the platform that a program is compiled for."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

_ASSUMED: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform_dependent(
    *arguments: Any, default: Callable[..., Any], **forms: Callable[..., Any]
) -> Any:
    """Calls the implementation of a function for the platform that the program is compiled for.

    This is `jax.lax.platform_dependent`, except that `assume_platform` can fix the platform.

    Args:
        *arguments: arguments of the function.
        default: implementation for platforms that `forms` does not name.
        **forms: implementation for each platform that has its own: `tpu`, `cuda` or `cpu`.
    """
    platform = _ASSUMED.get()
    if platform is None:
        return lax.platform_dependent(*arguments, default=default, **forms)
    return forms.get(platform, default)(*arguments)


@contextlib.contextmanager
def assume_platform(platform: str) -> Iterator[None]:
    """Context manager in which traces contain the implementations for one platform alone.

    JAX chooses a platform only when it compiles. So a trace usually contains the implementations
    for all platforms, and the arrays that each of them keeps for the backward pass. An estimate of
    a step's memory from a trace must count the arrays for one platform alone.
    """
    token = _ASSUMED.set(platform)
    try:
        yield
    finally:
        _ASSUMED.reset(token)
