"""Text-to-video from the work directory of a run."""

import shutil

import numpy as np
import pytest
import tiny
from from_config import train

from stunet.errors import UserError
from stunet.generate.text import text_to_video


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, quickly_compiled_convolutions):
    workdir = tmp_path_factory.mktemp("runs") / "two_updates"
    train(tiny.config(train=dict(steps=2)), workdir)
    return workdir


def test_a_clip_depends_on_its_prompt_and_place_not_on_other_prompts(workdir):
    prompts = ["a 3 moving left", "a 7 moving up"]
    both, parts = text_to_video(workdir, prompts, seed=5)
    clip = parts.denoiser.clip
    assert both.shape == (2, *clip.shape)
    assert np.abs(both).max() <= 1
    alone, _ = text_to_video(workdir, prompts[:1], seed=5)
    np.testing.assert_allclose(alone[0], both[0], atol=1e-4)
    other, _ = text_to_video(workdir, prompts[:1], seed=6)
    assert np.abs(other[0] - alone[0]).max() > 0.1


def test_progress_and_overridden_settings(workdir):
    seen, estimates = [], []

    def on_step(done, total, clips):
        seen.append((done, total))
        estimates.append(np.asarray(clips))

    clips, _ = text_to_video(workdir, ["x"], steps=3, on_step=on_step)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    # Each step's estimate is another one, and the last is the sample.
    assert np.abs(estimates[0] - estimates[1]).max() > 0.01
    np.testing.assert_array_equal(np.clip(estimates[-1], -1, 1), clips)


def test_run_without_checkpoint(workdir, tmp_path):
    shutil.copy(workdir / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint in .*train first"):
        text_to_video(tmp_path, ["x"])


def test_unknown_sampler_lists_the_choices(workdir):
    with pytest.raises(UserError, match=r"sampler.*ddim"):
        text_to_video(workdir, ["x"], sampler="euler")
