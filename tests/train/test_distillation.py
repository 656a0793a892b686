"""A run that is distilled from another run: its loss, its teacher, its resumption, its refusals."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
import tiny
from from_config import abstract_state, make_mesh, model_flops, train

from stunet import configs
from stunet.diffusion import distillation
from stunet.diffusion.loss import clip_loss
from stunet.diffusion.prediction import add_noise, to_x0
from stunet.errors import UserError
from stunet.generate.text import text_to_video
from stunet.nn import parameters
from stunet.nn.stunet import STUNet
from stunet.parallel import mesh as meshes
from stunet.train.parts import make_parts, read_parts
from stunet.train.saved import initial
from stunet.train.saved.checkpoints import Checkpoints

SAMPLE = dict(steps=0, guidance_scale=1.0)
KINDS = {
    "masks": dict(masks=dict(image=1.0)),
    "upscale": dict(upscale=dict(factor=2)),
    "keyframes": dict(tsr=dict(stride=3)),
}


def student(teacher="teacher", **groups):
    """Returns the config of a run that is distilled to 2 steps from the run in `teacher`."""
    groups = {"model": tiny.ONE_LEVEL_KEYS, "sample": SAMPLE} | groups
    groups["train"] = dict(init_from=str(teacher), steps=4) | groups.get("train", {})
    groups["distil"] = dict(steps=2, teacher_steps=8) | groups.get("distil", {})
    return tiny.config(checkpoint=dict(every=2, keep=9), **groups)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    workdir.mkdir()
    stand_in.save(tiny.config(model=tiny.ONE_LEVEL_KEYS), workdir, step=7)
    return workdir


@pytest.fixture(scope="module")
def workdir(teacher, quickly_compiled_convolutions):
    workdir = teacher.parent / "student"
    train(student(teacher), workdir)
    return workdir


def restored(workdir):
    """Returns the state of a run, with the names of its weights."""
    parts = read_parts(workdir)
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(abstract_state(parts.config, mesh)).state
    return {key: parameters.flatten(getattr(state, key)) for key in ("params", "ema", "teacher")}


def formula(self, variables, inputs, time, text, mask):
    """Stands in for a network with one parameter: its output depends on all of its inputs."""
    words = jnp.sum(text * mask[..., None], axis=(1, 2))
    shift = (jnp.sin(words) + time).reshape(-1, 1, 1, 1, 1)
    return jnp.tanh(variables["params"] * inputs + shift)


def test_the_loss_is_that_of_one_step_to_where_the_teachers_and_the_students_steps_lead(
    monkeypatch,
):
    monkeypatch.setattr(STUNet, "apply", formula)
    parts = make_parts(student(distil=dict(guidance_scale=3.0)))
    denoiser, schedule, rng = parts.denoiser, parts.denoiser.schedule, np.random.default_rng(2)
    x0, noise = (
        jnp.asarray(rng.normal(size=denoiser.clip_shape(4)), jnp.float32) for _ in range(2)
    )
    text, t = jnp.asarray(rng.normal(size=(4, 5, 16)), jnp.float32), jnp.linspace(0.1, 1, 4)
    # The third caption is dropped, so guidance changes nothing there.
    mask = jnp.ones((4, 5), bool).at[2].set(False)

    def estimate(param, x, t, mask):
        output = formula(None, {"params": param}, x, t, text, mask)
        return to_x0(denoiser.prediction, output, x, schedule(t))

    def guided(x, t):
        with_text, without = estimate(0.5, x, t, mask), estimate(0.5, x, t, mask & False)
        return jnp.clip(without + 3.0 * (with_text - without), -1, 1)

    times = parts.objective.distillation.times(t)
    x_t = add_noise(x0, noise, schedule(times.t))
    student_alone = lambda x, t: jnp.clip(estimate(0.8, x, t, mask), -1, 1)  # noqa: E731
    targets = distillation.targets(guided, student_alone, x_t, times, schedule)
    expected = clip_loss(
        lambda x, t: formula(None, {"params": 0.8}, x, t, text, mask),
        *(targets[0], times.t, targets[1]),
        schedule=schedule,
        prediction=denoiser.prediction,
        weighting=parts.config.diffusion.weighting,
    )
    found = parts.objective.loss(0.8, x0, (), t, noise, text, mask, teacher=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_conditioning_can_be_distilled(kind):
    parts = make_parts(student(distil=dict(guidance_scale=3.0), **KINDS[kind]))
    params = jax.eval_shape(lambda key: meshes.unbox(parts.denoiser.init_params(key)), KEY)
    clips = jax.ShapeDtypeStruct(parts.denoiser.clip_shape(4), jnp.uint8)
    _, *shapes = parts.denoiser.abstract_arguments(4)
    batch = dict(video=clips, text=shapes[1], text_mask=shapes[2])
    drawn = jax.eval_shape(parts.objective.draw, KEY, batch)
    loss = jax.eval_shape(
        lambda params, drawn: parts.objective.loss(params, *drawn, teacher=params), params, drawn
    )
    assert loss.shape == (4,)


KEY = jax.eval_shape(lambda: jax.random.key(0))


def test_the_teacher_is_what_the_run_begins_with_and_stays(teacher, workdir):
    begun = load_ema(teacher)
    found = restored(workdir)
    for name, leaf in found["teacher"].items():
        np.testing.assert_array_equal(leaf, begun[name], err_msg=name)
    trained = [name for name, leaf in found["params"].items() if np.any(leaf != begun[name])]
    assert len(trained) > len(begun) / 2


def load_ema(workdir):
    parts = read_parts(workdir)
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        return parameters.flatten(checkpoints.restore_ema(abstract_state(parts.config, mesh)).ema)


def test_a_continued_run_is_the_same_bit_for_bit_without_the_teachers_directory(
    teacher, workdir, tmp_path
):
    again = tmp_path / "student"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "4")
    aside = teacher.rename(tmp_path / "aside")
    try:
        train(student(teacher), again)
    finally:
        aside.rename(teacher)
    jax.tree.map(np.testing.assert_array_equal, restored(again), restored(workdir))


def test_it_samples_in_its_steps_unless_told_otherwise(workdir):
    seen = []
    text_to_video(workdir, ["a 3"], on_step=lambda *step: seen.append(step[:2]))
    assert seen == [(1, 2), (2, 2)]
    assert read_parts(workdir, steps=5).sampling.steps == 5
    assert make_parts(tiny.config(sample=dict(steps=0))).sampling.steps == 50


def test_the_teacher_is_sharded_as_the_student_and_adapters_have_a_small_one():
    config = student(mesh=dict(data=1, fsdp=2))
    mesh = meshes.abstract_mesh(make_parts(config).layout, 2)
    state = abstract_state(config, mesh)
    assert jax.tree.leaves(state.teacher) == jax.tree.leaves(state.params)
    adapted = abstract_state(tiny.with_lora(config, rank=1), mesh)
    assert jax.tree.structure(adapted.teacher) == jax.tree.structure(adapted.params)
    assert not abstract_state(tiny.config(), make_mesh(tiny.config())).teacher


@pytest.mark.parametrize(("scale", "passes"), [(1.0, 5), (2.0, 6)])
def test_operations_count_the_teacher_and_the_students_own_step(scale, passes):
    config = student(distil=dict(guidance_scale=scale))
    parts = make_parts(config)
    assert 3 + parts.objective.more_passes == passes
    assert model_flops(config) * 3 == passes * model_flops(tiny.config(model=tiny.ONE_LEVEL_KEYS))


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (dict(diffusion=dict(shift=0.5)), "cannot teach this one: diffusion.shift is 1.0 there"),
        (
            dict(diffusion=dict(prediction="eps")),
            "other weights: diffusion.prediction is 'v'",
        ),
        (dict(model=tiny.ONE_LEVEL_KEYS | dict(channels=16)), "other weights: model.channels is 8"),
        (dict(masks=dict(image=1.0)), r"cannot teach this one: masks.image is 0.0 there"),
        (dict(train=dict(init_from="nowhere")), "nowhere holds no training run"),
    ],
)
def test_another_network_is_no_teacher(teacher, groups, problem):
    config = student(teacher, **groups)
    mesh = make_mesh(config)
    with meshes.use(mesh), pytest.raises(UserError, match=problem):
        initial.check(make_parts(config), mesh)


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (dict(train=dict(init_from="")), "distil.steps is 2 and train.init_from empty"),
        (dict(distil=dict(teacher_steps=9)), "distil.teacher_steps is 9; it must be a multiple"),
        (dict(sample=SAMPLE | dict(sampler="heun")), "set sample.sampler to it"),
        (
            dict(distil=dict(guidance_scale=3.0), sample=SAMPLE | dict(guidance_scale=2.0)),
            "has learnt the guided estimates: set sample.guidance_scale to 1",
        ),
    ],
)
def test_settings_that_do_not_fit_together(groups, problem):
    with pytest.raises(UserError, match=problem):
        configs.resolve(dataclasses.asdict(student(**groups)))
