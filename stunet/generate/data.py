"""Writes clips of a data source as files: to look at them, or to give them to `stunet sample`."""

import json
import pathlib

import numpy as np
from PIL import Image

from stunet.data import media
from stunet.data.sources import Dataset, make_source, representatives
from stunet.errors import UserError
from stunet.files import atomic, refusal_explained
from stunet.generate import arrays, output, text

# Clips that one picture shows at most. A picture of thousands would take gigabytes.
MOST_SHOWN = 64


def write(
    out: pathlib.Path, dataset: Dataset, split: str, num: int, command: str = ""
) -> dict[str, pathlib.Path]:
    """Writes `num` clips of a split into `out`, under names that begin with the split.

    One GIF, one MP4 and one picture of X-T slices show the first 64 clips with their captions, and
    one file of arrays holds all. `SPLIT_0.mp4` is the first clip alone, without caption, and
    `SPLIT_0.png` is its first frame in the clip's own size. `SPLIT.jsonl` lists the clips alone
    with their captions, as `stunet prepare` reads a list of videos.

    Args:
        out: directory, made if it does not exist.
        dataset: where clips come from.
        split: "train" or "val".
        num: number of clips. If there are fewer, all are written.
        command: the command line that asks for the clips.

    Returns:
        The paths of the files of several clips, and of the first clip's two files.

    Raises:
        UserError: the data cannot be opened, or `out` cannot be written.
    """
    output.check_out(out)
    dataset = dataset.of_pixels
    source = representatives(make_source(dataset, split), num, dataset)
    count = min(num, len(source))
    if not count:
        raise UserError(f"the split {split!r} has no clips")
    examples = [source[i] for i in range(count)]
    clips, rate = np.stack([e["video"] for e in examples]), dataset.clip.frame_rate
    captions = tuple(e["caption"] for e in examples)
    with refusal_explained(out, "choose an --out in which you may create files"):
        written = text.write(out, split, clips[:MOST_SHOWN], captions[:MOST_SHOWN], rate)
        files = {"GIF": written.gif, "MP4": written.mp4, "X-T slice": written.xt}
        files["arrays"] = out / f"{split}{arrays.SUFFIX}"
        arrays.write(files["arrays"], arrays.Shown("data", command, rate, captions, clips))
        files["list"] = out / f"{split}.jsonl"
        with atomic(files["list"]) as partial:
            rows = ({"path": f"{split}_{i}.mp4", "caption": c} for i, c in enumerate(captions))
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number in reversed(range(count)):
            clip = clips[number : number + 1]
            files["clip"] = out / f"{split}_{number}.mp4"
            files["frame"] = out / f"{split}_{number}.png"
            media.write_mp4(files["clip"], clip, rate)
            frame = clip[0, 0, ..., 0] if dataset.clip.channels == 1 else clip[0, 0]
            with atomic(files["frame"]) as partial:
                Image.fromarray(frame).save(partial, format="PNG")
    return files
