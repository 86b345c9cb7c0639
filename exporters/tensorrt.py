"""TensorRT: an ONNX file, and the engine that `trtexec` builds from it on the machine it is for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.artifact import Artifact
from ehdnas.core.errors import ExportError, NotCompiledError, UsageError
from ehdnas.core.files import sha256
from ehdnas.exporters.onnx import OnnxExporter

if TYPE_CHECKING:
    from ehdnas.core.remote import Completed, Transport

_ENGINE = "model.engine"
# Where JetPack puts it, off the PATH of a log-in.
_PLACES = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
_NO_SUCH_PROGRAM = (126, 127)
_VERSION = re.compile(r"TensorRT[ .]?v?(\d[\d.]*)")


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
            ExportError: trtexec refuses the network, or takes too long.
            DeviceError: the machine cannot be reached.
            UsageError: the compiler named is not one that TensorRT can have.
        """
        from ehdnas.core.remote import open_transport

        with open_transport(_address(self.options.compiler)) as there:
            source = there.put(artifact.path, "model.onnx")
            done = self._build(there, source, artifact)
            target = artifact.path.with_suffix(".engine")
            there.get(_ENGINE, target)
        return [_engine_artifact(artifact, target, done)]

    def _build(self, there: Transport, source: str, artifact: Artifact) -> Completed:
        for program in _PLACES:
            done = there.run(_command(program, source, _ENGINE), self.options.compile_timeout_s)
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


def _address(compiler: str) -> str:
    kind, _, host = compiler.partition(":")
    if compiler in ("auto", "path"):
        return "local"
    if kind != "ssh" or not host:
        raise UsageError(f"'{compiler}' cannot build a TensorRT engine; give auto, path or ssh:USER@JETSON")
    return host


def _command(program: str, source: str, engine: str) -> list[str]:
    return [program, f"--onnx={source}", f"--saveEngine={engine}", "--fp16"]


def _by_hand(path: Path) -> str:
    return shlex.join(_command(_PLACES[-1], path.name, path.with_suffix(".engine").name))


def _reason(done: Completed) -> str:
    lines = (done.stdout + b"\n" + done.stderr).decode(errors="replace").splitlines()
    errors = [line for line in lines if "[E]" in line or "rror" in line]
    text = (errors or [line for line in lines if line.strip()] or ["no reason given"])[-1].strip()
    return "".join(char for char in text if char.isprintable())[:300]


def _engine_artifact(artifact: Artifact, path: Path, done: Completed) -> Artifact:
    found = _VERSION.search(done.stdout.decode(errors="replace"))
    version = found[1].rstrip(".") if found else "unknown"
    source = artifact.manifest
    changes = {
        "file": path.name,
        "precision": "fp16",
        "size_bytes": path.stat().st_size,
        "sha256": sha256(path),
        "versions": {**source.versions, "tensorrt": version},
        "details": {
            **source.details,
            "tensorrt": {"version": version, "command": _by_hand(artifact.path)},
            "compiled_from": {"file": source.file, "sha256": source.sha256},
        },
    }
    return Artifact(path=path, manifest=source.model_copy(update=changes))
