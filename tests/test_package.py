"""A wheel works without the checkout that it was built from."""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import stunet

CHECKOUT = pathlib.Path(__file__).parents[1]
# Keys that make a training short.
SMALL = (
    *("model.channels=8", "model.groups=4", "model.head_channels=8"),
    *("train.steps=4", "train.batch_size=2", "checkpoint.every=2"),
    *("log.validate_every=0", "log.sample_every=0"),
)
BUILT_FROM = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "stunet", "experiments")


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder that holds what the wheel installs, and nothing else."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (CHECKOUT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / name, source / name, ignore=ignored)
        else:
            shutil.copy(CHECKOUT / name, source)
    weights = source / "pretrained" / "mini" / "base" / "params.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def run(installed: pathlib.Path, folder: pathlib.Path, *command: str) -> str:
    """Runs Python in `folder` with the wheel's stunet; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_experiment(installed):
    def names(root: pathlib.Path) -> set[str]:
        return {p.relative_to(root).as_posix() for p in root.rglob("*.py")}

    assert names(installed / "stunet" / "experiments") == names(CHECKOUT / "experiments")
    modules = {n for n in names(installed / "stunet") if not n.startswith("experiments/")}
    assert modules == names(CHECKOUT / "stunet")
    assert {p.name.split("-")[0] for p in installed.iterdir()} == {"stunet"}


def test_the_wheel_holds_weights_where_they_are_found_by_name(installed, tmp_path):
    program = "from stunet.generate import networks; print(networks.shipped())"
    assert run(installed, tmp_path, "-c", program) == "['mini']\n"
    pretrained = installed / "stunet" / "pretrained"
    files = {p.relative_to(pretrained).as_posix() for p in pretrained.rglob("*") if p.is_file()}
    assert files == {"mini/base/params.safetensors"}


def test_the_wheel_finds_its_own_experiments_from_any_folder(installed, tmp_path):
    program = """
import stunet
from stunet import configs
from stunet.configs import experiments
from stunet.sweep import members
print(stunet.__file__)
for entry in experiments.shipped().values():
    print(entry.path)
# This one starts from another, and this sweep from an experiment.
sweep = members.load("temporal_resize_init")
print(configs.load("cascade_keyframes").data.stride, len(sweep.entries))
"""
    *files, last = run(installed, tmp_path, "-c", program).splitlines()
    # Beside the package's own file, all but those that fetch data.
    shipped = [p for p in (CHECKOUT / "experiments").rglob("*.py") if "fetch_" not in p.name]
    assert len(files) == 1 + len(shipped)
    assert all(pathlib.Path(file).is_relative_to(installed) for file in files)
    stride, count = map(int, last.split())
    assert stride == 5
    assert count > 1


@pytest.fixture
def my_folder(tmp_path) -> pathlib.Path:
    """A folder with my_config.py, which docs/how-to/training.md shows."""
    page = (CHECKOUT / "docs" / "how-to" / "training.md").read_text()
    (shown,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_config.py").write_text(shown)
    return tmp_path


def test_a_config_of_the_users_own_is_read_from_any_folder(installed, my_folder):
    program = "from stunet import configs; print(configs.load('my_config.py').data.frames)"
    assert run(installed, my_folder, "-c", program) == "8\n"


@pytest.mark.slow
def test_the_wheel_trains_continues_and_samples(installed, my_folder):
    command = ["-m", "stunet.cli", "train", "--config", "quickstart", "--workdir", "w"]
    command += [f"--config.{key}" for key in SMALL]
    run(installed, my_folder, *command)
    shutil.rmtree(my_folder / "w" / "checkpoints" / "4")
    run(installed, my_folder, *command)
    assert {p.name for p in (my_folder / "w" / "checkpoints").iterdir()} == {"2", "4"}
    sample = ["-m", "stunet.cli", "sample", "text", "--workdir", "w", "--steps", "2"]
    printed = run(installed, my_folder, *sample, "--prompt", "a 7 moving left", "--num", "1")
    assert (my_folder / "w" / "samples" / "a_7_moving_left_seed0.gif").is_file(), printed


def test_the_metadata_suit_a_package_index(installed):
    (file,) = installed.glob("*.dist-info/METADATA")
    metadata = email.message_from_string(file.read_text())
    assert metadata["Version"] == stunet.__version__
    text = metadata.get_payload()
    assert text.startswith("# ")
    assert len(text) > 1000
    # An index has no files of the repository to link to.
    assert all(link.startswith(("http", "#")) for link in re.findall(r"]\(([^)]*)\)", text))
