"""The Edge TPU compiler, wherever it runs: models there, compiled files back, and what it said."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ehdnas.core.errors import ExportError, UsageError
from ehdnas.exporters.edgetpu.backends import Backend, find_backend, last_line
from ehdnas.exporters.edgetpu.job import Compiled, Job, stem
from ehdnas.exporters.edgetpu.options import CompilerOptions

if TYPE_CHECKING:
    from ehdnas.core.remote import Completed

_VERSION_S = 60.0

__all__ = ["Compiled", "Compiler", "CompilerOptions", "find_compiler"]


def find_compiler(options: CompilerOptions) -> Compiler | None:
    """Return the compiler that `options.backend` names; None when it is `auto` and none is on PATH.

    Raises:
        UsageError: the back end is malformed.
        NotCompiledError: the program or container engine that it names is not on PATH.
    """
    backend = find_backend(options.backend)
    return None if backend is None else Compiler(backend, options)


class Compiler:
    """The Edge TPU compiler at one back end, with one set of options."""

    def __init__(self, backend: Backend, options: CompilerOptions) -> None:
        self._backend = backend
        self._options = options

    def compile(self, models: list[Path], out: Path) -> list[Compiled]:
        """Compile int8 TensorFlow Lite files into the folder `out`, several together so as to share the TPU.

        `net.tflite` becomes `net_edgetpu.tflite`, or `net_segment_0_of_2_edgetpu.tflite` and so on. The files
        appear once all of them are there, each whole. A success can leave every operator on the CPU:
        see `compilation.on_tpu`.

        Raises:
            ExportError: the compiler refuses a model, crashes, takes too long or leaves no file.
            NotCompiledError: the compiler or the container is not there; the message says what to do.
            DeviceError: the host cannot be reached or used.
            DataError: a model cannot be read.
            UsageError: there is no model, two have one name, or the options take a single model.
            EhdnasError: `out` cannot be written.
        """
        self._check(models)
        with self._backend.open() as transport:
            places = [transport.put(model, f"{stem(index)}.tflite") for index, model in enumerate(models)]
            folder = str(PurePosixPath(places[0]).parent)
            job = Job(transport, models, folder, self._backend.inside(folder), self._options.segments)
            return job.collect(self._run(job), out)

    def version(self) -> str:
        """Return the line in which the compiler tells its version.

        Raises:
            NotCompiledError: the compiler or the container is not there; the message says what to do.
            DeviceError: the host cannot be reached or used.
        """
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder, self._backend.open() as transport:
            done = transport.run([*self._backend.command(folder), "--version"], _VERSION_S)
        self._backend.require_started(done)
        return last_line(done)

    def _check(self, models: Sequence[Path]) -> None:
        stems = [model.stem for model in models]
        if not models:
            raise UsageError("no model to compile for the Edge TPU; give at least one int8 .tflite file")
        if len(set(stems)) < len(stems):
            raise UsageError(f"models compiled together need names of their own, not {', '.join(stems)}")
        if len(models) > 1 and (self._options.segments > 1 or self._options.intermediate_tensors):
            raise UsageError("segments and intermediate tensors are of one model; compile the models in turn")

    def _run(self, job: Job) -> Completed:
        from ehdnas.core.remote import CommandTimeoutError

        limit_s = self._options.timeout_s
        command = [*self._backend.command(job.folder), *self._options.arguments(job.inside), *job.inputs()]
        try:
            done = job.transport.run(command, limit_s)
        except BaseException as error:
            self._backend.abandon(job.transport)
            if not isinstance(error, CommandTimeoutError):
                raise
            raise ExportError(
                f"the Edge TPU compiler was not done with {job.names} after {limit_s:g} s and was stopped; "
                "give it more time, or a smaller network"
            ) from error
        self._backend.require_started(done)
        return done
