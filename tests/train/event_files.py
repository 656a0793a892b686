"""Reads TensorBoard's files of events without TensorBoard."""

import pathlib
import struct

from tensorboardX.proto.event_pb2 import Event


def points(folder: pathlib.Path) -> list[tuple[int, str, float]]:
    """Returns the step, name and value of each point in all files of events of a folder.

    The files are TFRecords with records of protobuf. One that ends within a record is read up to
    there, as TensorBoard does.
    """
    found = []
    for file in folder.glob("events.*"):
        data, place = file.read_bytes(), 0
        while place + 12 <= len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            if place + 12 + size + 4 > len(data):
                break
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += 12 + size + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.append((event.step, value.tag, value.simple_value))
    return found
