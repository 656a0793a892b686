"""Cuts clips out of shots when they are read: the `Source` of a run on a set of shots."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import UInt8

from stunet.data.draws import normal, pick
from stunet.data.shots import slots
from stunet.data.shots.codecs import cut_out
from stunet.data.shots.crops import crop, share_cut_off
from stunet.data.shots.latents import StoredLatents, find_latents
from stunet.data.shots.layout import read_index, read_spec, shard_file
from stunet.data.shots.records import Shot, unpack
from stunet.data.shots.shards import Shards
from stunet.data.shots.states import States, find_encoder
from stunet.data.spec import AutoencoderSpec, ClipSpec, TextSpec, make_encoder
from stunet.errors import UserError


class ShotClips:
    """Gives random access to the clips of one split of a set of shots.

    Indexing returns an example: `video` uint8 [t, h, w, c], `caption` str, `text` float32 [l, d]
    and `text_mask` bool [l]. Nothing in it is random: clips of a shot follow each other, the crop
    is at the centre, and the caption is the video's first. `draw` takes random words instead.
    Several threads may read at once.

    With an autoencoder, `video` is not pixels but stored latents, float32 [t, y, x, z]. Indexing
    gives their means, and `draw` draws them from their normal distribution. A super-resolution
    network also gets the means of the low-resolution clip's latents, after them along the channels.
    """

    def __init__(
        self,
        directory: str | Path,
        split: str,
        clip: ClipSpec,
        text: TextSpec,
        *,
        crop: str = "centre",
        max_crop: float | int = 1,
        mirror: bool = False,
        autoencoder: AutoencoderSpec | None = None,
        low_factor: int = 1,
    ):
        """Opens the set, and counts the clips of the split.

        Args:
            directory: a directory that `stunet prepare` wrote.
            split: "train" or "val".
            clip: frames, size and rate of the clips. Its stride must be 1.
            text: encoder of the captions.
            crop: "centre" or "random", where `draw` cuts the picture that is larger than the clip.
            max_crop: largest share of a picture, 0 to 1, that may be cut off to give it the shape
                of the clip. Shots that would lose more are left out.
            mirror: True if `draw` mirrors half of all clips.
            autoencoder: the autoencoder whose latents are read, of pictures of the size of `clip`;
                None reads pixels. Latents can neither be cropped at random nor mirrored.
            low_factor: with an autoencoder and above 1, the stored latents of low-resolution clips,
                smaller by this factor, are read too.

        Raises:
            UserError: the set is not complete or damaged, has no such split, holds no such latents,
                or no shot is long enough for a clip or has its shape.
        """
        self.directory, self.split, self._clip = Path(directory), split, clip
        spec, index = read_spec(self.directory), read_index(self.directory)
        self._codec, self._index = spec.make_codec(), index
        self._crop, self._mirror = crop, mirror
        if split not in ("train", "val"):
            raise UserError(f"{self.directory} has no split {split!r}; it has train, val")
        self._offsets = slots.offsets(clip.frames, clip.fps, spec.fps)
        span = int(self._offsets[-1]) + 1
        kept = index.frames - index.held_out
        begins, lengths = (
            (np.zeros_like(kept), kept) if split == "train" else (kept, index.held_out)
        )
        lost = share_cut_off(index.height, index.width, clip.height, clip.width)
        fits = lost <= max_crop
        self._slots = slots.Slots(begins, np.where(fits, lengths, 0), span)
        if not len(self._slots):
            there = lengths > 0
            if there.any() and not fits[there].any():
                raise UserError(
                    f"no shot of {self.directory} fits clips of {clip.height}x{clip.width} pixels: "
                    f"the nearest would lose {lost[there].min():.0%} of its picture, and "
                    f"data.max_crop is {max_crop:g}; raise it, or change data.height or data.width"
                )
            longest = float(lengths[fits].max(initial=0)) / spec.fps
            raise UserError(
                f"{self.directory} has no clip of {span / spec.fps:.2f} s in the split {split!r}, "
                f"whose longest stretch has {longest:.2f} s; lower data.frames or raise data.fps"
                + ", or prepare again with a larger --val-seconds"
                * (split == "val")
            )
        parts = range(len(index.records))
        self._ends = np.cumsum(index.records)
        self._shards = Shards(
            [shard_file(self.directory, part) for part in parts], index.bytes.tolist()
        )
        self._latents = self._low = None
        if autoencoder:
            size = clip.height, clip.width
            made = find_latents(self.directory, autoencoder, *size)
            self._latents = StoredLatents(self.directory, made, index)
            if low_factor > 1:
                made = find_latents(self.directory, autoencoder, *size, low_factor)
                self._low = StoredLatents(self.directory, made, index)
        encoder = find_encoder(self.directory, text)
        self._text = text
        self._states = encoder and States(self.directory, encoder, index)
        if encoder is None:
            make_encoder(text)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return self._read(operator.index(index), None)

    def draw(self, index: SupportsIndex, words: Sequence[int]) -> dict[str, Any]:
        """Returns a random example of a slot.

        Args:
            index: number of the slot.
            words: four random numbers of 64 bits, which choose the first frame, the caption, the
                crop and the mirroring. For latents, the third one is the seed of their noise.
        """
        return self._read(operator.index(index), words)

    def _read(self, index: int, words: Sequence[int] | None) -> dict[str, Any]:
        slot = self._slots[index]
        shard = int(np.searchsorted(self._ends, slot.shot, side="right"))
        number = slot.shot - int(self._ends[shard] - self._index.records[shard])
        record = self._shards.read(shard, number)
        try:
            shot = unpack(record)
            if len(shot.packets) != self._index.frames[slot.shot]:
                raise ValueError(f"it holds {len(shot.packets)} pictures")
            begin = slot.place if words is None else pick(words[0], slot.begin, slot.end)
            wanted = (begin + self._offsets).tolist()
            if self._latents is None:
                video = self._cut(shot, wanted, words)
            else:
                latents = self._latents.read(shard, number, wanted)
                video = (
                    latents.mean
                    if words is None
                    else latents.sample(normal(words[2], latents.mean.shape))
                )
                if self._low:
                    low = self._low.read(shard, number, wanted).mean
                    video = np.concatenate([video, low], axis=-1)
        except (ValueError, OSError) as error:
            raise self._shards.damaged(shard, number, error) from error
        chosen = 0 if words is None else pick(words[1], 0, len(shot.captions))
        caption = shot.captions[chosen]
        if self._states is None:
            states, mask = (of_all[0] for of_all in make_encoder(self._text)([caption]))
        else:
            states, mask = self._states.read(shard, shot.states[chosen])
        return {"video": video, "caption": caption, "text": states, "text_mask": mask}

    def _cut(
        self, shot: Shot, wanted: Sequence[int], words: Sequence[int] | None
    ) -> UInt8[np.ndarray, "t h w c"]:
        """Returns the clip of the wanted pictures of a shot."""
        clip = self._clip
        frames = self._codec.decode(shot.packets, wanted, shot.height, shot.width)
        word = None if words is None or self._crop == "centre" else words[2]
        box = crop(shot.height, shot.width, clip.height, clip.width, word)
        video = cut_out(frames, box, clip.height, clip.width, clip.channels)
        is_mirrored = words is not None and self._mirror and words[3] % 2
        return np.ascontiguousarray(video[:, :, ::-1]) if is_mirrored else video
