"""Writes metrics and pictures for TensorBoard.

Where PyTorch is installed, tensorboardX imports it, which takes two seconds.
"""

import pathlib
import struct
import time
from collections.abc import Iterator, Mapping

from google.protobuf.message import DecodeError
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from stunet.train.measured.trackers.tracker import RunInfo

# A record is its size, a checksum of the size, the event and a checksum of the event
# (https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h).
_HEAD, _TAIL = struct.Struct("<QI"), 4


class TensorBoard:
    """Writes a new file of events in the working directory. See `trackers.tracker.Tracker`.

    What the files of events that are there already hold is not written again.
    """

    def __init__(self, run: RunInfo):
        files = sorted(run.workdir.glob("events.out.tfevents.*"))
        self._held = {point for file in files for point in read_points(file)}
        # FileWriter is not used: if the disk is full, its thread dies, and the run then waits for
        # its queue for ever.
        self._writer = EventsWriter(str(run.workdir / "events"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, [v for k in values for v in summary.scalar(k, values[k]).value])

    def picture(self, step: int, name: str, path: str) -> None:
        with Image.open(path) as image:
            width, height = image.size
        picture = Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=pathlib.Path(path).read_bytes(),
        )
        self._write(step, [Summary.Value(tag=name, image=picture)])

    def close(self) -> None:
        self._writer.close()

    def _write(self, step: int, values: list[Summary.Value]) -> None:
        if values := [value for value in values if (step, value.tag) not in self._held]:
            event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
            self._writer.write_event(event)
            self._writer.flush()


def read_points(file: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the step and the tag of each value in a file of events, which may be cut off."""
    data, place = file.read_bytes(), 0
    while place + _HEAD.size <= len(data):
        begin = place + _HEAD.size
        place = begin + _HEAD.unpack_from(data, place)[0] + _TAIL
        if place > len(data):  # A process was killed while it wrote, or while it uploaded.
            return
        try:
            event = Event.FromString(data[begin : place - _TAIL])
        except DecodeError:  # A damaged disk: what follows is lost to TensorBoard too.
            return
        yield from ((event.step, value.tag) for value in event.summary.value)
