"""launch/logged.py keeps what a command prints in an object, and passes signals on."""

import os
import signal
import threading

import logged
import pytest

from stunet.errors import UserError
from stunet.stores import objects

ADDRESS = "gs://bucket/run/launch/host.log"


@pytest.fixture
def stored(monkeypatch):
    """Objects by address, which stand for a bucket."""
    found = {}
    monkeypatch.setattr(objects, "read", lambda address: (found[address], "") if found else None)
    monkeypatch.setattr(objects, "put", lambda a, file: found.update({a: file.read_bytes()}))
    handlers = {number: signal.getsignal(number) for number in (1, 2, 15)}
    yield found
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(script: str) -> int:
    return logged.main([ADDRESS, "bash", "-c", script])


def test_output_of_each_container_follows_that_of_the_last_one(stored, capfdbinary):
    assert run("echo one; echo two >&2; exit 3") == 3
    assert stored == {ADDRESS: b"one\ntwo\n"}
    assert capfdbinary.readouterr().out == b"one\ntwo\n"
    assert run("printf three") == 0
    assert stored == {ADDRESS: b"one\ntwo\nthree"}
    assert run("kill -9 $$") == 128 + 9


def test_the_command_is_asked_to_stop_and_its_last_words_are_kept(stored, monkeypatch):
    monkeypatch.setattr(logged, "_EVERY", 0.01)
    begun = threading.Event()

    def put(address, file):
        stored[address] = file.read_bytes()
        if b"ready" in stored[address] and not begun.is_set():
            begun.set()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(objects, "put", put)
    script = "trap 'echo saved; exit 75' TERM; echo ready; for i in {1..600}; do sleep 0.05; done"
    assert run(script) == 75
    assert stored == {ADDRESS: b"ready\nsaved\n"}


def test_a_command_goes_on_when_its_output_cannot_be_kept(monkeypatch, stored, capsys):
    def refuse(*_):
        raise UserError("gs://bucket cannot be written")

    monkeypatch.setattr(objects, "put", refuse)
    assert run("echo one") == 0
    assert "launch/logged.py: gs://bucket cannot be written" in capsys.readouterr().err
