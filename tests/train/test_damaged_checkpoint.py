"""Every command that reads a checkpoint refuses a damaged one, and training goes back."""

import pathlib
import shutil

import pytest
import tiny

from stunet import cli
from stunet.train.saved.checkpoint_files import verify
from stunet.train.saved.checkpoint_names import steps

SHORT = (*tiny.ONE_LEVEL, "--config.train.steps=4", "--config.checkpoint.every=2")


def train(directory: pathlib.Path, name: str, *more: str) -> list[str]:
    experiment = tiny.experiment(directory)
    return ["train", f"--config={experiment}", f"--workdir={directory / name}", *SHORT, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    directory = tmp_path_factory.mktemp("whole")
    assert cli.main(train(directory, "run")) == 0
    return directory / "run"


def flip_a_bit(workdir: pathlib.Path, item: str) -> None:
    """Flips a bit among the arrays of the newest checkpoint."""
    found = (workdir / "checkpoints" / "4" / item).glob("ocdbt.process_0/d/*")
    file = max(found, key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


@pytest.fixture
def damaged(whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for item in ("train", "ema"):
        flip_a_bit(workdir, item)
    assert verify(workdir, 4).problem
    return workdir


READERS = {
    "sample": ["sample", "text", "--prompt", "a 7 moving left", "--out", "{out}", "--workdir"],
    "evaluate": ["evaluate", "--metrics", "pixels", "--num", "2", "--out", "{out}", "--workdir"],
    "export": ["export", "--format", "safetensors", "--out", "{out}", "--workdir"],
}


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(damaged, tmp_path, command, capsys):
    out = tmp_path / "out"
    arguments = [word.replace("{out}", str(out)) for word in command]
    assert cli.main([*arguments, str(damaged)]) == 1
    said = capsys.readouterr().err
    (sentence,) = [line for line in said.splitlines() if line.startswith("stunet")]
    assert f"checkpoint {damaged / 'checkpoints' / '4'} is damaged (ema/" in sentence
    assert "remove that directory" in sentence
    assert not [file for file in out.rglob("*") if file.is_file()]


def test_a_run_does_not_begin_with_damaged_weights(damaged, tmp_path, capsys):
    assert cli.main(train(tmp_path, "next", f"--config.train.init_from={damaged}")) == 1
    assert f"{damaged / 'checkpoints' / '4'} is damaged (ema/" in capsys.readouterr().err
    assert not steps(tmp_path / "next")


def test_training_goes_back_and_ends_as_before(whole, damaged, tmp_path, capsys):
    # The command of the copy is that of a run beside the same experiment.
    assert cli.main(train(tmp_path, "run")) == 0
    said = capsys.readouterr().err
    assert f"checkpoint {damaged / 'checkpoints' / '4'} is damaged" in said
    assert "it is 4.damaged now, and the run goes back to update 2" in said
    assert "from update 2 on" in said
    assert steps(damaged) == [4, 2]
    (digests,) = (whole / "checkpoints" / "4" / "digests").glob("*json*")
    again = damaged / digests.relative_to(whole)
    assert again.read_text() == digests.read_text()


BAD = "a[b]*"
PLACES = {
    "train": lambda place, run: train(place, "run"),
    "sample": lambda place, run: ["sample", "text", "--prompt", "a", "--workdir", str(run)],
    "evaluate": lambda place, run: ["evaluate", "--metrics", "pixels", "--workdir", str(run)],
    "export": lambda place, run: [
        *("export", "--format", "safetensors"),
        *("--out", str(place.parent / "out"), "--workdir", str(run)),
    ],
    "sweep": lambda place, run: ["sweep", "--config", str(sweep(place)), "--workdir", str(run)],
}


def sweep(place: pathlib.Path) -> pathlib.Path:
    file = place.parent / "sweep.py"
    body = 'def get_sweep():\n    return [Member("a", configs.resolve(get_config()))]\n'
    imports = "from stunet.sweep.members import Member\n"
    file.write_text(f"{imports}{tiny.EXPERIMENT}\n\n{body}")
    return file


@pytest.mark.parametrize("command", PLACES.values(), ids=PLACES)
def test_a_path_that_orbax_cannot_read_is_refused(whole, tmp_path, command, capsys):
    place = tmp_path / BAD
    place.mkdir()
    run = place / "run"
    if command not in (PLACES["train"], PLACES["sweep"]):
        shutil.copytree(whole, run)
    before = sorted(p for p in place.rglob("*") if p.name != "tiny.py")
    assert cli.main(command(place, run)) == 1
    assert "checkpoints under such a name cannot be read" in capsys.readouterr().err
    assert sorted(p for p in place.rglob("*") if p.name != "tiny.py") == before
