"""Turns a folder of videos into clip records: a TFDS data set in ArrayRecord files."""

import collections
import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stunet.data.records import METADATA_FILE, VIDEOS_FILE, ClipWriter
from stunet.errors import UserError
from stunet.files import atomic_directory, check_vacant
from stunet.prepare.decode import VIDEO_SUFFIXES, CorruptVideo, decode_clips

# Videos whose captions are encoded at once.
_CAPTIONS = 64

EncodeText = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class PrepareSummary:
    """What `prepare` did.

    Attributes:
      output_dir: the finished data set.
      train_clips: clips in the split "train".
      val_clips: clips in the split "val".
      videos: videos that gave at least one clip.
      captioned: of these, videos with a caption.
      skipped: what was wrong, by name of the video; none of its clips is in the records.
      too_short: videos that do not fill one clip.
      dropped_frames: frames at the ends of videos that fill no clip, those of `too_short` included.
      num_bytes: size of the record files.
      seconds: wall time.
    """

    output_dir: Path
    train_clips: int
    val_clips: int
    videos: int
    captioned: int
    skipped: dict[str, str]
    too_short: list[str]
    dropped_frames: int
    num_bytes: int
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.output_dir}: {self.train_clips} clips to train on and {self.val_clips} held"
            f" out, from {self.videos} videos ({self.captioned} with a caption),"
            f" {self.num_bytes / 2**20:.1f} MiB, in {self.seconds:.1f} s"
        ]
        lines += [f"skipped {reason}" for reason in self.skipped.values()]
        if self.too_short:
            lines.append(f"too short for one clip: {', '.join(self.too_short)}")
        if self.dropped_frames:
            lines.append(f"{self.dropped_frames} frames at the ends of videos fill no clip")
        return _readable("\n".join(lines))


def prepare(
    input_dir: str | Path,
    output_dir: str | Path,
    *,
    frames: int,
    fps: float | int,
    height: int,
    width: int,
    channels: int = 3,
    encode_text: EncodeText | None = None,
    text_encoder: str | None = None,
    text_fingerprint: str = "",
    val_fraction: float | int = 0.1,
    name: str = "clips",
    shard_bytes: int = 256 * 2**20,
    workers: int | None = None,
    progress: bool = True,
) -> PrepareSummary:
    """Writes the clips of all videos below `input_dir` as a TFDS data set.

    Of each video the last `val_fraction` of its clips is held out as the split "val" (fractions of
    clips are carried over from one video to the next). Neighbouring clips are nearly the same
    picture, so clips drawn at random would have their likeness in the training set; the end of a
    video touches it at one place only. What this measures is the same scenes later on; to measure
    unseen scenes, prepare other videos by themselves.

    The records appear under `output_dir` when they are complete, and not before.

    Args:
      input_dir: folder of videos, searched in depth, with captions as `find_videos` expects them.
      output_dir: what to create; may exist only if it is empty.
      frames: frames per clip.
      fps: frames per second that videos are resampled to.
      height: of the clips, in pixels; see `decode_clips` for how pictures are cut.
      width: of the clips, in pixels.
      channels: 3 (RGB) or 1 (grey).
      encode_text: from n captions to states float32 [n, l, d] and mask bool [n, l], stored with
        every clip; with None only the captions are.
      text_encoder: the encoder's name, noted for whoever reads the records.
      text_fingerprint: of its weights and tokenizer, noted likewise.
      val_fraction: in [0, 1). Unless it is 0, at least one of two or more clips is held out.
      name: the data set's name for TFDS; lower case letters, digits and underscores.
      shard_bytes: size at which a new record file begins.
      workers: videos decoded at once, each in a thread; by default one for each processor.
      progress: whether to show a bar on a terminal.

    Returns:
      Counts, and the videos that were skipped because they cannot be decoded.

    Raises:
      UserError: nothing to read, nowhere to write, an argument out of range, a full disk. Nothing
        is left behind.
    """
    started = time.monotonic()
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"the name {name!r} must be lower case letters, digits and underscores")
    check_vacant(output_dir)
    shape = (frames, height, width, channels)
    captions = find_videos(input_dir)
    with atomic_directory(output_dir) as partial:
        writer = ClipWriter(partial, name, shard_bytes)
        with contextlib.closing(
            _decode_all(input_dir, captions, partial, shape, fps, workers)
        ) as spooled:
            done = _write_clips(
                spooled, captions, shape, writer, encode_text, val_fraction, progress
            )
        if not done.clips:
            bad = next(iter(done.skipped.values()), "all are shorter than one clip")
            raise UserError(f"no video of {input_dir} gave a clip of {frames} frames: {bad}")
        num_bytes = writer.close(shape, done.text_shape)
        length, dim = done.text_shape or (0, 0)
        metadata = {
            "frames": frames,
            "fps": fps,
            "height": height,
            "width": width,
            "channels": channels,
            "text_encoder": {
                "name": text_encoder,
                "max_length": length,
                "dim": dim,
                "fingerprint": text_fingerprint,
            },
            "val_fraction": val_fraction,
        }
        videos = {
            "videos": done.clips,
            "skipped": done.skipped,
            "too_short": done.too_short,
        }
        for file, content in ((METADATA_FILE, metadata), (VIDEOS_FILE, videos)):
            (partial / file).write_text(json.dumps(content, indent=1) + "\n")
    return PrepareSummary(
        output_dir=output_dir,
        train_clips=sum(video["train"] for video in done.clips),
        val_clips=sum(video["val"] for video in done.clips),
        videos=len(done.clips),
        captioned=sum(bool(video["caption"]) for video in done.clips),
        skipped=done.skipped,
        too_short=done.too_short,
        dropped_frames=done.dropped_frames,
        num_bytes=num_bytes,
        seconds=time.monotonic() - started,
    )


@dataclasses.dataclass
class _Done:
    clips: list[dict] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    too_short: list[str] = dataclasses.field(default_factory=list)
    dropped_frames: int = 0
    text_shape: tuple[int, int] | None = None


def _write_clips(spooled, captions, shape, writer, encode_text, val_fraction, progress) -> _Done:
    """Deals the decoded clips out to the splits."""
    done = _Done()
    encoded = _encoded_ahead(list(captions.values()), encode_text)
    # Beginning above 0 makes the first video with clips to spare give one.
    owed = 1 - val_fraction if val_fraction else 0.0
    hidden = None if progress else True
    videos = zip(spooled, encoded, strict=True)
    for (video, result), text in tqdm(videos, total=len(captions), unit="video", disable=hidden):
        name = _readable(video)
        if isinstance(result, CorruptVideo):
            done.skipped[name] = _readable(str(result))
            continue
        spool, num_clips, dropped_frames = result
        done.dropped_frames += dropped_frames
        if not num_clips:
            done.too_short.append(name)
            continue
        # The sum of fractions may miss a whole number by a rounding error.
        owed += val_fraction * num_clips
        may_hold_out = num_clips if done.clips else num_clips - 1
        val = min(math.floor(owed + 1e-9), may_hold_out)
        owed -= val
        example = {"caption": captions[video], **text}
        if text:
            done.text_shape = text["text"].shape
        with spool.open("rb") as file:
            for i in range(num_clips):
                clip = np.frombuffer(file.read(math.prod(shape)), np.uint8).reshape(shape)
                split = "train" if i < num_clips - val else "val"
                writer.write(split, {"video": clip, "source": f"{name}#{i}", **example})
        spool.unlink()
        done.clips.append(
            {"file": name, "caption": captions[video], "train": num_clips - val, "val": val}
        )
    return done


def _encoded_ahead(
    captions: Sequence[str], encode_text: EncodeText | None
) -> Iterator[dict[str, np.ndarray]]:
    """The states and the mask of each caption in turn, as they lie in an example; encoded in
    batches, of which each holds a caption once."""
    for begin in range(0, len(captions), _CAPTIONS):
        batch = captions[begin : begin + _CAPTIONS]
        if encode_text is None:
            yield from ({} for _ in batch)
            continue
        rows = {caption: i for i, caption in enumerate(dict.fromkeys(batch))}
        states, mask = encode_text(list(rows))
        for caption in batch:
            yield {"text": states[rows[caption]], "text_mask": mask[rows[caption]]}


def _decode_all(input_dir, videos, partial, shape, fps, workers) -> Iterator[tuple]:
    """Yields (video, result) in order, decoding some videos ahead.

    A result is (file of raw clips, number of clips, dropped frames), or the CorruptVideo that
    reading the video raised. Clips pass through a file because only the end of a video tells how
    many there are, and whether it is sound.
    """
    frames, height, width, channels = shape
    stop = threading.Event()

    def decode(index, video):
        spool = partial / f"spool-{index}"
        clips = decode_clips(input_dir / video, frames, fps, height, width, channels)
        try:
            with spool.open("wb") as file:
                for clip in _or_corrupt(clips, input_dir / video):
                    file.write(clip.data)
                    if stop.is_set():
                        break
        except CorruptVideo as error:
            spool.unlink()
            return error
        return spool, clips.clips, clips.dropped_frames

    workers = workers or os.cpu_count() or 1
    waiting = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index, video in enumerate(videos):
                waiting.append((video, pool.submit(decode, index, video)))
                # Decoding far ahead of the writer would fill the disk with spools.
                if len(waiting) > workers:
                    video, future = waiting.popleft()
                    yield video, future.result()
            for video, future in waiting:
                yield video, future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _or_corrupt(clips: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """The clips of a video. Whatever else goes wrong in decoding it is told as a CorruptVideo: one
    odd file of thousands is to cost no more than itself."""
    try:
        yield from clips
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CorruptVideo(f"{path} cannot be decoded ({reason})") from error


def find_videos(directory: Path) -> dict[str, str]:
    """Maps each video below `directory`, as its path from there, to its caption.

    A caption comes from `captions.jsonl` (one `{"file": "a.mp4", "caption": "..."}` a line) or
    `captions.csv` (columns `file` and `caption`) in `directory`, or else from `a.txt` beside
    `a.mp4`; a video without any has the empty caption. Files are sorted, so that two runs agree.
    A caption file writes names that are no UTF-8 as `prepare` does, in the records and elsewhere:
    `caf\\udce9.mp4`.

    Raises:
      UserError: no such folder, no video in it, or a caption file that cannot be understood.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}")
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    ]
    if not files:
        raise UserError(f"{directory} holds no video; known are {', '.join(VIDEO_SUFFIXES)}")
    listed, listing = _listed_captions(directory)
    captions = {}
    for path in files:
        name = path.relative_to(directory).as_posix()
        beside = path.with_suffix(".txt")
        if _readable(name) not in listed and beside.is_file():
            captions[name] = _one_line(_read(beside))
        else:
            captions[name] = listed.get(_readable(name), "")
    # Nothing but misses means that the paths are written from elsewhere, and every caption is lost.
    if listed and not listed.keys() & set(map(_readable, captions)):
        raise UserError(
            f"{listing} names {next(iter(listed))!r} and so on, none of them a video of"
            f" {directory}; write paths from that folder, such as {next(iter(captions))!r}"
        )
    return captions


def _listed_captions(directory: Path) -> tuple[dict[str, str], Path | None]:
    """The captions by file name, and the file that lists them."""
    for path, rows in (
        (directory / "captions.jsonl", _json_rows),
        (directory / "captions.csv", _csv_rows),
    ):
        if path.is_file():
            captions = {}
            for line, row in rows(path):
                fields = (row.get("file"), row.get("caption")) if isinstance(row, dict) else ()
                if not fields or not all(isinstance(field, str) for field in fields):
                    raise UserError(f"{path}, line {line}: expected texts 'file' and 'caption'")
                captions[_readable(Path(fields[0]).as_posix())] = _one_line(fields[1])
            return captions, path
    return {}, None


def _json_rows(path: Path):
    # Not `splitlines`, which also splits at characters that JSON leaves as they are within texts.
    for line, text in enumerate(_read(path).split("\n"), 1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {line}: not JSON ({error.msg})") from error


def _csv_rows(path: Path):
    # Keeps the ends of lines: a quoted caption may hold some.
    reader = csv.DictReader(io.StringIO(_read(path), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        # DictReader itself counts a line when its row is whole.
        raise UserError(f"{path}, line {reader.reader.line_num}: not CSV ({error})") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _one_line(text: str) -> str:
    return _readable(" ".join(text.split()))


def _readable(text: str) -> str:
    """The text as UTF-8 can hold it. Python reads bytes of file names that are no UTF-8, and such
    escapes in JSON, as halves of surrogate pairs; these are spelt out, as in `caf\\udce9.mp4`."""
    return text.encode(errors="backslashreplace").decode()
