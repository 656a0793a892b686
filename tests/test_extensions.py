"""A config may name objects that users wrote: checked, imported only if trusted, and used."""

import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from stunet import configs, extensions
from stunet.diffusion import samplers
from stunet.diffusion.schedules import NoiseSchedule
from stunet.diffusion.times import Times
from stunet.errors import UserError
from stunet.train.parts import make_parts

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how-to" / "extend.md"
SECTION = re.search(r"^## Without changing stunet\n(.*?)^## ", PAGE.read_text(), re.M | re.S)[1]
BLOCKS = dict(reversed(re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.M | re.S)))

# stunet's own objects under other names, and objects that lack something.
MODULE = """
from stunet.diffusion.loss import WEIGHTINGS
from stunet.diffusion.samplers import SAMPLERS
from stunet.diffusion.schedules import SCHEDULES
from stunet.diffusion.times import QUANTILES
from stunet.train.optim.learning_rates import SCHEDULES as RATES
from stunet.train.optim.methods import METHODS

lion, inverse_sqrt = METHODS["lion"], RATES["inverse_sqrt"]
ancestral, linear = SAMPLERS["ancestral"], SCHEDULES["linear"]
cosmap, uniform = QUANTILES["cosmap"], WEIGHTINGS["uniform"]

class NoGrid:
    num_kept, calls, may_churn = 0, 1, False
    update = keep = staticmethod(lambda step: step.x)

def short(u):
    return u

number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes the package `somebody`, which is trusted."""
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "recipe.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(extensions.TRUST, "another, somebody")
    yield
    for name in [name for name in sys.modules if name.startswith("somebody")]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_an_object_under_another_name_is_the_same():
    own, builtin = NoiseSchedule("somebody.recipe:linear"), NoiseSchedule("linear")
    t = jnp.linspace(0, 1, 9)
    np.testing.assert_array_equal(own(t), builtin(t))
    np.testing.assert_array_equal(own.time(own(t)), builtin.time(builtin(t)))
    key, shape = jax.random.key(1), (8, 4, 4, 4, 1)
    for corrected in (False, True):
        drawn = [
            Times(name, corrected=corrected).draw(key, shape)
            for name in ("somebody.recipe:cosmap", "cosmap")
        ]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
    noise = jax.random.normal(key, shape)
    clips = [
        samplers.sample(lambda x, t: 0.5 * x, noise, key, schedule=own, sampler=name, steps=4)
        for name in ("somebody.recipe:ancestral", "ancestral")
    ]
    np.testing.assert_array_equal(*clips)
    updates = []
    for keys in (
        dict(optimizer="somebody.recipe:lion", schedule="somebody.recipe:inverse_sqrt"),
        dict(optimizer="lion", schedule="inverse_sqrt"),
    ):
        made = make_parts(tiny.config(train=keys)).optimizer.transformation
        params = {"x": {"kernel": jnp.ones(3)}}
        updates.append(made.update(params, made.init(params), params))
    jax.tree.map(np.testing.assert_array_equal, *updates)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("key", "name", "sentence"),
    [
        ("sample.sampler", "somebody.recipe:gone", "somebody.recipe has no gone"),
        ("sample.sampler", "somebody.missing:ddim", "cannot be imported .ModuleNotFoundError"),
        ("sample.sampler", "somebody.recipe:NoGrid", "no sampler: it has no function 'grid'"),
        ("sample.sampler", "somebody.recipe:number", "no sampler: it has no attribute 'num_kept'"),
        ("diffusion.time_sampling", "somebody.recipe:number", "time sampling: it cannot be called"),
        ("diffusion.time_sampling", "somebody.recipe:short", r"does not take \(u, mean, std\)"),
        ("diffusion.schedule", "somebody.recipe:short", "no function 'log_snr'"),
        ("train.optimizer", "somebody.recipe:short", "no optimizer: it has no attribute 'around'"),
        ("train.schedule", "somebody.recipe:number", "no learning rate: it cannot be called"),
        ("data.source", "somebody.recipe:short", r"does not take \(split, .*, \*, path\)"),
        # Neither a choice nor a name of this form.
        ("sample.sampler", "somebody.recipe", "choose one of 'ddim'"),
        ("sample.sampler", "somebody/recipe.py:ddim", "choose one of 'ddim'"),
        ("model.activation", "somebody.recipe:short", "choose one of 'gelu', 'silu'"),
    ],
)
def test_a_config_that_names_a_wrong_object_is_refused(key, name, sentence):
    with pytest.raises(UserError, match=f"^{key}.*{sentence}"):
        configs.replace(tiny.config(), {key: name})


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("trusted", ["", "some", "somebody.recipe", "recipe", "somebodyelse"])
def test_no_module_is_imported_that_is_not_trusted(trusted, monkeypatch):
    monkeypatch.setenv(extensions.TRUST, trusted)
    values = {
        "sample.sampler": "somebody.recipe:ancestral",
        "diffusion.schedule": "somebody.recipe:linear",
        "diffusion.time_sampling": "somebody.recipe:cosmap",
        "diffusion.weighting": "somebody.recipe:uniform",
        "train.optimizer": "somebody.recipe:lion",
        "train.schedule": "somebody.recipe:inverse_sqrt",
    }
    for key, name in values.items():
        # It can be looked at, and not used.
        config = configs.replace(tiny.config(), {key: name})
        if not key.startswith("sample.") and "weighting" not in key:
            with pytest.raises(UserError, match="add --trust somebody to the command"):
                make_parts(config)
    with pytest.raises(UserError, match="add --trust somebody to the command"):
        samplers.find(values["sample.sampler"])
    assert "somebody" not in sys.modules


def test_the_recipe_of_the_docs_runs(tmp_path):
    (tmp_path / "my_recipe.py").write_text(BLOCKS["python"])
    _, train, evaluate = BLOCKS[""].strip().splitlines()

    def run(line: str, *more: str) -> subprocess.CompletedProcess:
        command = tiny.command(*shlex.split(line)[1:], *more)
        path = str(pathlib.Path(extensions.__file__).parents[1])
        environment = tiny.environment() | {"PYTHONPATH": f"{path}:."}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    few = ("--config.train.steps=3", "--config.log.every=1", "--config.log.validate_every=0")
    trained = run(train, *few)
    assert trained.returncode == 0, trained.stderr
    notes = (tmp_path / "runs" / "mine" / "notes.txt").read_text().splitlines()
    assert [line.split()[0] for line in notes] == ["mine", "1", "2", "3"]
    assert all(" loss=" in line and " system/busy_cores=" in line for line in notes[1:])
    judged = run(evaluate)
    assert judged.returncode == 0, judged.stderr
    (row,) = [line for line in judged.stdout.splitlines() if line.startswith("growth (share")]
    # Real squares grow from 1 to 16 of 64 pixels.
    assert row.split()[-1] == f"{15 / 64:.2f}"
    untrusted = run("stunet sample text --workdir runs/mine --prompt x")
    assert untrusted.returncode == 1
    assert untrusted.stderr.count("\n") == 1
    assert "add --trust my_recipe to the command" in untrusted.stderr
    report = run("stunet report runs/mine --trust my_recipe")
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "runs" / "mine" / "report.html").read_text()
    assert re.search(r">Growth <small>share of the frame<.*>the change of the bright area<", page)
