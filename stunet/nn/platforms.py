"""Chooses the form of a function by the platform that a program is compiled for."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

_ASSUMED: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform_dependent(
    *arguments: Any, default: Callable[..., Any], **forms: Callable[..., Any]
) -> Any:
    """Calls the form of a function for the platform that the program is compiled for.

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
    """Context manager in which traces contain the forms for one platform alone.

    JAX decides on a platform only when it compiles. So a trace usually contains the forms for all
    platforms, and what each of them keeps for the backward pass. An estimate of a step's memory
    from its trace needs the forms of one platform alone.
    """
    token = _ASSUMED.set(platform)
    try:
        yield
    finally:
        _ASSUMED.reset(token)
