"""Turns a folder of videos into clip records: a TFDS data set in ArrayRecord files."""

import dataclasses
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from stunet.data.records import METADATA_FILE
from stunet.errors import UserError
from stunet.files import atomic_directory, check_vacant
from stunet.prepare.caption_files import escape_surrogates
from stunet.prepare.cutting import cut_videos
from stunet.prepare.encoding import EncodeText, encode_captions
from stunet.prepare.finding import find_videos
from stunet.prepare.writing import VIDEOS_FILE, ClipWriter, write_videos

# Videos of each kind that the summary names. The file of videos names all.
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class PrepareSummary:
    """Counts what `prepare` wrote and names the videos that it left out.

    Attributes:
        output_dir: directory of the finished data set.
        train_clips: clips in the split "train".
        val_clips: clips in the split "val".
        videos: number of videos that gave at least one clip.
        captioned: number of videos that gave at least one clip and have a caption.
        skipped: name of each video that could not be decoded, and the reason. The records hold no
            clip of such a video.
        too_short: names of videos that do not fill one clip.
        folder_notes: sentences for the user about captions, and about files that are not read.
        notes: maps the name of a video that was decoded to a note for the user about the video.
        dropped_frames: number of frames that are in no clip. Such frames remain before the end of a
            video or before a place that no clip may span, and are too few for a clip. The frames of
            `too_short` videos are included.
        num_bytes: size of the record files in bytes.
        seconds: wall time.
    """

    output_dir: Path
    train_clips: int
    val_clips: int
    videos: int
    captioned: int
    skipped: dict[str, str]
    too_short: list[str]
    folder_notes: list[str]
    notes: dict[str, str]
    dropped_frames: int
    num_bytes: int
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.output_dir}: {self.train_clips} clips to train on and {self.val_clips} held"
            f" out, from {self.videos} videos ({self.captioned} with a caption),"
            f" {self.num_bytes / 2**20:.1f} MiB, in {self.seconds:.1f} s"
        ]
        lines += _shortened([f"skipped {reason}" for reason in self.skipped.values()])
        lines += [*self.folder_notes, *_shortened(list(self.notes.values()))]
        if self.too_short:
            lines.append(f"too short for one clip: {', '.join(_shortened(self.too_short))}")
        if self.dropped_frames:
            lines.append(
                f"{self.dropped_frames} frames at the ends of videos, or of their unbroken parts, "
                "are in no clip"
            )
        return escape_surrogates("\n".join(lines))


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

    The last `val_fraction` of each video's clips is held out as the split "val". If this share is
    not a whole number of clips, the remainder is added to the share of the next video.

    The last clips are held out, because neighbouring clips are nearly the same picture. If held-out
    clips were drawn at random, near-copies of them would be in the training set. Of the held-out
    clips of a video, only the first has a neighbour in the training set. Validation therefore
    measures later parts of the same scenes. To measure on unseen scenes, prepare a separate data
    set from other videos.

    The records appear under `output_dir` only when they are complete.

    Args:
        input_dir: folder of videos, searched recursively, with captions as `find_videos` expects.
        output_dir: directory to create. It may exist if it is empty.
        frames: frames in each clip.
        fps: frames per second to which videos are resampled.
        height: height of the clips in pixels. See `decode_clips` for how pictures are cropped.
        width: width of the clips in pixels.
        channels: 3 (RGB) or 1 (grey).
        encode_text: encodes captions to states, which are stored with every clip. None stores the
            captions alone.
        text_encoder: name of the text encoder, noted beside the records.
        text_fingerprint: fingerprint of the encoder's weights and tokenizer, noted beside the
            records.
        val_fraction: share of the clips that is held out, in [0, 1). If it is above 0 and there are
            two clips or more, at least one is held out.
        name: name of the data set for TFDS: lower case letters, digits and underscores.
        shard_bytes: size in bytes at which a new record file begins.
        workers: videos decoded at once, each in a thread; None means one for each processor.
        progress: show a progress bar if the output is a terminal.

    Returns:
        The numbers of clips and videos, and the videos that were left out.

    Raises:
        UserError: there are no videos, the output directory cannot be created, an argument is out
            of range, or the disk is full. Nothing is left behind.
    """
    started = time.monotonic()
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"the name {name!r} must be lower case letters, digits and underscores")
    check_vacant(output_dir)
    shape = (frames, height, width, channels)
    found = find_videos(input_dir)
    captions = found.captions
    folder_notes = [*found.notes, *_of_cut_captions(captions, encode_text)]
    with atomic_directory(output_dir) as partial:
        writer = ClipWriter(partial, name, shard_bytes)
        with cut_videos(input_dir, list(captions), partial, shape, fps, workers) as cut:
            encoded = encode_captions(list(captions.values()), encode_text)
            videos = zip(captions, cut, captions.values(), encoded, strict=True)
            hidden = None if progress else True  # tqdm reads None as "hidden without a terminal".
            bar = tqdm(videos, total=len(captions), unit="video", disable=hidden)
            result = write_videos(bar, writer, val_fraction)
        if not result.written:
            reason = next(iter(result.skipped.values()), "all are shorter than one clip")
            raise UserError(f"no video of {input_dir} gave a clip of {frames} frames: {reason}")
        num_bytes = writer.close(shape, result.text_shape)
        text_length, text_dim = result.text_shape or (0, 0)
        metadata = {
            "frames": frames,
            "fps": fps,
            "height": height,
            "width": width,
            "channels": channels,
            "text_encoder": {
                "name": text_encoder,
                "max_length": text_length,
                "dim": text_dim,
                "fingerprint": text_fingerprint,
            },
            "val_fraction": val_fraction,
        }
        listing = {
            "videos": result.written,
            "skipped": result.skipped,
            "too_short": result.too_short,
            "notes": result.notes,
            "folder_notes": folder_notes,
        }
        for file, content in ((METADATA_FILE, metadata), (VIDEOS_FILE, listing)):
            (partial / file).write_text(json.dumps(content, indent=1) + "\n")
    return PrepareSummary(
        output_dir=output_dir,
        train_clips=sum(video["train"] for video in result.written),
        val_clips=sum(video["val"] for video in result.written),
        videos=len(result.written),
        captioned=sum(bool(video["caption"]) for video in result.written),
        skipped=result.skipped,
        too_short=result.too_short,
        folder_notes=folder_notes,
        notes=result.notes,
        dropped_frames=result.dropped_frames,
        num_bytes=num_bytes,
        seconds=time.monotonic() - started,
    )


def _of_cut_captions(captions: Mapping[str, str], encode_text: EncodeText | None) -> list[str]:
    """Returns a note about captions that the text encoder cuts, if there are any."""
    if encode_text is None:
        return []
    cut = [video for video, caption in captions.items() if encode_text.is_cut(caption)]
    what = "captions are longer than the text encoder takes, and their ends are cut off"
    return [f"{len(cut)} {what}: that of {cut[0]}{' and others' * (len(cut) > 1)}"] if cut else []


def _shortened(entries: list[str]) -> list[str]:
    """Returns the first `_MAX_LISTED` entries, and a line with the number of further entries."""
    more = len(entries) - _MAX_LISTED
    return [*entries[:_MAX_LISTED], *([f"and {more} more (see {VIDEOS_FILE})"] * (more > 0))]
