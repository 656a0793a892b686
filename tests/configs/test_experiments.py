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
    fetching = {ROOT / "fetch_handwriting.py", ROOT / "fetch_real_clips.py"}
    assert {e.path for e in shipped.values()} | fetching == {*ROOT.rglob("*.py")}
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


def test_an_experiment_for_one_gpu_has_a_size_for_each_memory():
    small, large = (configs.load(f"one_gpu:{size}") for size in ("24gb", "80gb"))
    assert configs.load("one_gpu") == small
    assert (small.data.frames, small.data.height, small.diffusion.shift) == (16, 64, 0.5)
    assert (large.data.frames, large.data.height, large.diffusion.shift) == (32, 128, 0.25)
    with pytest.raises(UserError, match="there is no size '40gb'; the sizes are 24gb and 80gb"):
        configs.load("one_gpu:40gb")


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


@pytest.fixture
def folder(empty_folder):
    """A folder of a user's, with files that may be taken for configs."""
    config = "from stunet import configs\nget_config = configs.default\n"
    member = "type('Member', (), {'name': f'seed={i}', 'config': None})()"
    sweep = f"def get_sweep(count='5'): return [{member} for i in range(int(count))]\n"
    files = {
        "mine.py": config,
        "mine.yaml": "train:\n",
        "notes.txt": "",
        "sweep.py": sweep,
        "broken_sweep.py": "def get_sweep(): return 1 / 0\n",
        "protocol.py": "def get_protocol(): pass\n",
        "helper.py": "x = 1\n",
        "exits.py": "raise SystemExit(2)\n",
        "none.py": "def get_config(): pass\n",
        "evaluation.json": '{"metrics": {"fvd": 1.0}}',
        "list.json": "[1]",
        "broken.json": "{",
    }
    for name, text in files.items():
        (empty_folder / name).write_text(text)
    configs.write(configs.Config(), empty_folder / "run" / "config.json")
    return empty_folder


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("mine", "--config: no file 'mine'; did you mean 'mine.py'?"),
        ("mine.yaml", "--config: 'mine.yaml' is not a Python file; did you mean 'mine.py'?"),
        (
            "notes.txt",
            "--config: 'notes.txt' is not a Python file; give a Python file with get_",
        ),
        ("run", "--config: 'run' is a directory; did you mean 'run/config.json'?"),
        (".", "--config: '.' is a directory; give a Python file with get_config()"),
        ("", "--config: '.' is a directory; give a Python file with get_config()"),
        ("sweep.py", "--config: sweep.py is a sweep, not an experiment; `stunet train --config "),
        (
            "sweep.py",
            "--member NAME` trains one of its members ('seed=0', 'seed=1', 'seed=2' and 2",
        ),
        ("sweep.py:9", "('seed=0', 'seed=1', 'seed=2' and 6 more), `stunet sweep --config sweep.p"),
        ("broken_sweep.py", "members (which cannot be listed: ZeroDivisionError)"),
        ("protocol.py", "is a protocol, not an experiment; `stunet evaluate --protocol protocol.p"),
        ("helper.py", "helper.py does not define get_config(), as the file of an experiment does"),
        ("exits.py", "exits.py: SystemExit: 2"),
        ("none.py", "none.py: get_config() returns None; it must return what `configs.default()`"),
        ("evaluation.json", "--config: evaluation.json is not a config of this version of stunet"),
        ("evaluation.json", "(unknown key 'metrics.fvd'; "),
        ("list.json", "(list.json is damaged: expected object, got array); the config of a run is"),
        ("broken.json", "--config: broken.json is not a config of this version of stunet"),
    ],
)
def test_what_is_no_config_gets_one_sentence_with_what_to_do(folder, path, sentence):
    with pytest.raises(UserError) as raised:
        configs.load(path)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_config_is_no_sweep(folder):
    sentence = r"mine.py is an experiment, not a sweep; `stunet train --config mine.py` trains it"
    with pytest.raises(UserError, match=sentence):
        members.load("mine.py")
