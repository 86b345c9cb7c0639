"""The records of epochs as a file that TensorBoard reads.

Written with TensorBoard's own record writer: `torch.utils.tensorboard` does the same, but loads TensorFlow.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ehdnas.core.text import numbers
from ehdnas.pipeline.context import Context
from ehdnas.search.loop import Loop
from ehdnas.workspace import Run

_NAME = "events.out.tfevents.0.ehdnas"
_LENGTH, _HEAD, _TAIL = (
    8,
    12,
    4,
)  # bytes: of a record's length, of that and its checksum, of the data's


def heard(context: Context, run: Run, stage: str, loop: Loop) -> Callable[[dict[str, Any]], None]:
    """Return what takes each epoch's record of a stage: it is shown, and written where TensorBoard finds it.

    Only the first of several processes has a run to write in; it is the one that calls this.
    """
    show = context.reporter.epochs(loop.epochs)
    events = EventFile(run.folder / "tensorboard" / stage, len(loop.history))

    def hear(record: dict[str, Any]) -> None:
        show(record)
        events.add(record)

    return hear


class EventFile:
    """The scalars of one stage, a step an epoch, in one file that grows.

    Args:
        folder: where it is; TensorBoard shows it as a run of that name.
        epochs: how many are kept of what is there already. What was written of later ones is withdrawn, as
            the `purge_step` of torch's SummaryWriter does it; with 0 the file is begun anew.
    """

    def __init__(self, folder: Path, epochs: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _NAME
        if epochs and self._path.is_file():
            _cut_to_whole_records(self._path)
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=epochs, session_log=start))
        else:
            self._path.write_bytes(b"")
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch's record, under its `epoch`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=key.replace(".", "/"), simple_value=value)
            for key, value in numbers(record)
            if key != "epoch"
        ]
        self._write(Event(wall_time=time.time(), step=record["epoch"], summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._path.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())


def _cut_to_whole_records(path: Path) -> None:
    """Cut off what a process that was killed had written of its last record."""
    with path.open("r+b") as stream:
        size, end = path.stat().st_size, 0
        while end + _HEAD <= size:
            stream.seek(end)
            (length,) = struct.unpack("<Q", stream.read(_LENGTH))
            if end + _HEAD + length + _TAIL > size:
                break
            end += _HEAD + length + _TAIL
        stream.truncate(end)
