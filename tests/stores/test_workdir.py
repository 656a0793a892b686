"""A training while its bucket is slow, gone, or another's. A dict stands in for the bucket."""

import pathlib
import threading

import pytest

from stunet.commands import parsing, train
from stunet.errors import UserError
from stunet.stores import addresses, mirror, objects, workdir
from stunet.stores.lease import Lease

RUN = "gs://bucket/run"


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """The objects of `RUN` by name. Each change gives an object another tag."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    held, tags = {}, iter(range(1, 10**6))

    def write(address, content):
        held[address.removeprefix(f"{RUN}/")] = (content, str(next(tags)))
        return held[address.removeprefix(f"{RUN}/")][1]

    def replace(address, content, tag):
        present = held.get(address.removeprefix(f"{RUN}/"), (b"", ""))[1]
        return write(address, content) if present == tag else ""

    stand_ins = dict(
        listing=lambda _: {name: objects.Object(len(c), tag) for name, (c, tag) in held.items()},
        is_object=lambda _: False,
        fetch=lambda address, file: file.write_bytes(held[address.removeprefix(f"{RUN}/")][0]),
        put=lambda address, file: write(address, pathlib.Path(file).read_bytes()),
        remove=lambda _, names: [held.pop(name, None) for name in names],
        read=lambda address: held.get(address.removeprefix(f"{RUN}/")),
        replace=replace,
    )
    for name, function in stand_ins.items():
        monkeypatch.setattr(objects, name, function)
    held["metrics.jsonl"] = (b"old", "0")
    return held


def test_a_training_that_was_taken_over_changes_nothing_in_the_bucket(bucket, monkeypatch):
    def run(arguments):
        with workdir.opened(arguments.workdir, print) as uploads:
            (arguments.workdir / "metrics.jsonl").write_text("mine")
            uploads.flush()
            assert bucket["metrics.jsonl"][0] == b"mine"
            bucket["metrics.jsonl"] = (b"the other's", "other")
            (arguments.workdir / "metrics.jsonl").write_text("mine, later")
            uploads._lease.lost.set()
            uploads.request()

    def add_arguments(parser):
        parser.required.add_argument("--workdir", type=addresses.local)

    command = parsing.Command("x", add_arguments, run, (), opens=train.COMMAND.opens)
    group = parsing.Group("x", "command", {"train": command}, examples=())
    assert parsing.run(group, "stunet", ["train", "--workdir", RUN]) == 1
    assert bucket["metrics.jsonl"][0] == b"the other's"


def test_uploads_wait_for_the_bucket_and_say_so(bucket, monkeypatch, tmp_path):
    copy, told, answers = addresses.local(RUN), [], threading.Event()
    copy.mkdir(parents=True)
    (copy / "metrics.jsonl").write_text("new")
    push = mirror.push

    def push_once_it_answers(path):
        if not answers.is_set():
            raise UserError("no answer")
        return push(path)

    monkeypatch.setattr(mirror, "push", push_once_it_answers)
    monkeypatch.setattr(workdir, "_TELL_AFTER", 0.05)
    uploads = workdir.Uploads(copy, Lease(), told.append)
    try:
        uploads.request()  # It does not wait.
        with pytest.raises(UserError, match="no answer; gave up after"):
            uploads.flush(patience=0.3)
        assert f"waiting for uploads to {RUN} (no answer)" in told
        uploads.request()
        assert told[-1].startswith(f"uploads to {RUN} are ")
        assert bucket["metrics.jsonl"][0] == b"old"
        answers.set()
        uploads.flush()
        assert bucket["metrics.jsonl"][0] == b"new"
    finally:
        uploads.close()
