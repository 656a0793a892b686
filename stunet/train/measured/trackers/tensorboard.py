"""Writes metrics and pictures for TensorBoard.

Where PyTorch is installed, tensorboardX imports it, which takes two seconds.
"""

import pathlib
import time
from collections.abc import Mapping

from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from stunet.train.measured.trackers.tracker import RunInfo


class TensorBoard:
    """Writes a new file of events in the working directory. See `trackers.tracker.Tracker`."""

    def __init__(self, run: RunInfo):
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
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()
