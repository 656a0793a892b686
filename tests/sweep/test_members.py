"""Tests the parts of a sweep: names, products, arms, and what is refused before anything runs."""

import dataclasses
import json
import pathlib

import pytest
import tiny
from from_config import model_flops

from stunet import cli, configs
from stunet.commands.parsing import Command, Group
from stunet.errors import UserError
from stunet.sweep import workdir as workdirs
from stunet.sweep.members import Member, Step, Sweep, arms, find, load, product

SWEEPS = pathlib.Path(__file__).parents[2] / "experiments" / "sweeps"
HEAD = """
import tiny
from stunet.sweep.curves import Curves, Expected
from stunet.sweep.members import Member, Step, Sweep, product
"""


def entry_of(words) -> tuple[Command, list[str]]:
    """The command that the words begin with, and the words that follow."""
    entry, words = cli.STUNET, list(words)
    while isinstance(entry, Group):
        _, entry = entry.choose(words)
        words = words[1:]
    return entry, words


def sweep_file(directory: pathlib.Path, body: str) -> str:
    file = directory / "sweep.py"
    file.write_text(HEAD + body)
    return str(file)


def loaded(directory, grid, name="") -> list:
    body = f"def get_sweep():\n    return product(tiny.config(), {grid!r}, {name!r})\n"
    return load(sweep_file(directory, body)).entries


def test_product_is_every_combination_and_names_say_what_differs(tmp_path):
    grid = {
        "model.channel_multipliers": ((1, 2), (1, 1)),
        "train.batch_size": (8,),
        "seed": (0, 3),
    }
    members = loaded(tmp_path, grid, "a")
    assert [m.name for m in members] == [
        "a,channel_multipliers=1x2,seed=0",
        "a,channel_multipliers=1x2,seed=3",
        "a,channel_multipliers=1x1,seed=0",
        "a,channel_multipliers=1x1,seed=3",
    ]
    for member, values in zip(
        members, [((1, 2), 0), ((1, 2), 3), ((1, 1), 0), ((1, 1), 3)], strict=True
    ):
        config = member.config
        assert (config.model.channel_multipliers, config.seed) == values
        assert config.train.batch_size == 8


def test_keys_of_one_last_name_are_told_apart():
    members = product(tiny.config(), {"data.height": (8, 16), "data.width": (8, 16)})
    assert members[0].name == "height=8,width=8"
    members = product(tiny.config(), {"text.dim": (16, 32), "model.dim": (1, 2)})
    assert members[0].name == "text.dim=16,model.dim=1"


def test_arms_differ_in_more_than_the_seed(tmp_path):
    members = loaded(tmp_path, {"train.learning_rate": (0.1, 0.01), "seed": (1, 12)})
    members += [Member("odd", dataclasses.replace(members[0].config, seed=5))]
    both = ("learning_rate=0.1,seed=12", "learning_rate=0.01,seed=12")
    steps = [
        Step("joint,seed=1", (), ("learning_rate=0.1,seed=1",), "x"),
        Step("joint,seed=12", (), both, "y"),
        Step("all", (), ("odd", *both), "z"),
    ]
    found = arms(members + steps)
    assert found["learning_rate=0.01,seed=1"] == found["learning_rate=0.01,seed=12"]
    assert found["learning_rate=0.01,seed=1"] == "learning_rate=0.01"
    # One arm for its config, whatever its name; called by the first of them.
    assert found["odd"] == found["learning_rate=0.1,seed=1"] == found["learning_rate=0.1,seed=12"]
    assert found["joint,seed=1"] == found["joint,seed=12"] == "joint"
    assert found["all"] == "all"


BEGUN = """
def get_sweep():
    made = []
    for seed in (1, 12):
        first = tiny.config(model=tiny.ONE_LEVEL_KEYS)
        second = tiny.config(
            model=tiny.ONE_LEVEL_KEYS, train=dict(init_from="{sweep}/first,seed=%d" % seed)
        )
        for name, config, after in (("first", first, ()), ("second", second, ("first",))):
            config = dataclasses.replace(config, seed=seed)
            after = tuple(f"{n},seed={seed}" for n in after)
            made.append(Member(f"{name},seed={seed}", config, after=after))
    return made
"""


def test_a_member_may_begin_with_the_weights_of_another_of_the_same_seed(tmp_path):
    sweep = load(sweep_file(tmp_path, "import dataclasses\n" + BEGUN))
    entries = sweep.entries
    assert [entry.after for entry in entries] == [(), ("first,seed=1",), (), ("first,seed=12",)]
    found = arms(entries)
    assert found["second,seed=1"] == found["second,seed=12"] == "second"
    directory, moved = tmp_path / "runs", tmp_path / "moved"
    workdirs.claim(directory, sweep, ["sweep"])
    (_, second, *_) = entries
    begins = configs.read(workdirs.config_file(directory, second)).train.init_from
    assert begins == str(directory / "first,seed=1")
    assert workdirs.read_manifest(directory).entries[1].after == ("first,seed=1",)
    # The sweep continues where its directory was moved.
    directory.rename(moved)
    workdirs.claim(moved, sweep, ["sweep"])


def test_overrides_are_every_members(tmp_path):
    file = sweep_file(
        tmp_path, "def get_sweep(n):\n    return product(tiny.config(), {'seed': range(int(n))})\n"
    )
    flags = ["--config.train.steps=3", "--config.model.channel_multipliers=(1,1)"]
    members = load(f"{file}:3", flags).entries
    assert [m.config.seed for m in members] == [0, 1, 2]
    assert {m.config.train.steps for m in members} == {3}
    assert {m.config.model.channel_multipliers for m in members} == {(1, 1)}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("x = 1", r"sweep.py does not define get_sweep\(\), as the file of a sweep does"),
        (
            "def get_sweep(): return []",
            "must return a list with at least one Member",
        ),
        ("def get_sweep(): return 1 / 0", "ZeroDivisionError: division by zero"),
        (
            "def get_sweep(): return [Member('a', tiny.config(), after=('b',))]",
            "member 'a' needs 'b', which is not before it",
        ),
        (
            "def get_sweep(): return [Member('a', tiny.config()), 3]",
            "a list with 3; it may",
        ),
        (
            "def get_sweep(): return [Member('a', tiny.config())] * 2",
            "two entries .* 'a'",
        ),
        ("def get_sweep(): return [Member('a/b', tiny.config())]", "cannot have the name 'a/b'"),
        ("def get_sweep(): return [Member('..', tiny.config())]", "cannot have the name '..'"),
        (
            "def get_sweep(): return product(tiny.config(), {'data.frames': (4, 5)})",
            "member 'frames=5': data.frames is 5",
        ),
        (
            "def get_sweep(): return product(tiny.config(), {'modl.chanels': (4, 5)})",
            "member 'chanels=4': unknown key 'modl.chanels'; did you mean 'model.channels'?",
        ),
        (
            "def get_sweep(): return [Member('a', tiny.config(data=dict(source='clips')))]",
            "member 'a': data.source is 'clips', and data.path is empty",
        ),
        (
            "def get_sweep(): return [Member('a', tiny.config()), Step('s', (), ('b',), 'x')]",
            "step 's' needs 'b', which is not before it",
        ),
        (
            "def get_sweep():\n"
            "    configs = [tiny.config(train=dict(steps=n)) for n in (1, 2)]\n"
            "    return [Member(n, c, label='one') for n, c in zip('ab', configs)]",
            "'a' and 'b' have the same label 'one'",
        ),
        (
            "def get_sweep():\n"
            "    members = product(tiny.config(), {'seed': (0, 1)}, 'a')\n"
            "    return [Member(m.name, m.config, label=m.name) for m in members]",
            "'a' has the labels 'a,seed=0' and 'a,seed=1'",
        ),
        (
            "def get_sweep(): return Sweep([Member('a', tiny.config())], predictions='it falls')",
            "predictions of Sweep are 'it falls'; give a tuple of str",
        ),
        (
            "def get_sweep(): return Sweep([Member('a', tiny.config())], curves=(3,))",
            r"curves of Sweep are \(3,\); give a tuple of Curves",
        ),
        (
            "def get_sweep(): return Curves('t', ('coherrent',), ('speed',), (0, 1), 'x')",
            "unknown metric in metrics of Curves 'coherrent'; did you mean 'coherent'",
        ),
        (
            "def get_sweep(): return Curves('t', ('coherent',), 'speed', (0, 1), 'x')",
            "over of Curves is 'speed'; give a tuple of metrics",
        ),
        (
            "def get_sweep(): return Curves('t', ('coherent',), ('speed',), (1, 0), 'x')",
            r"bins of Curves are \(1, 0\); give two or more ascending edges",
        ),
        (
            "def get_sweep(): return Curves('t', ('coherent',), ('speed',), (0, 1), 'x', 0)",
            "scale of Curves is 0; give a positive number",
        ),
        (
            "def get_sweep():\n"
            "    entries = [Member('a', tiny.config(), label='one')]\n"
            "    pairs = (('one', 'on'),)\n"
            "    curves = Curves('t', ('coherent',), ('speed',), (0, 1), 'x', pairs=pairs)\n"
            "    return Sweep(entries, (curves,))",
            "unknown label in pairs of Curves 'on'; did you mean 'one'",
        ),
        (
            "def get_sweep():\n"
            "    entries = [Member('a', tiny.config(), label='one')]\n"
            "    expected = (Expected('on', 'coherent', (0.5,)),)\n"
            "    curves = Curves('t', ('coherent',), ('speed',), (0, 1), 'x', expected=expected)\n"
            "    return Sweep(entries, (curves,))",
            "unknown label in expected of Curves 'on'; did you mean 'one'",
        ),
        (
            "def get_sweep():\n"
            "    entries = [Member('a', tiny.config(), 'slow', 'one')]\n"
            "    expected = (Expected('one', 'coherent', (0.5,), 'slo'),)\n"
            "    curves = Curves('t', ('coherent',), ('speed',), (0, 1), 'x', expected=expected)\n"
            "    return Sweep(entries, (curves,))",
            "unknown group in expected of Curves 'slo'; did you mean 'slow'",
        ),
        (
            "def get_sweep():\n"
            "    expected = (Expected('one', 'coherent', (0.5, 0.2)),)\n"
            "    return Curves('t', ('coherent',), ('speed',), (0, 1), 'x', expected=expected)",
            r"expected of Curves has \(0.5, 0.2\) for 'one'; give a number for each of the 1 bins",
        ),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, body, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        load(sweep_file(tmp_path, body))
    assert "\n" not in str(raised.value)


def test_the_question_and_the_labels_are_noted(tmp_path):
    body = "def get_sweep(): return [Member('a', tiny.config(), 'slow', 'single pass')]\n"
    file = sweep_file(tmp_path, body)
    assert load(file).question == ""
    pathlib.Path(file).write_text(f'"""Is it so?\n\nMore."""\n{HEAD}{body}')
    workdirs.claim(tmp_path / "sweep", load(file), ["sweep"])
    manifest = workdirs.read_manifest(tmp_path / "sweep")
    assert manifest.question == "Is it so?"
    assert [(e.group, e.label) for e in manifest.entries] == [("slow", "single pass")]
    # The manifests of earlier versions have neither.
    noted = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    del noted["question"], noted["entries"][0]["label"]
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(noted))
    assert workdirs.read_manifest(tmp_path / "sweep").question == ""


CURVED = """
def get_sweep(label='limit'):
    curves = Curves(
        'Over speed', ('coherent',), ('speed',), (0, 1.5, 2), 'speed', 0.5, ((1, label),)
    )
    return Sweep([Member('a', tiny.config())], (curves,), ('It falls.', 'At 1.'))
"""


def test_curves_and_predictions_are_noted(tmp_path):
    file, directory = sweep_file(tmp_path, CURVED), tmp_path / "sweep"
    found = load(file)
    workdirs.claim(directory, found, ["sweep"])
    manifest = workdirs.read_manifest(directory)
    assert manifest.curves == found.curves
    assert [p.sentence for p in manifest.predictions] == ["It falls.", "At 1."]
    # Other curves replace them: the report alone depends on them.
    workdirs.claim(directory, load(f"{file}:other"), ["sweep"])
    assert workdirs.read_manifest(directory).curves[0].marks == ((1.0, "other"),)


def test_predictions_stay_once_training_has_begun(tmp_path, monkeypatch):
    found, directory = load(sweep_file(tmp_path, CURVED)), tmp_path / "sweep"

    def noted_at(time, *predictions):
        monkeypatch.setattr(workdirs.time, "time", lambda: time)
        workdirs.claim(directory, dataclasses.replace(found, predictions=predictions), ["sweep"])
        noted = workdirs.read_manifest(directory).predictions
        return [(prediction.sentence, prediction.noted) for prediction in noted]

    assert noted_at(1.0, "It falls.") == [("It falls.", 1.0)]
    # Before any training they may be reworded, and what stays keeps its time.
    assert noted_at(2.0, "It falls.", "It rises.") == [("It falls.", 1.0), ("It rises.", 2.0)]
    assert noted_at(3.0, "It falls.") == [("It falls.", 1.0)]
    (directory / "a").mkdir(exist_ok=True)
    (directory / "a" / "clock.json").write_text('{"began": 3.5}')
    assert noted_at(4.0, "It rises.") == [("It falls.", 1.0), ("It rises.", 4.0)]


def test_a_member_that_does_not_exist_suggests_the_nearest(tmp_path):
    body = "def get_sweep():\n    return product(tiny.config(), {'seed': range(5)})\n"
    file = sweep_file(tmp_path, body)
    assert find(file, "seed=3").config.seed == 3
    with pytest.raises(UserError, match=r"has no member 'seed=44'; did you mean 'seed=4'"):
        find(file, "seed=44")
    with pytest.raises(UserError, match=r"has no member 'x'; its members are .*'seed=2' and 2 mo"):
        find(file, "x")


def test_directory_of_another_sweep_or_run_is_refused(tmp_path):
    directory = tmp_path / "sweep"
    two = loaded(tmp_path, {"seed": (0, 1)})
    step = Step("s", ("report", "{sweep}"), ("seed=0",), "x")
    workdirs.claim(directory, Sweep([*two, step]), ["sweep"])
    before = (directory / "sweep.json").read_text()
    other = [Member(m.name, dataclasses.replace(m.config, seed=7)) for m in two]
    for entries, sentence in (
        ([*other, step], "in member seed=0, seed is 0 there and 7 here"),
        ([two[0], step], "seed=1 is there and not here"),
        ([*two, dataclasses.replace(step, command=("plan",))], "step s has another command there"),
    ):
        with pytest.raises(UserError, match=sentence):
            workdirs.claim(directory, Sweep(entries), ["sweep"])
    assert (directory / "sweep.json").read_text() == before
    # It may grow, and what no update depends on may change.
    grown = loaded(tmp_path, {"seed": (0, 1, 2), "log.every": (9,)})
    workdirs.claim(directory, Sweep([*grown, step]), ["another"])
    assert configs.read(directory / "seed=0" / "config.json").log.every == 9
    manifest = workdirs.read_manifest(directory)
    assert [e.name for e in manifest.entries] == ["seed=0", "seed=1", "seed=2", "s"]
    assert manifest.command == ("sweep",)

    # What its training has noted since of the text encoder stays.
    file = directory / "seed=0" / "config.json"
    config = configs.read(file)
    text = dataclasses.replace(config.text, encoder="t5:/weights", fingerprint="abc")
    configs.write(dataclasses.replace(config, text=text), file)
    encoded = [
        Member(
            m.name, dataclasses.replace(m.config, text=dataclasses.replace(text, fingerprint=""))
        )
        for m in grown[:1]
    ]
    workdirs.claim(directory, Sweep([*encoded, *grown[1:], step]), ["again"])
    assert configs.read(file).text.fingerprint == "abc"

    configs.write(tiny.config(), tmp_path / "run" / "config.json")
    with pytest.raises(UserError, match="holds a single training run"):
        workdirs.claim(tmp_path / "run", Sweep(two), ["sweep"])


def test_damaged_manifest_is_named(tmp_path):
    for text in ("{", "[]", json.dumps({"entries": [{"nam": 1}]})):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(UserError, match=r"sweep\.json is not a sweep"):
            workdirs.read_manifest(tmp_path)


def test_resolved_config_loads_as_an_experiment_does(tmp_path):
    config = tiny.config()
    configs.write(config, tmp_path / "config.json")
    file = str(tmp_path / "config.json")
    assert configs.load(file) == config
    changed = configs.load(file, ["--config.train.steps=3", "--config.log.validate_times=(0.5,)"])
    assert (changed.train.steps, changed.log.validate_times) == (3, (0.5,))
    with pytest.raises(UserError, match=r"did you mean 'train\.steps'"):
        configs.load(file, ["--config.train.stepz=3"])
    (tmp_path / "config.json").write_text("{]")
    with pytest.raises(UserError, match="is not a config"):
        configs.load(file)


COUNT_OPERATIONS = ("single_pass_vs_cascade", "inflation_recipe")


@pytest.mark.parametrize(
    "file",
    [
        # Some count the operations of many networks.
        pytest.param(file, marks=[pytest.mark.slow] * (file.stem in COUNT_OPERATIONS))
        for file in sorted(SWEEPS.glob("*.py"))
    ],
    ids=lambda file: file.stem,
)
def test_shipped_sweeps_are_sweeps(file):
    entries = load(str(file)).entries
    assert len(set(arms(entries).values())) > 1
    for entry in entries:
        if isinstance(entry, Step):
            command, words = entry_of(entry.command)
            command.parser("stunet").parse(words)
    if file.stem == "temporal_downsampling":
        members = [e for e in entries if isinstance(e, Member)]
        configs_of_seed_0 = [member.config for member in members if member.config.seed == 0]
        flops = [config.train.steps * model_flops(config) for config in configs_of_seed_0]
        assert len(flops) == 2
        assert max(flops) / min(flops) < 1.05
