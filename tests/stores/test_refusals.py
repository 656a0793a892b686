"""A command says in one sentence which right or login a store misses, and ends."""

import asyncio
import pathlib

import pytest
import servers

from stunet import cli
from stunet.errors import UserError
from stunet.stores import addresses, mirror, objects

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["gs", "s3"])
def store(request, tmp_path_factory):
    """A store with an object, and the file that switches its faults on."""
    scratch = tmp_path_factory.mktemp("refusals")
    faults = scratch / "faults"
    faults.touch()
    with (
        servers.running(request.param, str(faults)) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        servers.forget()
        where = f"{request.param}://{servers.BUCKET}/run"
        objects.put(f"{where}/config.json", pathlib.Path(__file__))
        yield where, faults
    servers.forget()


@pytest.fixture
def switched_off(store):
    yield
    store[1].write_text("")


@pytest.fixture
def no_pauses(monkeypatch):
    """gcsfs asks for another login for half a minute before it gives up."""
    sleep = asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds, *_: sleep(0))


@pytest.mark.usefixtures("switched_off")
def test_missing_rights_are_told_in_one_sentence(store, capsys, tmp_path):
    where, faults = store
    copy = addresses.local(where)
    faults.write_text("no read")
    sentence = f"{where} cannot be read: permission denied: .*; ask for the permission"
    for command in (mirror.pull, lambda path: objects.listing(where)):
        with pytest.raises(UserError, match=sentence):
            command(copy)
    for words in (["report", where], ["prepare", where, str(tmp_path / "out")]):
        assert cli.main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "permission denied" in line
        assert where in line
    # Who may read and not write can look at a run, and cannot change it.
    faults.write_text("no write")
    mirror.pull(copy)
    (copy / "new.txt").write_text("new")
    sentence = f"{where}/new.txt cannot be written: permission denied: .*; ask for the permission"
    with pytest.raises(UserError, match=sentence):
        mirror.push(copy)
    assert cli.main(["train", "--config=quickstart", f"--workdir={where}-2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"{where}-2/.lease.json cannot be written: permission denied" in line


@pytest.mark.usefixtures("switched_off", "no_pauses")
def test_a_login_that_has_expired_is_told_in_one_sentence(store):
    where, faults = store
    faults.write_text("no login")
    with pytest.raises(UserError, match=f"{where} cannot be read: no login, or one that has .*log"):
        objects.listing(where)
    with pytest.raises(UserError, match=f"{where}/a cannot be written: no login, or one that has"):
        objects.put(f"{where}/a", pathlib.Path(__file__))


@pytest.mark.parametrize(
    ("scheme", "error"),
    [
        ("gs", "google.auth.exceptions:RefreshError"),
        ("gs", "google.auth.exceptions:DefaultCredentialsError"),
        ("s3", "botocore.exceptions:NoCredentialsError"),
    ],
)
def test_a_login_that_is_not_there_is_told_in_one_sentence(scheme, error, monkeypatch):
    module, _, name = error.partition(":")
    kind = getattr(pytest.importorskip(module), name)

    def refuse(*_):
        raise kind("no") if scheme == "gs" else kind()

    monkeypatch.setattr(objects, "_open", refuse)
    with pytest.raises(UserError, match=f"{scheme}://bucket/run cannot be read: no login, or one"):
        objects.listing(f"{scheme}://bucket/run")
