"""Every argument and every key that takes a path takes addresses in buckets, or refuses them."""

import argparse
import pathlib

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import stunet
from stunet import configs, paths
from stunet.cli import STUNET
from stunet.commands import arguments
from stunet.commands.parsing import Command
from stunet.configs import text_encoders
from stunet.configs.schema import fields
from stunet.errors import UserError
from stunet.evaluate import comparison
from stunet.stores import addresses

BUCKETS = ("gs://bucket/run", "s3://bucket/run")
OTHERS = ("file:///tmp/run", "http://host/a.mp4", "hdfs://host/run")
# Types of arguments that take the address of a bucket.
TYPES = (arguments.path, arguments.place, arguments.encoder)
# How the help calls what takes a path, and the arguments that take either a path or a name.
METAVARS = ("DIR", "FILE", "SHOTS", "VIDEOS", "WORKDIR", "PLACE")
BY_NAME = ("--config", "--protocol", "--text-encoder")


def takes_path(action: argparse.Action) -> bool:
    return action.metavar in METAVARS or bool(set(BY_NAME) & set(action.option_strings))


PARSERS = {prog: entry.parser(prog) for prog, entry in STUNET.walk("stunet")
           if isinstance(entry, Command)}  # fmt: skip
ACTIONS = [
    pytest.param(prog, action, id=f"{prog} {(*action.option_strings, action.dest)[0]}")
    for prog, parser in PARSERS.items()
    for action in parser._actions
    if takes_path(action)
]


@pytest.mark.parametrize(("prog", "action"), ACTIONS)
@pytest.mark.parametrize("address", [*BUCKETS, *OTHERS])
def test_an_argument_takes_an_address_or_refuses_it_by_name(prog, action, address, capsys):
    if address in BUCKETS and action.type in TYPES:
        taken = addresses.local(address) if action.type is arguments.path else address
        assert action.type(address) == taken
        return
    parser, words = PARSERS[prog], []
    for other in parser._actions:
        if other.required or other is action:
            value = address if other is action else (other.choices or ["1"])[0]
            words += [*other.option_strings[:1], value]
    with pytest.raises(SystemExit) as ended:
        parser.parse(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {'/'.join(action.option_strings) or action.metavar}: " in said
    assert repr(address) in said


def test_no_argument_takes_a_path_that_is_not_checked():
    """An argument with a type of its own for paths would be found neither here nor above."""
    for prog, parser in PARSERS.items():
        for action in parser._actions:
            assert action.type is not pathlib.Path, f"{prog} {action.dest}"
            if action.type in TYPES:
                assert takes_path(action), f"{prog} {action.dest}"


# Texts that name something else than a file.
NO_PATHS = {
    "text.fingerprint",
    "autoencoder.fingerprint",
    "checkpoint.keep_best",
    "sample.checkpoint",
}
KEYS = {key: field for key, field in fields() if field.metadata["path"] is not None}


def test_every_key_without_choices_that_is_a_text_is_a_path():
    texts = {k for k, f in fields() if f.type is str and f.metadata["choices"] is None}
    assert texts - NO_PATHS == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("address", OTHERS)
def test_a_key_refuses_another_address_by_name(key, address, tmp_path):
    prefixes = text_encoders.PREFIXES if key == "text.encoder" else ("",)
    for prefix in prefixes:
        with pytest.raises(UserError, match=f"^{key}: '{address}' is an address"):
            configs.override(tiny.config(), [f"--config.{key}={prefix}{address}"])


@pytest.mark.parametrize("address", OTHERS)
def test_functions_refuse_another_address(address, tmp_path):
    protocol = tmp_path / "protocol.py"
    protocol.write_text(
        "from stunet.evaluate.comparison import Protocol\n"
        f"def get_protocol(): return Protocol('x', {address!r}, 1, 1, 1, 1, 1.0, str, 'web')\n"
    )
    for call in (
        lambda: stunet.load(address),
        lambda: configs.load(address),
        lambda: comparison._read(protocol),
    ):
        with pytest.raises(UserError, match="is an address"):
            call()


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]*", fullmatch=True), st.text())
def test_what_has_a_scheme_is_an_address_and_nothing_else_is(scheme, rest):
    assert paths.has_scheme(f"{scheme}://{rest}")
    for path in (f"./{scheme}://{rest}", f"/{scheme}://{rest}", f"{scheme}:{rest.lstrip('/')}"):
        assert not paths.has_scheme(path)


@pytest.mark.parametrize("name", ["a:b.mp4", "12:30", "file:x.mp4", "C:/a", "a/b://c", "été://x"])
def test_a_name_with_a_colon_is_a_path(name):
    assert arguments.path(name) == pathlib.Path(name)
