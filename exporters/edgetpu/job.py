"""One run of the Edge TPU compiler: where its files lie, what it said of each, and how they come back."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceError, ExportError
from ehdnas.core.files import atomic_path
from ehdnas.exporters.edgetpu.log import Compilation, add_segments, parse_compilations
from ehdnas.exporters.edgetpu.reader import printable

if TYPE_CHECKING:
    from ehdnas.core.remote import Completed, Transport

_MAX_LOG_BYTES = 16 << 20
_TFLITE = b"TFL3"  # bytes 4 to 8 of every TensorFlow Lite file
# Models travel under names that no command line can mistake and that no output of another model can have.
_STEM = "ehdnas_model_"
_STEMS = re.compile(rf"{_STEM}([0-9]{{1,4}})(?=[._])")


@dataclass(frozen=True)
class Compiled:
    """A model and what came of it: `files`, one a segment, and what the compiler printed and logged.

    `compilation` is of the whole model, `segments` of each file, in the order of `files`.
    """

    model: Path
    files: list[Path]
    log: str
    compilation: Compilation
    segments: list[Compilation]


@dataclass(frozen=True)
class Job:
    """Models in the transport's `folder`, which the compiler sees as `inside`, to be cut in `segments`."""

    transport: Transport
    models: Sequence[Path]
    folder: str
    inside: str
    segments: int

    @property
    def names(self) -> str:
        """The models' names, for messages."""
        return ", ".join(model.name for model in self.models)

    def inputs(self) -> list[str]:
        """Return the models' paths as the compiler sees them."""
        return [f"{self.inside}/{stem(index)}.tflite" for index in range(len(self.models))]

    def collect(self, done: Completed, out: Path) -> list[Compiled]:
        """Return what the run gave, its files brought to `out` once all of them are known to be whole.

        Raises:
            ExportError: the compiler failed, or its files or its report are not what a success leaves.
            ConnectionLostError: the host stopped answering.
            EhdnasError: `out` cannot be written.
        """
        streams = [stream.decode(errors="replace") for stream in (done.stdout, done.stderr)]
        logs = self._logs() if done.code == 0 else {}
        # Which stream spoke when is lost: what the early tries of a search said on stderr must not stand
        # against its success, but of a failure stderr may hold the reason.
        spoken = "\n".join(reversed(streams) if done.code == 0 else streams)
        found = parse_compilations(spoken, logs, done.code)
        for one in found:
            if not one.succeeded:
                raise ExportError(
                    f"the Edge TPU compiler cannot compile {self.names}: {self._renamed(one.failure or '')}; "
                    "`ehdnas check` tells which operators it is known to take"
                )
        compiled = [
            self._compiled(index, out, "\n".join(streams), logs, found) for index in range(len(self.models))
        ]
        with ExitStack() as stack:
            for index, one_model in enumerate(compiled):
                for part, target in zip(self._parts(index), one_model.files, strict=True):
                    self._fetch(
                        f"{part}_edgetpu.tflite", stack.enter_context(atomic_path(target)), target.name
                    )
        return compiled

    def _parts(self, index: int) -> list[str]:
        """Return the stems of a model's files, segment by segment."""
        if self.segments == 1:
            return [stem(index)]
        return [f"{stem(index)}_segment_{i}_of_{self.segments}" for i in range(self.segments)]

    def _logs(self) -> dict[str, str]:
        """Return the operation logs that are there, by name; the same rows stand in the output."""
        texts = {}
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            for part in (part for index in range(len(self.models)) for part in self._parts(index)):
                path = Path(folder, f"{part}_edgetpu.log")
                if self._get(path.name, path) is None:
                    with path.open("rb") as stream:
                        texts[path.name] = stream.read(_MAX_LOG_BYTES).decode(errors="replace")
        return texts

    def _fetch(self, name: str, target: Path, shown: str) -> None:
        missing = self._get(name, target)
        if missing is not None:
            raise ExportError(
                f"the Edge TPU compiler reports success but left no {shown}: {self._renamed(str(missing))}"
            ) from missing
        with target.open("rb") as stream:
            head = stream.read(8)
        if head[4:] != _TFLITE:
            raise ExportError(
                f"the Edge TPU compiler left a {shown} that is no TensorFlow Lite file; try again"
            )

    def _get(self, name: str, target: Path) -> DeviceError | None:
        """Copy a file of the run to `target`; return the error that says that it is not there."""
        from ehdnas.core.remote import ConnectionLostError

        try:
            self.transport.get(name, target)
        except ConnectionLostError:
            raise
        except DeviceError as error:
            return error
        return None

    def _compiled(
        self, index: int, out: Path, output: str, logs: dict[str, str], found: Sequence[Compilation]
    ) -> Compiled:
        # By name, the last of a name: a search for a delegate may report a part more than once.
        reports = {PurePosixPath(one.input_model or "").name: one for one in found}
        alone = found[0] if len(self.models) == self.segments == 1 else None
        files, segments = [], []
        for part in self._parts(index):
            files.append(out / self._renamed(f"{part}_edgetpu.tflite"))
            report = reports.get(f"{part}.tflite", alone)
            if report is None:
                raise ExportError(
                    f"the Edge TPU compiler says nothing of {files[-1].name}; its last line: {_last(output)}"
                )
            names = {"input_model": self._renamed(f"{part}.tflite"), "output_model": files[-1].name}
            segments.append(report.model_copy(update=names))
        model = self.models[index]
        whole = segments[0] if len(segments) == 1 else add_segments(segments)
        whole = whole.model_copy(update={"input_model": model.name})
        own = [logs.get(f"{part}_edgetpu.log", "") for part in self._parts(index)]
        return Compiled(model, files, self._renamed("\n".join([output, *own])), whole, segments)

    def _renamed(self, text: str) -> str:
        """Return `text` with the user's names in place of those in our folder."""
        for folder in (self.folder, self.inside):
            text = text.replace(f"{folder}/{_STEM}", _STEM)
        return _STEMS.sub(lambda found: self._user_stem(int(found[1])) or found[0], text)

    def _user_stem(self, index: int) -> str:
        return self.models[index].stem if index < len(self.models) else ""


def stem(index: int) -> str:
    """Return the name, without its suffix, under which a run's model number `index` travels."""
    return f"{_STEM}{index}"


def _last(output: str) -> str:
    """Return the last line of what was printed, on one line and short."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return printable(lines[-1])[:200] if lines else "nothing"
