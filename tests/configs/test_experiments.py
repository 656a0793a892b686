"""Experiments that come with stunet are found by name; a file of the user's always wins."""

import pathlib

import pytest

from stunet import configs
from stunet.configs import experiments
from stunet.errors import UserError
from stunet.sweep import members

ROOT = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """No path of the checkout is a path here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_shipped_file_is_found_by_its_name_and_says_what_it_is():
    shipped = experiments.shipped()
    assert {e.path for e in shipped.values()} | {ROOT / "fetch_real_clips.py"} == {
        *ROOT.rglob("*.py")
    }
    for name, entry in shipped.items():
        assert experiments.find(name, entry.function) == str(entry.path)
        # One sentence on one line, for the listing.
        assert entry.summary.endswith((".", "?"))
        assert len(entry.summary) <= 80


@pytest.mark.parametrize(
    "name", [n for n, e in experiments.shipped().items() if e.function == "get_config"]
)
def test_every_shipped_config_is_read_by_its_name(name):
    assert configs.load(name) == configs.load(str(ROOT / f"{name}.py"))


def test_a_sweep_is_found_with_and_without_its_folder_and_keeps_its_argument():
    path = str(ROOT / "sweeps" / "single_pass_vs_cascade.py")
    for name in ("single_pass_vs_cascade", "sweeps/single_pass_vs_cascade"):
        assert experiments.find(name, "get_sweep") == path
        assert experiments.find(f"{name}:gpu", "get_sweep") == f"{path}:gpu"
    found = members.load("temporal_resize_init")
    assert found == members.load(str(ROOT / "sweeps" / "temporal_resize_init.py"))


def test_a_file_wins_over_a_name(empty_folder):
    file = empty_folder / "quickstart"
    file.write_text("from stunet import configs\nget_config = configs.default\n")
    assert experiments.find("quickstart") == "quickstart"
    assert configs.start_from("quickstart") == configs.default()
    file.unlink()
    assert configs.start_from("quickstart") != configs.default()


@pytest.mark.parametrize(
    ("text", "function", "sentence"),
    [
        ("quickstrat", "get_config", "--config: no file 'quickstrat'.*did you mean 'quickstart'?"),
        ("experiments/quickstart", "get_config", "did you mean 'quickstart'?"),
        ("experiments/quickstart.py", "get_config", "did you mean 'quickstart'?"),
        ("resize_init", "get_sweep", "did you mean 'sweeps/temporal_resize_init'?"),
        ("ucf", "get_protocol", r"--protocol: .* with get_protocol\(\), or one of ucf101_zero"),
        ("../quickstart:gpu", "get_config", "no file '../quickstart', and no experiment of that"),
        ("qqqq", "get_config", "or one of cascade_keyframes, .*quickstart"),
    ],
)
def test_what_is_not_found_gets_one_sentence_with_a_suggestion(text, function, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        experiments.find(text, function)
    assert "\n" not in str(raised.value)


def test_the_listing_has_a_line_for_each():
    lines = experiments.listing("get_sweep").splitlines()
    assert [line.split()[0] for line in lines] == [
        f"sweeps/{path.stem}" for path in sorted((ROOT / "sweeps").glob("*.py"))
    ]
    assert all(line.split("  ", 1)[1].strip() for line in lines)
