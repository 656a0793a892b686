"""A damaged checkpoint is told as one, or what it yields is bit for bit what was saved.

Training goes back to the checkpoint before a damaged one; sampling and exporting refuse it.
"""

import json
import os
import pathlib
import random
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from stunet.errors import UserError
from stunet.train.saved.checkpoint_files import DamagedCheckpoint, verify
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState

pytestmark = pytest.mark.slow

# Bits that are flipped, and files that are damaged in each other way, in the short form and in the
# long one (FAULTS=long).
FLIPS, FILES = (500, 100) if os.environ.get("FAULTS") == "long" else (20, 6)


def state(step: int) -> TrainState:
    """Returns a state like that of a run, with values that depend on the step."""
    rng = np.random.default_rng(step)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    def tree():
        return {"conv": {"kernel": draw(3, 3, 40, 30), "bias": jnp.zeros(30)}, "scale": draw(64)}

    frozen = {"conv_in": {"kernel": draw(3, 3, 8, 16).astype(jnp.bfloat16)}}
    moments = {"count": jnp.int32(step), "mu": tree(), "nu": tree()}
    return TrainState(jnp.int32(step), tree(), frozen, tree(), (moments, jnp.int32(step)))


def position(step: int) -> dict[str, int]:
    return {"global_next_index": 100_000 + 16 * step}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The work directory of a run with the checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("whole")
    with Checkpoints(workdir, Retention(2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), position(step))
            checkpoints.wait()
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def files(run: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in (run / "checkpoints" / "2").rglob("*") if file.is_file())


def is_same(found, expected) -> bool:
    """Tells whether two trees hold the same bits."""

    def content(tree):
        paths = jax.tree_util.tree_leaves_with_path(tree)
        return [(str(p), x.dtype, x.shape, np.asarray(x).tobytes()) for p, x in paths]

    return content(found) == content(expected)


def check_told_or_harmless(run: pathlib.Path, what: str) -> bool:
    """Reads as sampling and training do, and returns whether both were told of damage."""
    broken = run / "checkpoints" / "2"
    verdict = verify(run, 2)
    refusal = ""
    try:
        with Checkpoints(run) as checkpoints:
            params = checkpoints.restore_ema_params(state(0))
    except DamagedCheckpoint as error:
        refusal = str(error)
    else:
        assert is_same(params, state(2).ema_params), what
    if refusal:
        assert str(broken) in refusal, what
        assert "remove that directory" in refusal, what
        assert verdict.problem, what

    with Checkpoints(run, Retention(2)) as checkpoints:
        restored = checkpoints.restore(state(0))
        step = int(restored.state.step)
        assert is_same(restored.state, state(step)), what
        assert restored.data == position(step), what
        if step == 1:
            assert verdict.problem, what
            (note,) = restored.notes
            assert str(broken) in note, what
            assert "goes back to update 1" in note, what
            assert (run / "checkpoints" / "2.damaged").is_dir()
            # The run comes to update 2 again.
            checkpoints.save(state(2), position(2))
            checkpoints.wait()
            assert not verify(run, 2).problem, what
        else:
            assert not refusal, what
            assert not restored.notes, what
    return step == 1


def test_what_is_whole_is_verified(run):
    for step in (1, 2):
        verdict = verify(run, step)
        assert (verdict.problem, verdict.arrays) == ("", len(jax.tree.leaves(state(0))))
    assert not check_told_or_harmless(run, "nothing")


def test_flipped_bits(whole, tmp_path, record_property):
    """Bits anywhere under a checkpoint, each as likely as any other."""
    generator, told = random.Random(0), 0
    sizes = [file.stat().st_size for file in files(whole)]
    for i in range(FLIPS):
        run = shutil.copytree(whole, tmp_path / "run")
        (file,) = generator.choices(files(run), sizes)
        content = bytearray(file.read_bytes())
        bit = generator.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        told += check_told_or_harmless(run, f"flip {i}: bit {bit} of {file}")
        shutil.rmtree(run)
    record_property("fault", ("bits flipped in a checkpoint", FLIPS))
    record_property("fault", ("... told", told))
    record_property("fault", ("... without effect", FLIPS - told))
    # Most bits are those of arrays.
    assert told > FLIPS / 3


def truncated(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def emptied(content: bytes, generator: random.Random) -> bytes:
    return b""


def deleted(content: bytes, generator: random.Random) -> None:
    return None


def replaced(content: bytes, generator: random.Random) -> bytes:
    return generator.randbytes(len(content))


@pytest.mark.parametrize("damage", [truncated, emptied, deleted, replaced])
def test_damaged_files(whole, tmp_path, damage, record_property):
    """Every file of a checkpoint in turn, in an order that differs from kind to kind."""
    generator, told = random.Random(damage.__name__), 0
    originals = files(whole)
    generator.shuffle(originals)
    for i in range(FILES):
        run = shutil.copytree(whole, tmp_path / "run")
        file = run / originals[i % len(originals)].relative_to(whole)
        content = damage(file.read_bytes(), generator)
        file.unlink() if content is None else file.write_bytes(content)
        told += check_told_or_harmless(run, f"{damage.__name__}: {file}")
        shutil.rmtree(run)
    record_property("fault", (f"files of a checkpoint {damage.__name__}", FILES))
    record_property("fault", ("... told", told))
    record_property("fault", ("... without effect", FILES - told))
    assert told


@pytest.mark.parametrize("item", ["train", "ema", "frozen", "data", "digests"])
def test_an_item_of_another_checkpoint(run, item):
    """Its files are whole, and its arrays are not those of this checkpoint."""
    one, two = (run / "checkpoints" / step / item for step in "12")
    shutil.rmtree(two)
    shutil.copytree(one, two)
    assert check_told_or_harmless(run, item)


def test_no_checkpoint_is_whole(run):
    for file in (run / "checkpoints").glob("*/data/d/*"):
        file.write_bytes(b"")
    before = sorted(run.rglob("*"))
    said = f"{run / 'checkpoints' / '2'} .*none of the 1 before it is whole: remove that directory"
    with (
        Checkpoints(run, Retention(2)) as checkpoints,
        pytest.raises(DamagedCheckpoint, match=said),
    ):
        checkpoints.restore(state(0))
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_of_an_earlier_version_is_read_and_said(run, capsys):
    shutil.rmtree(run / "checkpoints" / "2" / "digests")
    verdict = verify(run, 2)
    assert (verdict.problem, verdict.arrays) == ("", 0)
    with Checkpoints(run, Retention(2)) as checkpoints:
        restored = checkpoints.restore(state(0))
        assert is_same(restored.state, state(2))
        assert restored.data == position(2)
        (note,) = restored.notes
        assert "2 has no digests" in note
        checkpoints.restore_ema_params(state(0))
        assert "2 has no digests" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "null", "3", "[1]", '["train/step"]', "{}", '{"a": 1}'])
def test_digests_that_are_none(run, content):
    (file,) = (run / "checkpoints" / "2" / "digests").glob("*json*")
    file.write_text(content)
    assert check_told_or_harmless(run, content)


@pytest.mark.parametrize("name", ["a[b]", "a]", "[", "a*", "a?b", "a\\b", "a\udcff"])
def test_a_path_under_which_checkpoints_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="in it, and checkpoints under such a name cannot be read"):
        Checkpoints(tmp_path / name / "run", Retention(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("character", " !\"#$%&'()+,-.:;<=>@^_`{|}~\n\té\u2028日\U0001f600")
def test_other_characters_are_not_refused(tmp_path, character):
    workdir = tmp_path / f"a{character}b"
    with Checkpoints(workdir, Retention(1)) as checkpoints:
        checkpoints.save(state(3), position(3))
        checkpoints.wait()
    with Checkpoints(workdir) as checkpoints:
        assert is_same(checkpoints.restore(state(0)).state, state(3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flipped", "truncated"])
def test_what_one_of_two_processes_cannot_read_neither_goes_on_from(tmp_path, kind):
    script = pathlib.Path(__file__).with_name("damage_for_two.py")
    job = tiny.launch(sys.executable, script, tmp_path, kind, devices=2)
    output, errors = job.communicate(timeout=900)
    assert job.returncode == 0, errors
    (found,) = map(json.loads, (line for line in output.splitlines() if line.startswith("{")))
    assert (found["step"], found["same"], found["problem"]) == (1, True, "")
    assert f"{tmp_path / 'checkpoints' / '2'} " in found["notes"][0]
