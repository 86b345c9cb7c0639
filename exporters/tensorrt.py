"""TensorRT: an ONNX file, and the engine that `trtexec` builds from it on the machine it is for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.artifact import Artifact
from ehdnas.core.errors import DeviceError, ExportError, NotCompiledError, UsageError
from ehdnas.exporters.base import compiled_artifact
from ehdnas.exporters.onnx.exporter import OnnxExporter

if TYPE_CHECKING:
    from ehdnas.core.remote import Completed, Transport

_ENGINE = "model.engine"
# Where JetPack puts it, off the PATH of a log-in.
_PLACES = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
_NO_SUCH_PROGRAM = (126, 127)
# A line of its own says 8.5.2; the banner, which every version has, v8502.
_VERSIONS = (re.compile(r"TensorRT version: (\d[\d.]*)"), re.compile(r"TensorRT v(\d+)"))


class TensorRtExporter(OnnxExporter):
    """Writes the ONNX file; `finish` builds the engine over SSH (`ssh:USER@JETSON`) or on this machine.

    An engine loads only in the TensorRT version that built it, on that kind of GPU: it cannot be made
    anywhere else. The engine may compute in float16, which TensorRT decides layer by layer.
    """

    target = "tensorrt"
    ending = "_tensorrt.onnx"

    def finish(self, artifact: Artifact) -> list[Artifact]:
        """Build the engine; return its artifact.

        Raises:
            NotCompiledError: no trtexec is there; names the command to run on the Jetson.
            ExportError: trtexec refuses the network, takes too long, or leaves no engine.
            DeviceError: the machine cannot be reached.
            UsageError: the compiler named is not one that TensorRT can have.
        """
        from ehdnas.core.remote import open_transport

        with open_transport(_address(self.options.compiler)) as there:
            source = there.put(artifact.path, "model.onnx")
            done = self._build(there, source, artifact)
            target = artifact.path.with_suffix(".engine")
            self._fetch(there, target, artifact)
        return [_engine_artifact(artifact, target, done)]

    def _build(self, there: Transport, source: str, artifact: Artifact) -> Completed:
        for program in _PLACES:
            done = self._run(there, _command(program, source, _ENGINE), artifact.path.name)
            if done.code == 0:
                return done
            if done.code not in _NO_SUCH_PROGRAM:
                raise ExportError(f"trtexec refuses {artifact.path.name}: {_reason(done)}")
        command = _by_hand(artifact.path)
        artifact.manifest.details["tensorrt"] = {"version": None, "command": command}
        raise NotCompiledError(
            f"{artifact.path} is not built into an engine: no trtexec; give --compiler ssh:USER@JETSON, or "
            f"copy the file to the Jetson and run: {command}"
        )

    def _run(self, there: Transport, command: list[str], name: str) -> Completed:
        from ehdnas.core.remote import CommandTimeoutError

        limit_s = self.options.compile_timeout_s
        try:
            return there.run(command, limit_s)
        except CommandTimeoutError as error:
            raise ExportError(
                f"trtexec was not done with {name} after {limit_s:g} s and was stopped; build the engine by "
                "hand, or take a smaller network"
            ) from error

    def _fetch(self, there: Transport, target: Path, artifact: Artifact) -> None:
        from ehdnas.core.remote import ConnectionLostError

        try:
            there.get(_ENGINE, target)
        except ConnectionLostError:
            raise
        except DeviceError as error:
            raise ExportError(
                f"trtexec left no engine of {artifact.path.name}; to see why, run {_by_hand(artifact.path)}"
            ) from error


def _address(compiler: str) -> str:
    kind, _, host = compiler.partition(":")
    if compiler in ("auto", "path"):
        return "local"
    if kind != "ssh" or host in ("", "local"):
        raise UsageError(f"'{compiler}' cannot build a TensorRT engine; give auto, path or ssh:USER@JETSON")
    return host


def _command(program: str, source: str, engine: str) -> list[str]:
    return [program, f"--onnx={source}", f"--saveEngine={engine}", "--fp16"]


def _by_hand(path: Path) -> str:
    return shlex.join(_command(_PLACES[-1], path.name, path.with_suffix(".engine").name))


def _reason(done: Completed) -> str:
    lines = (done.stdout + b"\n" + done.stderr).decode(errors="replace").splitlines()
    # The first error is the cause; the last one is always that the engine was not set up.
    told = [line for line in lines if "[E]" in line] or [line for line in lines if line.strip()][-1:]
    text = told[0].strip() if told else f"it ended with exit code {done.code} and said nothing"
    return "".join(char for char in text if char.isprintable())[:300]


def _version(done: Completed) -> str:
    text = done.stdout.decode(errors="replace")
    found = [match[1].rstrip(".") for pattern in _VERSIONS if (match := pattern.search(text))]
    return found[0] if found else "unknown"


def _engine_artifact(artifact: Artifact, path: Path, done: Completed) -> Artifact:
    version = _version(done)
    built = {"version": version, "command": _by_hand(artifact.path)}
    return compiled_artifact(
        artifact.manifest, path, {"tensorrt": version}, {"tensorrt": built}, precision="fp16"
    )
