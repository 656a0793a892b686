"""A request that gs:// does not answer is repeated for minutes, and one that it refuses is not."""

import asyncio

import pytest

from stunet.stores.patience import patient


class Store:
    """Raises some errors, one a request, and then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)

    async def _request(self, *words, **how):
        if self.errors:
            raise self.errors.pop(0)
        return words, how


def ask(store, **how):
    return asyncio.run(store._request("GET", "b/{}/o", "bucket", **how))


def make(*errors, told, seconds=600.0):
    return patient(Store, lambda e: isinstance(e, OSError), told.append, seconds)(*errors)


def test_a_request_is_repeated_as_it_was_until_the_store_answers():
    told = []
    store = make(OSError("503"), OSError("503"), told=told)
    assert ask(store, data=b"x") == (("GET", "b/{}/o", "bucket"), {"data": b"x"})
    assert len(told) == 2
    assert told[0].endswith("(503); asking again, for 10 min 00 s at most")


def test_the_error_is_raised_after_the_time():
    store = make(*[OSError("503")] * 10**6, told=[], seconds=0.01)
    with pytest.raises(OSError, match="503"):
        ask(store)


def test_an_error_that_does_not_pass_is_raised_at_once():
    told = []
    store = make(ValueError("no bucket"), told=told)
    with pytest.raises(ValueError, match="no bucket"):
        ask(store)
    assert not told
