"""JSON that is damaged or of another type gets one sentence, whichever file it is in."""

import contextlib
import copy
import dataclasses
import functools
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from read_records import ClipWriter
from safetensors.numpy import save_file

from stunet import configs, jsonfiles, tensorfiles
from stunet.data.clips import ClipRecords
from stunet.data.media import slices
from stunet.data.shots import layout
from stunet.errors import UserError
from stunet.nn.text import tokenizer
from stunet.nn.text.bert import bert
from stunet.nn.text.t5 import t5
from stunet.prepare import shards
from stunet.report import results
from stunet.sweep import members, workdir
from stunet.sweep.curves import Curves
from stunet.train.measured import metrics
from stunet.train.measured.clock import Clock
from stunet.train.parts import make_parts
from stunet.train.saved import weights_file
from stunet.weights import diffusers_config


@dataclasses.dataclass(frozen=True)
class Sizes:
    width: int
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"width": 3', "not JSON (Expecting ',' delimiter: line 1 column 12 (char 11))"),
        (b'{"width": \xff}', "damaged: byte 10 is not UTF-8 text"),
        (b"[" * 100_000, "damaged: its lists or objects are nested too deep"),
        (b"null", "damaged: expected object, got null"),
        (b'{"width": 1, "width": 2}', "not JSON ('width' is there twice)"),
        (b"{}", "damaged: object missing required field width"),
        (b'{"width": 1.5}', "damaged: expected int, got float at 'width'"),
        (b'{"width": true}', "damaged: expected int, got bool at 'width'"),
        (b'{"width": 1, "names": [2]}', "damaged: expected str, got int at 'names[0]'"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, content, message):
    file = tmp_path / "sizes.json"
    file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        jsonfiles.read(file, Sizes)
    assert str(raised.value) == f"{file} is {message}"


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no_such cannot be read \\(No such file"):
        jsonfiles.read(tmp_path / "no_such", Sizes)
    with pytest.raises(UserError, match="is a directory"):
        jsonfiles.read(tmp_path, Sizes)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4),
    )
)
def test_what_was_written_is_read(value):
    # Names of files that are not UTF-8 are written as halves of surrogate pairs.
    for written in (value, {"name": "caf\udce9", "value": value}):
        for content in (text := json.dumps(written), text.encode(), text.encode("utf-8-sig")):
            assert jsonfiles.parse(content, Any, "it") == written


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: name of the file.
        write: writes a good one, and all beside it that its reader needs, to a directory.
        read: reads it from the directory, as the program does.
        always: True if no damage may keep the program from going on.
    """

    name: str
    write: Callable[[pathlib.Path], None]
    read: Callable[[pathlib.Path], object]
    always: bool = False


def write_run(directory):
    configs.write(tiny.config(), directory / "config.json")
    lines = [{"step": i, "loss": 1 / i, "productive_seconds": 2.0 * i} for i in (1, 2, 3)]
    lines.append({"step": 3, "val/loss": 0.3})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "clock.json").write_text('{"began": 1e9}')
    evaluation = {"metrics": {"a": 1.0, "b": {"c": 2}}, "better": {"a": "lower"}, "given": "x"}
    evaluation["generated"] = {name: {"clips": [1.0, None]} for name in ("speed", "coherent")}
    (directory / "evaluation.json").write_text(json.dumps(evaluation))


def write_sweep(directory):
    entries = [members.Member("one", tiny.config()), members.Step("two", ("x",), ("one",), "two/x")]
    curves = Curves("Why?", ("coherent",), ("speed",), (0, 1, 2), "speed", marks=((1, "half"),))
    workdir.claim(directory, members.Sweep(entries, (curves,), ("It falls.",), "Why?"), ["sweep"])
    write_run(directory / "one")


def write_records(directory):
    writer = ClipWriter(directory, "clips", shard_bytes=10_000)
    for i in range(4):
        video = np.full((2, 8, 8, 3), i, np.uint8)
        states = {"text": np.zeros((3, 4), np.float32), "text_mask": np.ones(3, bool)}
        writer.write("train", {"video": video, "caption": "c", "source": "s", **states})
    writer.close((2, 8, 8, 3), (3, 4))
    encoder = {"name": "bytes", "max_length": 3, "dim": 4, "fingerprint": "f"}
    (directory / "clips.json").write_text(json.dumps({"fps": 8, "text_encoder": encoder}))


def write_json(name, content):
    return lambda directory: (directory / name).write_text(json.dumps(content))


def write_tokenizer(directory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.Unigram([("<pad>", 0.0), ("▁a", -1.0), ("<unk>", -2.0)], 2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.save(str(directory / "tokenizer.json"))


def write_weights(directory):
    config = {"config": json.dumps(dataclasses.asdict(tiny.config()))}
    save_file({"a": np.ones((2, 3), np.float32)}, directory / "w.safetensors", config)


def read_all(directory):
    records = ClipRecords(directory, "train")
    return [records[i] for i in range(len(records))]


def resume(directory):
    with metrics.Metrics(directory, 2, write=True) as found:
        assert all(isinstance(value, int | float) for value in found.last.values())
    left = (directory / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["step"] <= 2 for line in left)
    clock = Clock()
    clock.resume(found.last)


def account(directory):
    clock = Clock()
    clock.note(directory)
    clock.begin()
    clock.updated()
    assert 0 <= clock.measure()["goodput"] <= 1
    assert clock.summary()


BERT = dict(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
BERT |= dict(intermediate_size=8, model_type="bert", layer_norm_eps=1e-12)
T5 = dict(vocab_size=8, d_model=4, d_kv=2, d_ff=8, num_layers=1, num_heads=2)
T5 |= dict(feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6, model_type="t5")


def reads_config(architecture):
    def read(directory):
        file = directory / "config.json"
        return architecture(jsonfiles.read(file, jsonfiles.Object), str(file))

    return read


UNET = dict(
    _class_name="UNet2DConditionModel",
    sample_size=8,
    in_channels=3,
    out_channels=6,
    act_fn="gelu",
    addition_embed_type="text",
    addition_embed_type_num_heads=4,
    attention_head_dim=8,
    block_out_channels=[16, 32],
    cross_attention_dim=32,
    cross_attention_norm="group_norm",
    encoder_hid_dim=16,
    encoder_hid_dim_type="text_proj",
    layers_per_block=1,
    norm_num_groups=4,
    resnet_time_scale_shift="scale_shift",
    down_block_types=["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    up_block_types=["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
)


def unet(found, place):
    return make_parts(diffusers_config.to_stunet(found, place, frames=4))


def write_shards(directory):
    save_file({"a": np.ones((2, 3), np.float32)}, directory / "one.safetensors")
    index = {"metadata": {"total_size": 24}, "weight_map": {"a": "one.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def read_shards(directory):
    for name, file in tensorfiles.locate(directory, "model").items():
        with tensorfiles.tensor(file, name) as tensor:
            assert tensor[:].size


def write_pieces(directory):
    model = tokenizer._model_class()()
    for piece, kind in (("<unk>", 2), ("</s>", 3), ("▁a", 1)):
        model.pieces.add(piece=piece, score=-1.0, type=kind)
    model.trainer_spec.model_type = 1
    (directory / "spiece.model").write_bytes(model.SerializeToString())


def tokenize(name):
    return lambda directory: tokenizer.load(directory / name, 8, 8).encode("a b").ids


def write_slices(directory):
    slices.write_xt(directory / "xt.png", np.zeros((2, 4, 8, 8, 3), np.uint8))
    with Image.open(directory / "xt.png") as image:
        (directory / "places.json").write_text(image.info[slices._SLICES])


def read_slices(directory):
    text = PngInfo()
    text.add_text(slices._SLICES, (directory / "places.json").read_bytes())
    with Image.open(directory / "xt.png") as image:
        image.save(directory / "damaged.png", pnginfo=text)
    found = slices.read_slices((directory / "damaged.png").read_bytes())
    assert all(cut.size for _, cut in found)


def write_shots(directory):
    (directory / "shots.json").write_text(json.dumps(dataclasses.asdict(layout.Spec())))
    video = {"path": "a.mp4", "captions": 1, "shots": 1, "frames": 30, "notes": ["turned"]}
    shot = [0.5, 30, 8, 8, 1.5, 0.4, 0.2, "0f" * 32]
    manifest = {"bytes": 5, "sha256": "x", "shots": [shot], "captions": ["a square"]}
    manifest |= {"videos": [video]}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def read_manifest(directory):
    (directory / "shards").mkdir(exist_ok=True)
    shutil.copy(directory / "manifest.json", layout.manifest_file(directory, 0))
    return shards.read_manifest(directory, 0)


KINDS = (
    Kind("shots.json", write_shots, lambda d: layout.read_spec(d).make_codec()),
    Kind("manifest.json", write_shots, read_manifest),
    Kind("config.json", write_json("config.json", UNET), reads_config(unet)),
    Kind("model.safetensors.index.json", write_shards, read_shards),
    Kind("one.safetensors", write_shards, read_shards),
    Kind("spiece.model", write_pieces, tokenize("spiece.model")),
    Kind("places.json", write_slices, read_slices),
    Kind("config.json", write_run, lambda d: configs.read(d / "config.json")),
    Kind("config.json", write_json("config.json", BERT), reads_config(bert)),
    Kind("config.json", write_json("config.json", T5), reads_config(t5)),
    Kind("metrics.jsonl", write_run, resume, always=True),
    Kind("metrics.jsonl", write_run, results.read),
    Kind("clock.json", write_run, account, always=True),
    Kind("clock.json", write_run, results.read, always=True),
    Kind("evaluation.json", write_run, results.read),
    Kind("sweep.json", write_sweep, results.read),
    Kind("features.json", write_records, read_all),
    Kind("dataset_info.json", write_records, read_all),
    Kind("clips.json", write_records, read_all),
    Kind("tokenizer.json", write_tokenizer, tokenize("tokenizer.json")),
    Kind("w.safetensors", write_weights, lambda d: weights_file.read_header(d / "w.safetensors")),
)

# What may stand where something else should.
ODD = st.sampled_from(
    [
        *(None, True, -1, 0, 1.5, math.nan, math.inf, -math.inf, 1e308, 2**63, 10**400),
        *("", "x", "\udce9", "\0", "../x", "9" * 5000, [], {}, [None], {"": None}, [[]] * 3),
        functools.reduce(lambda inner, _: [inner], range(200), []),
        functools.reduce(lambda inner, _: {"a": inner}, range(200), {}),
    ]
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each list or object within `value`, with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@st.composite
def damaged_value(draw, value: Any) -> Any:
    """Draws a JSON value that differs from `value` in one place."""
    (changed,) = whole = [copy.deepcopy(value)]
    container, key = draw(st.sampled_from(list(places(whole))))
    how = draw(st.sampled_from(["replace", "remove", "add"]))
    if how == "add" and isinstance(changed, dict):
        changed[draw(st.sampled_from(["x", "type", "content"]))] = draw(ODD)
    elif how == "remove" and container is not whole:
        del container[key]
    else:
        container[key] = draw(ODD)
    return whole[0]


@st.composite
def damaged_bytes(draw, content: bytes) -> bytes:
    """Draws bytes that differ from `content` in one stretch, or that end early."""
    begin = draw(st.integers(0, len(content)))
    end = draw(st.sampled_from([begin, min(begin + 1, len(content)), len(content)]))
    return content[:begin] + draw(st.binary(max_size=3)) + content[end:]


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Draws the content of a damaged file: bytes are changed, or a value in its JSON is."""
    try:
        lines = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        lines = []
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    with contextlib.suppress(ValueError):
        return json.dumps(draw(damaged_value(json.loads(content)))).encode()
    if not lines:
        return draw(damaged_bytes(content))
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = draw(damaged_value(lines[at]))
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Maps the number of a kind to a directory with good files, which are written once."""
    made = {}

    def directory(number: int) -> pathlib.Path:
        if number not in made:
            made[number] = tmp_path_factory.mktemp("good")
            KINDS[number].write(made[number])
        return made[number]

    return directory


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda i: f"{i}-{KINDS[i].name}")
@pytest.mark.slow
def test_damage_gets_one_sentence_and_no_traceback(number, good, monkeypatch):
    # Operations are counted by tracing, for each config.
    monkeypatch.setattr(results, "mean_flops", lambda *_: 1)
    monkeypatch.setattr(results, "sampling_flops", lambda *_: 1)
    kind, directory = KINDS[number], good(number)
    (file,) = directory.rglob(kind.name)
    content, others = file.read_bytes(), {f: f.read_bytes() for f in file.parent.glob("*.json*")}
    kind.read(directory)

    @settings(max_examples=40, derandomize=True, database=None)
    @given(damaged(content))
    def read(changed):
        for other, before in others.items():
            other.write_bytes(before)
        file.write_bytes(changed)
        with contextlib.nullcontext() if kind.always else contextlib.suppress(UserError):
            kind.read(directory)

    read()
