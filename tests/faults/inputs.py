"""Every kind of file that the program reads, with the commands that read it."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import training
from PIL import Image
from processes import Server

from stunet import configs
from stunet.data import media
from stunet.sweep import workdir as sweeps
from stunet.sweep.members import Member, Sweep

TRAIN = (
    *("train", "--config={place}/experiment.py", "--workdir={place}/run"),
    *("--config.train.steps=2", "--config.checkpoint.every=1", "--config.log.sample_every=2"),
)
REPORT = ("report", "{place}/run", "--out={place}/report.html")
EXPORT = ("export", "--workdir={place}/run", "--out={place}/exported", "--format=safetensors")
SAMPLE = ("sample", "text", "--workdir={place}/run", "--prompt=a", "--out={place}/out")
REPORT_SWEEP = ("report", "{place}/sweep", "--out={place}/report.html")
RECORDS = (
    *("train", "--config={place}/experiment.py", "--workdir={place}/run"),
    *("--config.data.source=clips", "--config.data.path={place}/records"),
    *("--config.train.steps=1", "--config.checkpoint.every=1"),
)
DOCTOR = ("doctor", "--workdir={place}/run")
PREPARE = (
    *("prepare", "{place}/videos", "{place}/records", "--side=8", "--fps=8", "--workers=1"),
    *("--min-seconds=0.5", "--val-seconds=0.5"),
)
PREPARE_T5 = (*PREPARE, "--text-max-length=8", "--text-encoder=t5:{place}/t5/text_encoder")
MASKED = (
    *("train", "--config={place}/experiment.py", "--workdir={place}/masked"),
    *("--config.train.steps=1", "--config.masks.image=0.5", "--config.masks.inpaint=0.5"),
    "--config.masks.text=0",
)
GIVEN = ("--workdir={place}/masked", "--out={place}/out", "--steps=1")
IMAGE = ("sample", "image", *GIVEN, "--image={place}/given/picture.png")
INPAINT = (
    *("sample", "inpaint", *GIVEN, "--video={place}/given/video.mp4"),
    "--mask={place}/given/mask.mp4",
)
INIT_FROM = (
    *("train", "--config={place}/experiment.py", "--workdir={place}/new"),
    *("--config.train.steps=1", "--config.train.init_from={place}/weights/params.safetensors"),
)
INFLATE = ("inflate", "--t2i={place}/unet", "--out={place}/inflated", "--frames=4")


@dataclasses.dataclass(frozen=True)
class Input:
    """A kind of file that is read.

    Attributes:
        world: directory made by `build` that holds all that the commands need.
        files: glob of the files in that directory.
        kind: key of `mutations.SPECIAL`.
        commands: arguments of the commands that read such a file, of which one is tried each time.
        weight: how often a file of this kind is tried, in relation to others.
        real: True for the network that the config asks for.
    """

    world: str
    files: str
    kind: str
    commands: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    real: bool = False


INPUTS = {
    "config.json": Input(
        "run", "run/config.json", "json", (TRAIN, REPORT, EXPORT, SAMPLE, DOCTOR), 2
    ),
    "metrics.jsonl": Input("run", "run/metrics.jsonl", "json", (TRAIN, REPORT, DOCTOR), 2),
    "clock.json": Input("run", "run/clock.json", "json", (TRAIN, REPORT, DOCTOR)),
    "samples": Input("run", "run/samples/*", "bytes", (REPORT,)),
    "checkpoint, JSON": Input(
        "run", "run/checkpoints/2/**/*.json", "json", (TRAIN, EXPORT, DOCTOR)
    ),
    "checkpoint, any file": Input(
        "run", "run/checkpoints/2/**/*", "bytes", (TRAIN, EXPORT, DOCTOR), 2
    ),
    "sweep.json": Input("sweep", "sweep/sweep.json", "json", (REPORT_SWEEP,)),
    "evaluation.json": Input("sweep", "sweep/*/evaluation.json", "json", (REPORT_SWEEP,), 2),
    "features.json": Input("tfds", "records/features.json", "json", (RECORDS, DOCTOR)),
    "dataset_info.json": Input("tfds", "records/dataset_info.json", "json", (RECORDS, DOCTOR)),
    "clips.json": Input("tfds", "records/clips.json", "json", (RECORDS, DOCTOR)),
    "records": Input("tfds", "records/*array_record*", "bytes", (DOCTOR,)),
    "shots.json": Input("shots", "records/shots.json", "json", (RECORDS, DOCTOR, PREPARE)),
    "index of shots": Input(
        "shots", "records/index.safetensors", "safetensors", (RECORDS, DOCTOR), 2
    ),
    "manifests": Input("shots", "records/shards/*.json", "json", (PREPARE,)),
    "lists of parts": Input("shots", "records/lists/*.jsonl", "json", (PREPARE,)),
    "shots": Input("shots", "records/shards/*array_record*", "bytes", (DOCTOR,), 2),
    "captions.csv": Input("csv", "videos/captions.csv", "text", (PREPARE,), 2),
    "captions.jsonl": Input("jsonl", "videos/captions.jsonl", "json", (PREPARE,)),
    "captions in .txt": Input("txt", "videos/*.txt", "text", (PREPARE,)),
    "videos": Input("csv", "videos/*.mp4", "bytes", (PREPARE,), 2),
    "moving pictures": Input("csv", "videos/*.gif", "bytes", (PREPARE,)),
    "pictures": Input("masked", "given/picture.png", "png", (IMAGE,), 2),
    "masks": Input("masked", "given/mask.mp4", "bytes", (INPAINT,)),
    "videos to paint": Input("masked", "given/video.mp4", "bytes", (INPAINT,)),
    "weights": Input("weights", "weights/*", "safetensors", (INIT_FROM,), 0.3),
    "T5, JSON": Input("t5", "t5/*/*.json", "json", (PREPARE_T5,), 0.3),
    "T5, weights": Input("t5", "t5/*/*.safetensors", "safetensors", (PREPARE_T5,), 0.3),
    "T5, SentencePiece": Input("t5", "t5/*/spiece.model", "bytes", (PREPARE_T5,), 0.3),
    "U-Net, config": Input("unet", "unet/config.json", "json", (INFLATE,), 0.5, real=True),
    "U-Net, weights": Input("unet", "unet/*.safetensors", "safetensors", (INFLATE,), 0.5, True),
}


def words(command: tuple[str, ...], place: pathlib.Path) -> list[str]:
    """Returns a command's arguments for the directory that it works in."""
    return [word.replace("{place}", str(place)) for word in command]


class Worlds:
    """Holds directories of healthy files. Each one is made when it is first asked for.

    Args:
        directory: where the directories are made.
        server: runs the commands that make them.
    """

    def __init__(self, directory: pathlib.Path, server: Server):
        self._directory, self._server = directory, server
        self._made: dict[str, pathlib.Path] = {}

    def __call__(self, world: str) -> pathlib.Path:
        """Returns the directory of a world. After a failure, the next call makes it again."""
        if world not in self._made:
            place = self._directory / world
            shutil.rmtree(place, ignore_errors=True)
            build(world, place, self._server)
            self._made[world] = place
        return self._made[world]


def build(world: str, place: pathlib.Path, server: Server) -> None:
    """Makes the directory of a world, with healthy files."""
    place.mkdir()
    (place / "experiment.py").write_text(training.EXPERIMENT)
    if world in _WRITERS:
        _WRITERS[world](place)
    for command in _COMMANDS.get(world, ()):
        ended = server.run(*words(command, place))
        assert ended.status == 0, ended.output
    if world == "weights":
        (place / "exported").rename(place / "weights")
    if world == "sweep":
        _make_sweep(place)


def _make_sweep(place: pathlib.Path) -> None:
    """Makes a sweep of the run and a copy of it, with evaluations."""
    config = configs.read(place / "run" / "config.json")
    sweep, names = place / "sweep", ("seed=0", "seed=1")
    members = [Member(name, config) for name in names]
    sweeps.claim(sweep, Sweep(members, question="Which is better?"), ["sweep"])
    for number, name in enumerate(names):
        shutil.copytree(place / "run", sweep / name, dirs_exist_ok=True)
        evaluation = {
            "metrics": {"steady": 0.5 + number, "fast": {"drift": 1.5}, "nested": {"a": {"b": 2}}},
            "better": {"steady": "higher", "fast / drift": "lower"},
            "training_flops": 10**9,
            "sampling_flops": 10**8,
            "given": "",
        }
        (sweep / name / "evaluation.json").write_text(json.dumps(evaluation, indent=1))
    shutil.rmtree(place / "run")


def _clips(seed: int = 0) -> np.ndarray:
    """Returns a moving square, float32 [b, t, h, w, c]."""
    clips = np.full((1, 8, 16, 16, 3), -0.5 + 0.1 * seed, np.float32)
    for t in range(clips.shape[1]):
        clips[0, t, 4:8, t : t + 4] = 1
    return clips


def _write_videos(place: pathlib.Path) -> None:
    folder = place / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        media.write_mp4(folder / f"{name}.mp4", _clips(), 8)
    media.write_gif(folder / "c.gif", _clips(), 8)


def _write_csv(place: pathlib.Path) -> None:
    _write_videos(place)
    rows = ["file,caption", "a.mp4,a square", 'b.mp4,"a square, moving"', "c.gif,another"]
    (place / "videos" / "captions.csv").write_text("\n".join(rows) + "\n")


def _write_tfds(place: pathlib.Path) -> None:
    from read_records import ClipWriter

    records = place / "records"
    records.mkdir()
    writer, shape = ClipWriter(records, "clips", shard_bytes=2**20), (4, 8, 8, 1)
    for i in range(6):
        video, text = np.full(shape, 40 * i, np.uint8), np.zeros((8, 8), np.float32)
        states = {"text": text, "text_mask": np.ones(8, bool)}
        example = {"video": video, "caption": "a square", "source": f"a#{i}", **states}
        writer.write("train" if i else "val", example)
    writer.close(shape, (8, 8))
    encoder = {"name": "bytes", "max_length": 8, "dim": 8, "fingerprint": ""}
    (records / "clips.json").write_text(json.dumps({"fps": 8.0, "text_encoder": encoder}))


def _write_jsonl(place: pathlib.Path) -> None:
    _write_videos(place)
    lines = [{"file": name, "caption": "a square"} for name in ("a.mp4", "b.mp4", "c.gif")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "videos" / "captions.jsonl").write_text(text)


def _write_txt(place: pathlib.Path) -> None:
    _write_videos(place)
    for name in "abc":
        (place / "videos" / f"{name}.txt").write_text("a square\n")


def _write_given(place: pathlib.Path) -> None:
    given = place / "given"
    given.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(given / "picture.png")
    media.write_mp4(given / "video.mp4", _clips(), 8)
    media.write_mp4(given / "mask.mp4", np.sign(_clips()), 8)


def _write_t5(place: pathlib.Path) -> None:
    import sentencepiece
    import tiny_t5

    encoder, folder = place / "t5" / "text_encoder", place / "t5" / "tokenizer"
    folder.mkdir(parents=True)
    tiny_t5.save(encoder)
    _write_videos(place)
    text = place / "text.txt"
    text.write_text("a square moves left\nthe dog runs right\n12 quick brown foxes\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "spiece"),
        vocab_size=32,
        minloglevel=2,
        **dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
    )


def _write_unet(place: pathlib.Path) -> None:
    import tiny_unet

    tiny_unet.save(place / "unet", tiny_unet.flags((8, 16), norm_num_groups=2))


_WRITERS = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "txt": _write_txt,
    "tfds": _write_tfds,
    "shots": _write_csv,
    "masked": _write_given,
    "t5": _write_t5,
    "unet": _write_unet,
}
_COMMANDS = {
    "run": (TRAIN,),
    "sweep": (TRAIN,),
    "tfds": (RECORDS,),
    "shots": (PREPARE, RECORDS),
    "masked": (MASKED,),
    "weights": (TRAIN, EXPORT),
}
