"""An exported run makes the clips of `stunet sample` in TensorFlow, without JAX."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import stand_in
import tiny

from stunet import cli
from stunet.data.sources import make_encoder
from stunet.export.programs import make_programs
from stunet.generate import text
from stunet.train.parts import make_parts
from stunet.train.saved import weights_file

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
PROMPTS = ["a 3 moving left", "a 7", "a 5"]
# One level, which compiles fast. It sees all frames, and the caption in its time embedding.
CONFIG = tiny.config(
    model=dict(channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,)),
    sample=dict(steps=3, threshold="static"),
)
with_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None
    or importlib.util.find_spec("orbax.export") is None,
    reason="TensorFlow or orbax-export is not installed",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    stand_in.save(CONFIG, workdir, step=7)
    return workdir


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    """Exports a run, and returns the directory and the finished process.

    It is another process, so that this one does not load TensorFlow.
    """
    out = tmp_path_factory.mktemp("place") / "runs" / "savedmodel"
    prompts = (word for p in PROMPTS[:2] for word in ("--prompt", p))
    own = ["--format", "savedmodel", "--guidance", 3, *prompts]
    run = tiny.run("export", "--workdir", workdir, "--out", out, *own)
    assert run.returncode == 0, run.stderr
    return out, run


@pytest.fixture(scope="module")
def inputs():
    """Returns the denoiser's inputs for five clips."""
    states, mask = make_encoder(make_parts(CONFIG).denoiser.text)([*PROMPTS, *PROMPTS[:2]])
    x_t = np.random.default_rng(0).standard_normal((5, 4, 8, 8, 1), np.float32)
    return dict(x_t=x_t, time=np.linspace(0.1, 1, 5, dtype=np.float32), text=states, text_mask=mask)


@pytest.fixture(scope="module")
def found(exported, inputs):
    """Runs the example of the documentation, and more, without JAX and this package."""
    place = exported[0].parents[1]
    np.savez(place / "inputs.npz", **inputs)
    # The example makes 2 clips from the states of the prompts.
    (lines,) = re.findall(r"```python\n(import tensorflow.*?)```", DOCS.read_text(), re.DOTALL)
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("jax", "jaxlib", "stunet", "flax", "orbax")))
{lines}
import numpy as np
inputs = dict(np.load("inputs.npz"))
later = sampler(
    text=inputs["text"][1:4],
    text_mask=inputs["text_mask"][1:4],
    seed=tf.constant(5, tf.uint32),
    first_row=tf.constant(1),
)
denoiser = model.signatures["denoiser"]
few, many = denoiser(**{{k: v[:1] for k, v in inputs.items()}}), denoiser(**inputs)
np.savez(
    "found.npz", clips=clips, later=later["clips"], few=few["output"], many=many["output"]
)
"""
    # The tests' XLA options apply, which TensorFlow's XLA knows too.
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=place
    )
    assert run.returncode == 0, run.stderr
    return np.load(place / "found.npz")


@pytest.mark.slow
@with_tensorflow
def test_it_samples_the_clips_of_stunet_sample(workdir, found):
    expected = text.text_to_video(workdir, PROMPTS, seed=5, guidance_scale=3.0)[0]
    assert found["clips"].dtype == np.float32
    # Tolerant, because two versions of XLA round differently.
    np.testing.assert_allclose(found["clips"], expected[:2], atol=2e-5)
    # Clips 1 and 2 of three, and one more, made in a separate call.
    np.testing.assert_allclose(found["later"][:2], expected[1:], atol=2e-5)


@pytest.mark.slow
@with_tensorflow
def test_its_denoiser_is_the_network(workdir, found, inputs):
    run = text.load(workdir)
    denoise = jax.jit(
        make_programs(run.parts.denoiser, run.parts.sampling, run.params)["denoiser"].function
    )
    expected = denoise(weights_file.cast(run.params, None), *inputs.values())
    np.testing.assert_allclose(found["many"], expected, atol=2e-5)
    np.testing.assert_allclose(found["few"], expected[:1], atol=2e-5)


@pytest.mark.slow
@with_tensorflow
def test_the_card_and_the_files(exported):
    directory, run = exported
    card = json.loads((directory / "card.json").read_text())
    assert card["format"] == "stunet savedmodel"
    assert card["training_step"] == 7
    assert card["sampling"]["guidance_scale"] == 3.0
    assert card["prompts"]["captions"] == PROMPTS[:2]
    assert card["programs"]["sampler"]["signature"] == "sampler"
    files = {str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file()}
    assert {"card.json", "prompts.safetensors", "saved_model.pb"} < files
    assert all(name in run.stdout for name in files)
    # TensorFlow prints nothing unless something is wrong.
    assert run.stderr == ""
    # The files may be given to others, so they hold no paths of this machine.
    assert str(pathlib.Path(cli.__file__).parents[1]).encode() not in (
        (directory / "saved_model.pb").read_bytes()
    )


@pytest.mark.slow
@with_tensorflow
def test_a_disk_that_is_full(workdir, small_disk):
    disk = small_disk(100)
    own = ["--format", "savedmodel", "--out", disk / "out"]
    run = tiny.run("export", "--workdir", workdir, *own)
    assert run.returncode == 1
    assert f"the disk that holds {disk} is full" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not list(disk.iterdir())


@pytest.mark.parametrize("absent", ["tensorflow", "orbax.export"])
def test_without_tensorflow_it_says_what_to_install(workdir, tmp_path, capsys, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    out = tmp_path / "above" / "out"
    arguments = ["export", "--workdir", workdir, "--out", out, "--format", "savedmodel"]
    assert cli.main([str(a) for a in arguments]) == 1
    said = capsys.readouterr().err
    assert re.search(r"needs TensorFlow and orbax-export \(.+\); .*'stunet\[savedmodel\]'", said)
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@with_tensorflow
def test_nothing_else_imports_tensorflow():
    rooms = "data.sources, train.loop, generate.tasks, evaluate.run, export.stablehlo, cli"
    modules = ", ".join(f"stunet.{room}" for room in rooms.split(", "))
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
