"""A run as the Hugging Face hub shows models: written, uploaded to a stand-in, loaded offline."""

import dataclasses
import json
import shutil
import sys
from typing import ClassVar

import huggingface_hub
import numpy as np
import pytest
import stand_in
import tiny
import tiny_autoencoder
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import stunet
from stunet import cli, configs
from stunet.data.sources import held_out_captions
from stunet.errors import UserError
from stunet.export import hub
from stunet.generate import networks, upscale
from stunet.generate.hub import _check_paths
from stunet.generate.text import text_to_video
from stunet.nn import autoencoder
from stunet.train.parts import read_parts
from stunet.train.saved import weights_file

PROMPTS = ["a 3 moving <left>", "a 7"]
REPO = "someone/digits"
REVISION = "0123456789abcdef0123456789abcdef01234567"
# One level, which compiles fast.
CONFIG = tiny.config(
    model=dict(channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,)),
    sample=dict(steps=2, threshold="static"),
    data=dict(path="/home/me/handwriting.npz"),
)


class Api:
    """Stands in for `huggingface_hub.HfApi`, and lists its calls."""

    calls: ClassVar[list] = []

    def create_repo(self, repo, **options):
        self.calls.append(("create_repo", repo, options))
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, *, folder_path, **options):
        files = sorted(str(p.relative_to(folder_path)) for p in folder_path.rglob("*.*"))
        self.calls.append(("upload_folder", options.pop("repo_id"), files))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    stand_in.save(CONFIG, workdir, step=7)
    found = {
        "checkpoint": 7,
        "sets": {"generated": 4, "real": 2},
        "generated": {"coherent": {"mean": 0.25}, "jump": {"mean": None}},
        "real": {"coherent": {"mean": 1.0}},
    }
    (workdir / "evaluation.json").write_text(json.dumps(found))
    return workdir


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    """Exports a run with an upload, and returns the directory and the calls of the hub."""
    out = tmp_path_factory.mktemp("exported") / "out"
    arguments = ["export", "--workdir", workdir, "--out", out, "--format", "hub", "--push", REPO]
    arguments += [word for p in PROMPTS for word in ("--prompt", p)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub, "HfApi", Api)
        patch.setattr(huggingface_hub, "get_token", lambda: "hf_stand_in")
        assert cli.main([str(a) for a in arguments]) == 0
    return out, list(Api.calls)


def _digits(**groups):
    return dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, path=""), **groups)


def _latents(place):
    """Returns the config of a network on latents of 4x4, of digits of 8x8 in RGB."""
    vae = autoencoder.read(tiny_autoencoder.write(place / "vae", "AutoencoderKL"))
    of = dict(path=str(place / "vae"), factor=2, channels=2, fingerprint=vae.fingerprint)
    config = _digits(autoencoder=dataclasses.replace(CONFIG.autoencoder, **of))
    return configs.replace(config, {"data.channels": 3, "sample.threshold": "none"})


def _guided(place):
    """Returns the config of a network that a weaker one guides, and writes the weaker one."""
    stand_in.save(_digits(seed=1), place / "weaker", step=3)
    guided = {"sample.autoguidance_scale": 2.0, "sample.autoguidance_from": str(place / "weaker")}
    return configs.replace(_digits(), guided)


def _upscaler(**keys):
    return _digits(upscale=dataclasses.replace(CONFIG.upscale, factor=2, **keys))


# Kind of run -> its config, and why there are no programs of it.
KINDS = {
    "plain": (lambda place: _digits(), ""),
    "masks": (lambda place: _digits(masks=configs.Masks(**stand_in.SHARES)), ""),
    "latents": (_latents, "the network denoises latents, and programs hold no autoencoder"),
    "guided": (_guided, "sample.autoguidance_scale is 2, and programs hold the weights of one"),
}


@pytest.fixture
def export(tmp_path):
    """Returns a function that saves a run, exports it, and returns both directories."""

    def write(config, *words):
        workdir, out = tmp_path / "run", tmp_path / "out"
        stand_in.save(config, workdir, step=7)
        words = ["export", "--workdir", workdir, "--out", out, "--format", "hub", *words]
        assert cli.main([str(word) for word in words]) == 0
        return workdir, out

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_that_makes_clips_of_captions_is_exported_and_makes_the_same(
    kind, export, tmp_path, capsys
):
    make, reason = KINDS[kind]
    workdir, out = export(make(tmp_path))
    said, text = capsys.readouterr().err, (out / "README.md").read_text()
    assert (out / "sampler.jax_export").exists() == (not reason)
    assert said.count("no programs are written: " + reason) == bool(reason)
    assert text.count("There are no programs that need only JAX: " + reason) == bool(reason)
    captions = [entry["text"] for entry in ModelCard.load(out / "README.md").data.widget]
    assert captions == held_out_captions(read_parts(workdir).dataset, 4)
    for file in out.rglob("*.*"):
        assert str(tmp_path).encode() not in file.read_bytes(), file
    place = dict(autoencoder=str(tmp_path / "vae")) if kind == "latents" else {}
    expected, _ = text_to_video(workdir, captions, seed=5)
    found = stunet.load(out, **place).sample(captions, seed=5, progress=False)
    np.testing.assert_array_equal(found, expected)


def test_the_card_names_the_autoencoder_and_so_does_a_model_without_it(export, tmp_path, capsys):
    config = _latents(tmp_path)
    _, out = export(config, "--prompt", "a 3")
    text, fingerprint = (out / "README.md").read_text(), config.autoencoder.fingerprint
    assert 'stunet.load("hf://OWNER/NAME", autoencoder="DIR")' in text
    assert f"with the fingerprint `{fingerprint}`" in text
    with pytest.raises(UserError, match=f"{fingerprint}, .* as --autoencoder DIR, or in Python"):
        stunet.load(out).sample("a 3", progress=False)
    tiny_autoencoder.write(tmp_path / "other", "AutoencoderKL", seed=1)
    with pytest.raises(UserError, match="is not the one whose latents the run denoises"):
        stunet.load(out, autoencoder=str(tmp_path / "other")).sample("a 3", progress=False)
    words = ["sample", "text", "--workdir", out, "--prompt", "a 3", "--out", tmp_path / "clips"]
    words += ["--autoencoder", tmp_path / "vae"]
    assert cli.main([str(word) for word in words]) == 0
    # A model on the hub names its autoencoder by the fingerprint, and may name no directory.
    _check_paths("hf://someone/latents", out / "params.safetensors")
    assert "autoencoder.path" in configs.paths_in(config)
    with pytest.raises(UserError, match=r"autoencoder\.fingerprint is empty"):
        configs.without_paths(configs.replace(config, {"autoencoder.fingerprint": ""}))


def test_a_network_that_enlarges_clips_is_exported_as_weights(export, tmp_path, capsys):
    workdir, out = export(_upscaler())
    assert "no programs are written: the network enlarges clips" in capsys.readouterr().err
    assert {file.name for file in out.iterdir()} == {"README.md", "params.safetensors"}
    text = (out / "README.md").read_text()
    assert "stunet sample upscale --workdir NAME --video clip.mp4" in text
    assert ModelCard.load(out / "README.md").data.pipeline_tag == "video-to-video"
    low = np.zeros((4, 4, 4, 1), np.float32)
    found, expected = (
        upscale.upscale(upscale.load(networks.find(place, "upscale")), low).clip
        for place in (out, workdir)
    )
    np.testing.assert_array_equal(found, expected)
    words = ["export", "--workdir", workdir, "--out", tmp_path / "b", "--format"]
    assert cli.main([str(word) for word in [*words, "hub", "--prompt", "a 3"]]) == 1
    assert "makes none from text alone" in capsys.readouterr().err
    assert cli.main([str(word) for word in [*words, "stablehlo"]]) == 1
    assert "no programs can be made of" in capsys.readouterr().err


def test_the_upload_is_one_commit_to_a_private_repository(exported):
    (made, repo, options), (uploaded, to, files) = exported[1]
    assert (made, repo, uploaded, to) == ("create_repo", REPO, "upload_folder", REPO)
    assert options == {"private": True, "exist_ok": True}
    assert files == [
        "README.md",
        "card.json",
        "denoiser.jax_export",
        "params.safetensors",
        "prompts.safetensors",
        "sampler.jax_export",
        "samples/0.gif",
        "samples/1.gif",
    ]


def test_the_hub_understands_the_head_of_the_card(exported):
    data = ModelCard.load(exported[0] / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("stunet", "text-to-video")
    assert data.license is None  # It is left to whoever publishes.
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("coherent", 0.25)
    assert [entry["text"] for entry in data.widget] == PROMPTS
    for entry in data.widget:
        with Image.open(exported[0] / entry["output"]["url"]) as picture:
            assert picture.n_frames == CONFIG.data.frames


def test_the_card_shows_metrics_samples_and_the_config(exported):
    text = (exported[0] / "README.md").read_text()
    assert "| steady velocity (share of clips) | 25% | 100% | higher is better |" in text
    assert "4 generated, 2 real" in text
    assert "velocity change" not in text  # It was measured for no clip.
    assert "a 3 moving &lt;left&gt;<br>" in text
    assert f'stunet.load("hf://{REPO}")' in text
    config = json.loads(text.split("```json\n")[1].split("```")[0])
    assert configs.resolve(config).model == CONFIG.model


def test_no_file_names_a_path_of_this_machine(exported, workdir):
    for file in exported[0].rglob("*.*"):
        content = file.read_bytes()
        assert b"/home/me" not in content, file
        assert str(workdir).encode() not in content, file


def test_metrics_of_other_weights_are_left_out(exported, workdir, tmp_path):
    from stunet.export import model_card
    from stunet.generate.text import load

    run = load(workdir)
    other = shutil.copytree(workdir, tmp_path / "other", ignore=shutil.ignore_patterns("check*"))
    found = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps(found | {"checkpoint": 6}))
    assert "## Metrics" not in model_card.write(run, other, {}, REPO)
    # Those of the same update, measured in training, take their place.
    lines = [{"step": 6, "eval/coherent": 0.125}, {"step": 7, "eval/coherent": 0.5}]
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = model_card.write(run, other, {}, REPO)
    assert "| steady velocity (share of clips) | 50% |" in text
    assert yaml.safe_load(text.split("---")[1])["model-index"][0]["name"] == "digits"


@pytest.fixture
def cache(exported, tmp_path, monkeypatch):
    """Makes the cache of huggingface_hub as if it had fetched the export, and goes offline."""
    repository = tmp_path / "cache" / "models--someone--digits"
    snapshot = repository / "snapshots" / REVISION
    shutil.copytree(exported[0], snapshot)
    for name in ("main", "v1"):
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(REVISION)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_model_is_loaded_from_the_cache_offline(cache, workdir):
    expected, _ = text_to_video(workdir, PROMPTS, seed=5)
    for address in (f"hf://{REPO}", f"hf://{REPO}@v1", f"hf://{REPO}@{REVISION}"):
        found = stunet.load(address)
        assert found.run.checkpoint == 7
    np.testing.assert_array_equal(found.sample(PROMPTS, seed=5, progress=False), expected)


def test_only_the_weights_are_fetched(exported, monkeypatch):
    asked = []

    def download(repo, **options):
        asked.append((repo, options))
        return str(exported[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    stunet.load(f"hf://{REPO}@v2")
    assert asked == [
        (REPO, {"revision": "v2", "allow_patterns": ["params.safetensors", "weaker.safetensors"]})
    ]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("hf://digits", "is no address of a model; write hf://OWNER/NAME"),
        (f"hf://{REPO}/../../x", "is no address of a model"),
        (f"hf://{REPO}@", "is no address of a model"),
        ("hf://someone/others", "cannot be fetched"),
        ("hf://someone/..", "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_is_told(cache, address, sentence):
    with pytest.raises(UserError, match=sentence) as told:
        stunet.load(address)
    assert "\n" not in str(told.value)


def test_a_model_without_weights_is_told(cache):
    (cache / "params.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no params.safetensors, as `stunet export"):
        stunet.load(f"hf://{REPO}")


def test_a_model_whose_config_names_files_of_this_machine_is_refused(cache, workdir):
    run = stunet.load(workdir).run
    named = weights_file.cast(run.params, None)
    weights_file.write(cache / "params.safetensors", named, CONFIG, 7)
    with pytest.raises(UserError, match=r"its config has the path '/home/me/hand.*' in data.path"):
        stunet.load(f"hf://{REPO}")


def test_nothing_is_written_by_someone_who_is_not_logged_in(workdir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    out = tmp_path / "out"
    command = ["export", "--workdir", workdir, "--out", out, "--format", "hub", "--push"]
    assert cli.main([str(a) for a in [*command, REPO]]) == 1
    assert "log in with `hf auth login`" in capsys.readouterr().err
    assert cli.main([str(a) for a in [*command, "digits"]]) == 1
    assert "--push 'digits' is no OWNER/NAME" in capsys.readouterr().err
    assert not out.exists()


def test_an_upload_that_fails_keeps_the_files(exported, monkeypatch):
    def refuse(self, repo, **options):
        raise OSError("503\nService Unavailable")

    monkeypatch.setattr(Api, "create_repo", refuse)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(
        UserError, match=r"\(503 Service Unavailable\); .*: to try again, run `hf up"
    ):
        hub.push(exported[0], REPO)
    assert (exported[0] / "README.md").exists()


def test_the_extra_is_named_where_huggingface_hub_is_missing(workdir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: stunet.load(f"hf://{REPO}"), lambda: hub.check(None)):
        with pytest.raises(UserError, match=r"pip install 'stunet\[hub\]'"):
            use()
