"""Tests which configs are accepted, and what is answered to others."""

import dataclasses
import re

import pytest

from stunet import configs
from stunet.configs import suggestions, synonyms
from stunet.errors import UserError

# Names that are spelt a little like some key, and mean none.
TRAPS = """
    hidden nesterov amsgrad verbose debug name notes version strict loss_scale
    augment latent rope patchify bias qk_norm vocab temperature beam retries user email
    region license author sigma eta codec canny dilation shift_size prompt shuffle
"""


XL = {"model__family": "sdxl", "model__text_features": 64, "model__text_pooling_heads": 0}


def changed(**keys):
    """Returns the default config with the value of each `group__key` changed."""
    raw = {}
    for key, value in keys.items():
        group, name = key.split("__")
        raw.setdefault(group, {})[name] = value
    return configs.resolve(raw)


def test_defaults_are_valid():
    assert configs.resolve(configs.default()) == configs.Config()


@pytest.mark.parametrize(("key", "field"), list(configs.fields()))
def test_the_doc_of_each_key_stands_alone(key, field):
    doc = field.metadata["doc"]
    # Whole sentences.
    assert doc[0].isupper() or doc[0].isdigit()
    assert doc.endswith(".")
    # Other keys by their whole names.
    known = dict(configs.fields())
    named = [word for word in re.findall(r"`([^`]+)`", doc) if not word.startswith("stunet ")]
    assert set(named) <= set(known)
    # Every choice is explained, unless all are terms of the field.
    choices = [c for c in field.metadata["choices"] or () if isinstance(c, str)]
    if key not in ("model.activation", "model.dtype", "mesh.context_axis"):
        assert all(f"'{choice}'" in doc for choice in choices)


def test_written_config_reads_back(tmp_path):
    config = changed(model__channels=128, train__learning_rate=3e-4)
    configs.write(config, tmp_path / "config.json")
    assert configs.read(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model__chanels": 64}, "unknown key 'model.chanels'; did you mean 'model.channels'?"),
        # Names of earlier versions.
        ({"mesh__clip": 4}, "'mesh.clip' is now called 'mesh.context'; use that name"),
        ({"mesh__clip_axis": "rows"}, "'mesh.clip_axis' is now called 'mesh.context_axis'"),
        ({"model__batch_size": 8}, "unknown key 'model.batch_size'; did you mean 'train.batch_"),
        # What an experiment's file sets in a group that does not exist.
        ({"optimizer__lr": 1e-3}, "unknown key 'optimizer.lr'; did you mean 'train.learning_rate"),
        ({"train__steps": 2.5}, "train.steps is 2.5; it must be a whole number"),
        ({"train__steps": True}, "train.steps is True; it must be a whole number"),
        ({"train__steps": 0}, "train.steps is 0; it must be at least 1"),
        ({"train__learning_rate": 0}, "train.learning_rate is 0.0; it must be above 0"),
        ({"train__beta1": 1}, "train.beta1 is 1.0; it must be below 1"),
        ({"train__beta2": 1}, "train.beta2 is 1.0; it must be below 1"),
        ({"train__learning_rate": float("nan")}, "train.learning_rate is nan; it must be a num"),
        ({"diffusion__prediction": "x"}, "diffusion.prediction is 'x'; .*choose one of 'eps'"),
        ({"data__source": "moving_digit"}, "did you mean 'moving_digits'"),
        ({"model__temporal_factors": 2}, r"model.temporal_factors is 2; it must be a tuple"),
        ({"model__temporal_factors": (2, 2, 2, 2)}, "it begins with 1"),
        ({"model__temporal_factors": (1, 2)}, "has 2 entries and model.channel_multipliers 4"),
        ({"model__layers": (1, 2)}, "model.layers has 2 entries and model.channel_multipliers 4"),
        ({"model__layers": (1, 2, 0, 1)}, r"model.layers is \(1, 2, 0, 1\); each level needs at l"),
        ({"model__text_only_attention": True, "model__text_features": 0}, "leaves nothing to att"),
        ({"model__level_embedding": True}, "level_embedding is True and upscale.factor is 1, so"),
        ({"data__frames": 17}, r"data.frames is 17; it must be a multiple of 8 .*try 16"),
        ({"data__height": 20}, r"data.height is 20; it must be a multiple of 8 .*try 16"),
        ({"model__groups": 24}, r"channel_multipliers\[0\] is 64; it must be a multiple of 24"),
        ({"model__head_channels": 48}, "it must be a multiple of 48 .*model.head_channels"),
        ({"model__text_pooling_heads": 7}, "text.dim is 64; it must be a multiple of 7"),
        ({"model__heads": 24}, "it must be a multiple of 24 .*model.heads"),
        (
            {"model__heads": 256, "model__attention_levels": (False,) * 4},
            "coarsest level's 256 / model.heads is 1; it must be a multiple of 2",
        ),
        (
            {"model__transformer_layers": (1, 1, 1, 1)},
            "'if' and model.transformer_layers .* has no",
        ),
        ({"model__empty_text_tokens": 64}, "'if' and model.empty_text_tokens 64, which only 'sd1'"),
        (XL | {"model__empty_text_tokens": 64}, "'sdxl' and model.empty_text_tokens 64, which onl"),
        (
            {"model__family": "sd1", "model__empty_text_tokens": 77},
            r"empty_text_tokens is 77, and captions have 64 tokens \(text.max_length\); set both",
        ),
        ({"model__family": "sd1"}, "'sd1' and model.text_features 768; .*text.dim, which is 64"),
        (
            {"model__family": "sd1", "model__text_features": 64},
            "'sd1' and model.text_pooling_heads 8, which only 'if' has; set .*heads to 0",
        ),
        (
            {"model__family": "sd2", "model__text_features": 0, "model__transformer_layers": (1,)},
            "model.transformer_layers has 1 entries and model.channel_multipliers 4",
        ),
        (
            dict(
                model__family="sd2", model__text_features=0, model__transformer_layers=(1, 1, 0, 1)
            ),
            "each transformer needs at least one layer: .*set model.attention_levels to False",
        ),
        (
            {"model__pooled_text_features": 9},
            "'if' and model.pooled_text_features 9, which only 'sdxl' with text has",
        ),
        (XL, "'sdxl' and model.pooled_text_features 0; it must be .* from 1 to text.dim, .* 64"),
        (XL | {"model__pooled_text_features": 65}, "to text.dim, which is 64"),
        (
            XL | {"model__pooled_text_features": 9},
            "'sdxl' and text.encoder 'bytes', which gives no pooled text; set text.encoder to 'sdx",
        ),
        (
            XL
            | {"model__pooled_text_features": 9, "text__encoder": "sdxl:x"}
            | {"model__size_features": 7},
            "model.size_features is 7; it must be a multiple of 2",
        ),
        ({"text__encoder": "clip"}, "text.encoder is 'clip'; choose one of bytes, minilm, "),
        ({"text__encoder": "t5:"}, "text.encoder is 't5:'; choose one of .* t5:DIR "),
        ({"text__encoder": "minilm"}, "text.dim is 64, .*384 features; set text.dim to 384"),
        ({"text__fingerprint": "12ab"}, "text.fingerprint is '12ab', and 'bytes' has none"),
        ({"data__digit_size": 20}, "larger than the clip's 16x16"),
        (
            {"data__source": "motions", "data__caption_speed": True},
            "data.speed_octaves is 0, .*set data.caption_speed to False",
        ),
        (
            {"train__batch_size": 16, "train__accumulate": 3},
            "it must be a multiple of 3 .*: try 15",
        ),
        ({"profile__start": 0}, "profile.start is 0; it must be at least 1"),
        ({"diffusion__beta_start": 0.5}, "beta_start is 0.5 and .*beta_end 0.012; the first must"),
        ({"diffusion__zero_terminal_snr": True}, "schedule 'cosine'; only 'scaled_linear' and"),
        (
            dict(
                diffusion__zero_terminal_snr=True,
                diffusion__schedule="linear_betas",
                diffusion__prediction="eps",
            ),
            "prediction 'eps'; the noise alone says nothing .*: choose 'v'",
        ),
        (
            {"profile__start": 8, "profile__steps": 4, "train__steps": 10},
            "profile asks for updates 8 to 11, and train.steps is 10",
        ),
        ({"mesh__data": -1, "mesh__fsdp": -1}, "at most one of them -1"),
        ({"mesh__data": 0}, "mesh.data 0, .*each size must be positive"),
        ({"masks__image": 0.5}, "the shares in masks sum to 0.5; they must sum to 1, or all"),
        ({"masks__image": 1.0, "upscale__factor": 2}, "upscale.factor is 2 and masks are set"),
        ({"masks__text": 1.0, "tsr__stride": 5}, "tsr.stride is 5 and masks are set; .*keyframes"),
        ({"upscale__factor": 2, "tsr__stride": 5}, "upscale.factor is 2 and tsr.stride is 5"),
        # 1 + 7 k that 8 divides: 8, then 64.
        ({"tsr__stride": 7}, "data.frames is 16 and tsr.stride 7; .*try data.frames 8"),
        ({"tsr__stride": 7, "data__frames": 1, "model__temporal": False}, "try data.frames 8"),
        ({"tsr__stride": 4}, "which no multiple of 8 frames allows: try another tsr.strid"),
        ({"tsr__max_augmentation": -0.1}, "tsr.max_augmentation is -0.1; it must be at least 0"),
        (
            {"autoencoder__path": "vae", "data__height": 32},
            "data.height is 32; it must be a multiple of 64 .autoencoder.factor, .*try 64",
        ),
        ({"data__stride": 0}, "data.stride is 0; it must be at least 1"),
        ({"data__stride": 3, "data__cut_from": 40}, "stride 3 spans 46 frames of the source; set"),
        ({"upscale__factor": 3}, "data.height is 16; it must be a multiple of 3 .*try 15"),
        ({"upscale__factor": 0}, "upscale.factor is 0; it must be at least 1"),
        ({"upscale__max_augmentation": 1.5}, "upscale.max_augmentation is 1.5; .*at most 1"),
    ],
)
def test_refusals_say_what_would_be_right(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(**keys)


def test_a_config_may_be_read_before_its_data_is_named_but_not_trained():
    config = changed(data__source="clips")
    with pytest.raises(UserError, match=r"data\.path is empty; name the directory"):
        configs.check_data(config)
    configs.check_data(changed(data__source="clips", data__path="runs/clips"))
    configs.check_data(changed())


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        # By meaning, where the spelling misleads; in a group of another program, or in none.
        ("train.lr", ["train.learning_rate"]),
        ("optimizer.lr", ["train.learning_rate"]),
        ("train.epochs", ["train.steps"]),
        ("max_steps", ["train.steps"]),
        ("sample.num_steps", ["sample.steps"]),
        ("batch", ["train.batch_size"]),
        ("bs", ["train.batch_size"]),
        ("per_device_batch_size", ["train.batch_size"]),
        ("n_frames", ["data.frames"]),
        ("data.num_frames", ["data.frames"]),
        ("resolution", ["data.height", "data.width"]),
        ("data.image_size", ["data.height", "data.width"]),
        ("model.width", ["model.channels"]),
        ("optimizer_type", ["train.optimizer"]),
        ("train.momentum", ["train.beta1"]),
        ("ema.decay", ["train.ema_decay"]),
        ("train.grad_clip", ["train.clip_norm"]),
        ("cfg", ["sample.guidance_scale"]),
        ("train.random_seed", ["seed"]),
        ("mixed_precision", ["model.dtype"]),
        ("num_gpus", ["mesh.data", "mesh.fsdp", "mesh.context", "mesh.tensor"]),
        ("ici_tensor_parallelism", ["mesh.tensor"]),
        ("save_every", ["checkpoint.every"]),
        ("train.eval_every", ["log.validate_every"]),
        ("log_every", ["log.every"]),
        # The right name in the wrong group.
        ("train.seed", ["seed"]),
        ("lora_rank", ["lora.rank"]),
        ("text.steps", ["distil.steps", "train.steps", "profile.steps", "sample.steps"]),
        # By words.
        ("sample.percentile", ["sample.threshold_percentile"]),
        ("data.random_flip", ["data.mirror"]),
        ("center_crop", ["data.crop"]),
        # By spelling.
        ("train.Learning-Rate", ["train.learning_rate"]),
        ("train.learnig_rate", ["train.learning_rate"]),
        ("modl.chanels", ["model.channels"]),
        ("data.hieght", ["data.height"]),
        ("data.fsp", ["data.fps"]),
        ("trian", ["train"]),
        ("vae", ["autoencoder.path"]),
        # A key taken for a group.
        ("model.dtype.compute", ["model.dtype"]),
    ],
)
def test_unknown_keys_suggest_what_is_meant(key, meant):
    message = str(suggestions.unknown_key(key))
    assert message.startswith(f"unknown key '{key}'")
    assert re.findall(r"'([^']+)'", message)[1:] == meant


@pytest.mark.parametrize("name", TRAPS.split())
def test_unknown_keys_suggest_no_nonsense(name):
    for key in (name, f"train.{name}", f"model.{name}"):
        message = str(suggestions.unknown_key(key))
        assert "did you mean" not in message
        assert not set(re.findall(r"'([^']+)'", message)[1:]) & set(dict(configs.fields()))
        # But what to do instead.
        assert message.removeprefix(f"unknown key '{key}'")


def test_every_synonym_leads_to_keys_and_choices_that_exist():
    known = dict(configs.fields())
    names = [name for synonym in synonyms.SYNONYMS for name in synonym.names.split()]
    assert len(names) == len(set(names))
    # A name that is a key's own would never be looked up.
    assert not set(names) & {key.replace(".", "_") for key in known}
    assert not set(names) & {key.rpartition(".")[-1] for key in known}
    for synonym in synonyms.SYNONYMS:
        assert set(synonym.keys.split()) <= set(known)
        assert synonym.keys or synonym.note
    for key, choices in synonyms.CHOICES.items():
        assert set(choices) <= set(known[key].metadata["choices"])
        words = [word for of_choice in choices.values() for word in of_choice.split()]
        assert len(words) == len(set(words))
        assert not set(words) & set(known[key].metadata["choices"])


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("data.source", "video", "clips"),
        ("data.source", "videos", "clips"),
        ("data.source", "WebDataset", "clips"),
        ("data.source", "moving-mnist", "moving_digits"),
        ("model.dtype", "bf16", "bfloat16"),
        ("diffusion.prediction", "epsilon", "eps"),
        ("diffusion.prediction", "v_prediction", "v"),
        ("sample.sampler", "dim", "ddim"),
        ("sample.sampler", "euler", "ddim"),
        ("model.activation", "relu", None),
    ],
)
def test_wrong_choices_suggest_what_is_meant(key, value, meant):
    group, name = key.split(".")
    with pytest.raises(UserError) as raised:
        configs.resolve({group: {name: value}})
    hint = f"did you mean {meant!r}? " if meant else ""
    assert str(raised.value).startswith(f"{key} is {value!r}; {hint}choose one of ")


def test_overrides_of_the_command_line(tmp_path):
    file = tmp_path / "experiment.py"
    file.write_text("from stunet import configs\ndef get_config(): return configs.default()\n")
    config = configs.load(
        str(file), ["--config.train.steps=7", "--config.model.temporal_factors=(1, 1, 1, 2)"]
    )
    assert config.train.steps == 7
    assert config.model.temporal_factors == (1, 1, 1, 2)
    with pytest.raises(UserError, match=r"unknown key 'model.chanels'; did you mean 'model.chan"):
        configs.load(str(file), ["--config.model.chanels=3"])
    with pytest.raises(UserError, match=r"no file 'nowhere.py'"):
        configs.load("nowhere.py")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.steps=7", 7),
        ("train.learning_rate=3e-4", 3e-4),
        ("train.learning_rate=1", 1.0),
        ("mesh.fsdp=-1", -1),
        ("model.temporal=false", False),
        ("model.scan_layers=True", True),
        ("text.encoder=t5:/a=b", "t5:/a=b"),
        ("data.path=7", "7"),
        ("model.temporal_factors=1,1,1,2", (1, 1, 1, 2)),
        ("model.temporal_factors=[1, 1, 1, 2]", (1, 1, 1, 2)),
        ("log.validate_times=0.5", (0.5,)),
        ("model.layers=()", ()),
    ],
)
def test_values_on_the_command_line_have_the_type_of_the_key(override, value):
    # Only one extent of the mesh may be -1.
    config = configs.override(changed(mesh__data=1), [f"--config.{override}"])
    found = configs.flatten(config)[override.partition("=")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.steps=many", "train.steps is 'many'; it must be a whole number"),
        ("train.steps=1e4", "train.steps is 10000.0; it must be a whole number"),
        ("train.steps=", "train.steps is ''; it must be a whole number"),
        ("train.steps", "--config.train.steps has no value; write --config.train.steps=VALUE"),
        ("train.learning_rate=1e-3x", "train.learning_rate is '1e-3x'; it must be a number"),
        ("model.temporal=maybe", "model.temporal is 'maybe'; it must be True or False"),
        ("model.layers=(a,b)", r"model.layers is '\(a,b\)'; it must be a tuple, such as \(1, 2\)"),
        ("train=3", "'train' is a group of keys; set one of them, such as 'train.init_from'"),
    ],
)
def test_wrong_values_on_the_command_line_get_the_sentence_of_the_key(override, sentence):
    with pytest.raises(UserError, match=f"^{sentence}$"):
        configs.override(configs.Config(), [f"--config.{override}"])


def test_overrides_reach_what_an_experiment_computes_from_them(tmp_path):
    """An ml_collections reference follows the key that it refers to."""
    file = tmp_path / "experiment.py"
    file.write_text(
        "from stunet import configs\n"
        "def get_config():\n"
        "    config = configs.default()\n"
        "    config.checkpoint.every = config.train.get_ref('steps') * 2\n"
        "    return config\n"
    )
    assert configs.load(str(file), ["--config.train.steps=7"]).checkpoint.every == 14


MIX = {"digits": {"num_digits": 2, "weight": 0.5}, "discs": {"source": "motions"}}


def test_sources_are_mixed_on_the_command_line_and_read_back(tmp_path):
    flags = [
        *("data.mix.discs.source=motions", "data.mix.digits.weight=0.5"),
        "data.mix.digits.num_digits=2",
    ]
    config = configs.override(configs.Config(), [f"--config.{flag}" for flag in flags])
    assert config == changed(data__mix=MIX)
    configs.write(config, tmp_path / "config.json")
    assert configs.read(tmp_path / "config.json") == config
    fewer = configs.override(config, ["--config.data.mix={}", "--config.data.frames=8"])
    assert fewer == changed(data__frames=8)


def test_each_source_has_the_keys_of_the_main_one_that_it_does_not_change():
    sources = configs.all_sources(changed(data__mix=MIX, data__frames=8, data__weight=3.0).data)
    assert list(sources) == ["main", "digits", "discs"]
    assert [data.weight for data in sources.values()] == [3, 0.5, 1]
    assert [data.num_digits for data in sources.values()] == [1, 2, 1]
    assert {data.frames for data in sources.values()} == {8}
    main = dict(data__source="clips", data__path="here")
    sources = configs.all_sources(changed(**main, data__mix=MIX | {"b": {"mirror": True}}).data)
    assert {name: data.path for name, data in sources.items()} == {
        "main": "here",
        "b": "here",
        "digits": "here",
        "discs": "",
    }


@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        ({"a": {"weight": -1}}, "data.mix.a.weight is -1.0; it must be at least 0"),
        ({"a": {"source": "film"}}, "data.mix.a.source is 'film'; choose one of 'moving_digits'"),
        ({"a": {"source": "video"}}, "data.mix.a.source is 'video'; did you mean 'clips'"),
        ({"a": {"wieght": 1}}, "unknown key of data.mix.a 'wieght'; did you mean 'weight'"),
        ({"a": {"channels": 1}}, "the key 'channels', which is the same for all sources"),
        ({"a": {"weight": 2}}, "data.mix.a differs from data in nothing but its weight; set a key"),
        ({"a": {"num_digits": 2, "weight": 1e-6}}, "at least one of 10,000 clips, or the weight 0"),
        ({"a": {"digit_size": 30}}, "data.mix.a: data.digit_size is 30, larger than the clip"),
        ({"a": {"frames": 12}}, "data.mix.a: data.frames is 12; it must be a multiple of 8"),
        ({"a": {"height": 12}}, "data.mix.a: data.height is 12; it must be a multiple of 8"),
        (
            {"a": {"frames": 24}},
            "data.mix.a has clips of 24x16x16 (frames, rows, columns), larger than those of data, "
            "16x16x16; let data describe the source with the largest clips",
        ),
        (
            {"a": {"clips_per_update": 8, "num_digits": 2}},
            "data.mix.a.clips_per_update is 8, and its clips have the shape of data; set train.ba",
        ),
        (
            {n: {"frames": 1, "clips_per_update": c} for n, c in (("a", 64), ("b", 32))},
            "data.mix.b.clips_per_update is 32 and data.mix.a.clips_per_update 64; both have clips "
            "of 1x16x16, which share their updates: give both the same",
        ),
        ({"main": {"num_digits": 2}}, "data.mix has a source 'main'; a name has small letters"),
        ({"A b": {"num_digits": 2}}, "data.mix has a source 'A b'; a name has small letters"),
        ({"a": 3}, "data.mix.a is 3; it must be a dict of keys of data"),
        (3, "data.mix is 3; it must be a dict of sources by name"),
    ],
)
def test_wrong_mixtures_get_one_sentence(mix, sentence):
    with pytest.raises(UserError, match=f"^(?s:.*){re.escape(sentence)}"):
        changed(data__mix=mix)


def test_pictures_are_refused_where_they_teach_nothing():
    pictures = {"photos": {"frames": 1}}
    assert changed(data__mix=pictures).data.mix == pictures
    for keys, sentence in (
        (dict(freeze="spatial"), "freeze is 'spatial' and data.frames is 1"),
        (dict(tsr={"stride": 5}), "data.frames is 1 and tsr.stride 5"),
    ):
        with pytest.raises(UserError, match=f"^data.mix.photos: {sentence}"):
            configs.resolve({"data": {"mix": pictures}, **keys})


def test_weights_that_sum_to_0_are_refused():
    with pytest.raises(UserError, match=r"data.weight and all weights in data.mix are 0; at least"):
        changed(data__weight=0, data__mix={"a": {"num_digits": 2, "weight": 0}})
    with pytest.raises(UserError, match=r"data.weight is 0, and data.mix names no other source"):
        changed(data__weight=0)


def test_only_the_paths_of_a_mixture_may_differ_when_a_run_continues():
    old = changed(data__mix={"a": {"source": "clips", "path": "here"}})
    assert not configs.differences(old, changed(data__mix={"a": {"source": "clips", "path": "x"}}))
    other = changed(data__mix={"a": {"source": "clips", "path": "here", "weight": 2.0}})
    (difference,) = configs.differences(old, other)
    assert difference.startswith("data.mix is {'a': ")


def test_only_what_does_not_change_the_updates_may_differ_when_a_run_continues():
    config = configs.Config()
    other = dataclasses.replace(
        config,
        mesh=configs.Mesh(fsdp=4),
        log=dataclasses.replace(config.log, every=7),
        checkpoint=dataclasses.replace(config.checkpoint, keep=9),
        profile=configs.Profile(start=20, steps=5),
    )
    assert configs.differences(config, other) == []
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, beta2=0.5))
    assert configs.differences(config, other) == ["train.beta2 is 0.99 there and 0.5 here"]


def test_a_text_encoder_may_lie_elsewhere_when_a_run_continues_but_be_no_other():
    def text(encoder, fingerprint=""):
        return changed(text__encoder=encoder, text__fingerprint=fingerprint)

    noted = text("t5:/here", "12ab")
    assert configs.differences(noted, text("t5:/there", "12ab")) == []
    assert configs.differences(noted, text("t5:/here")) == []
    (difference,) = configs.differences(noted, text("t5:/here", "34cd"))
    assert difference == "text.fingerprint is '12ab' there and '34cd' here"
    (difference,) = configs.differences(noted, text("t5:/there"))
    assert difference.startswith("text.encoder is ")
