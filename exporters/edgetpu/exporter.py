"""The Edge TPU: an int8 file that its compiler takes, checked against the compiler's rules, and compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehdnas.core.artifact import Artifact, Manifest
from ehdnas.core.errors import NotCompiledError
from ehdnas.exporters.base import Written, compiled_artifact
from ehdnas.exporters.edgetpu.compiler import Compiled, CompilerOptions, find_compiler
from ehdnas.exporters.edgetpu.rules import check_file
from ehdnas.exporters.tflite.file import read_tflite
from ehdnas.exporters.tflite.int8 import TfliteInt8Exporter

if TYPE_CHECKING:
    from ehdnas.core.graph import Array, Graph


class EdgeTpuExporter(TfliteInt8Exporter):
    """Writes an int8 file in operators that map; `finish` has it compiled where there is a compiler.

    Dilated kernels are expanded with zeros unless the options keep them, and hard swish, which the Edge TPU
    has not, is written out.
    """

    target = "edgetpu"
    ending = "_tpu_int8.tflite"

    def lower(self, graph: Graph) -> Graph:
        """Return the graph in operators that the Edge TPU has."""
        from ehdnas.core.graph import sink_relu
        from ehdnas.exporters.quantise.lower import expand_dilated, lower_for_int8

        lowered = lower_for_int8(sink_relu(graph), hardswish=True)
        return expand_dilated(lowered) if self.options.dilated == "expand" else lowered

    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph to `path`, and what the static check says of it into the details."""
        written = super().write(graph, path, images)
        report = check_file(read_tflite(path)).model_dump()
        return replace(written, details={**written.details, "edgetpu": report})

    def finish(self, artifact: Artifact) -> list[Artifact]:
        """Compile the file; return an artifact for each file that the compiler made.

        Raises:
            NotCompiledError: there is no compiler.
            ExportError: the compiler refuses the file.
            DeviceError: the host it is on cannot be reached.
        """
        compiler = find_compiler(CompilerOptions.of(self.options))
        if compiler is None:
            raise NotCompiledError(
                f"{artifact.path} is not compiled: no edgetpu_compiler on PATH; install the vendor's package "
                "(x86-64 Linux), or name a container or host: --compiler docker:IMAGE or ssh:USER@HOST"
            )
        (compiled,) = compiler.compile([artifact.path], artifact.path.parent)
        return [_compiled(artifact.manifest, compiled, index) for index in range(len(compiled.files))]


def _compiled(source: Manifest, compiled: Compiled, index: int) -> Artifact:
    version = compiled.compilation.compiler_version
    # A segment takes and gives what its place in the network is, which the compiler does not say.
    ends: dict[str, Any] = {"inputs": [], "outputs": []} if len(compiled.files) > 1 else {}
    return compiled_artifact(
        source,
        compiled.files[index],
        {"edgetpu_compiler": version} if version else {},
        {"compilation": compiled.segments[index].model_dump()},
        **ends,
    )
