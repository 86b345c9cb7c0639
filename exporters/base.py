"""What an exporter is. A new target is one subclass, registered under `ehdnas.exporters`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ehdnas.core.artifact import Artifact, Manifest, TensorSpec
from ehdnas.core.errors import ExportError, UsageError
from ehdnas.core.files import atomic_path, sha256
from ehdnas.core.plugins import load_plugin

if TYPE_CHECKING:
    from torch import nn

    from ehdnas.core.graph import Graph


class Exporter(ABC):
    """Writes networks as files for one target.

    `layout` is the image layout the file takes, `NCHW` or `NHWC`; `threshold` is the largest absolute
    difference between the file's logits and the network's that the parity check allows.
    """

    target: ClassVar[str]
    suffix: ClassVar[str]
    layout: ClassVar[str]
    precision: ClassVar[str] = "fp32"
    threshold: ClassVar[float] = 1e-4

    def export(
        self,
        model: nn.Module,
        input_shape: tuple[int, int, int],
        path: Path,
        metadata: dict[str, Any] | None = None,
    ) -> Artifact:
        """Write `model` to `path` for one image of `input_shape` (C, H, W) and return the artifact.

        The file is written whole or not at all. The manifest is neither saved nor checked for parity:
        that takes images, and is the caller's to do. `metadata` is JSON-able and goes into the manifest.

        Raises:
            UnsupportedOperatorError: the network has an operator that the target cannot express.
            ExportError: the network cannot be traced, or the target's own tools refuse it.
            UsageError: `path` does not end in the target's suffix, or `input_shape` cannot be right.
            EhdnasError: the folder cannot be written.
        """
        from ehdnas.core.graph import fold_batch_norm, share_common, trace

        if path.suffix != self.suffix:
            raise UsageError(f"{path}: a file for {self.target} must end in {self.suffix}")
        graph = share_common(fold_batch_norm(trace(model, input_shape)))
        if not graph.nodes:
            raise ExportError("the network hands its input on unchanged; there is nothing to export")
        carried = metadata or {}
        with atomic_path(path) as temporary:
            self.write(graph, temporary, carried)
            manifest = self._manifest(graph, path.name, temporary, carried)
        return Artifact(path=path, manifest=manifest)

    @abstractmethod
    def write(self, graph: Graph, path: Path, metadata: dict[str, Any]) -> None:
        """Write the graph, its batch norms folded, to `path`.

        Raises:
            ExportError: the target cannot express the graph.
        """

    @abstractmethod
    def toolchain(self) -> dict[str, str]:
        """Return the versions of what wrote the file, by package name."""

    def _manifest(self, graph: Graph, name: str, written: Path, metadata: dict[str, Any]) -> Manifest:
        batch, channels, height, width = graph.input.shape
        nhwc = self.layout == "NHWC"
        shape = [batch, height, width, channels] if nhwc else [batch, channels, height, width]
        logits = list(graph.output.shape)
        return Manifest(
            file=name,
            target=self.target,
            precision=self.precision,
            size_bytes=written.stat().st_size,
            sha256=sha256(written),
            inputs=[TensorSpec(name="input", shape=shape, dtype="float32", layout=self.layout)],
            outputs=[TensorSpec(name="logits", shape=logits, dtype="float32", layout="NC")],
            versions={"ehdnas": version("ehdnas"), "torch": version("torch"), **self.toolchain()},
            metadata=metadata,
        )


def find_exporter(target: str) -> Exporter:
    """Return the exporter registered for `target`, such as `onnx` or `tflite`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    exporter: Exporter = load_plugin("ehdnas.exporters", target)()
    return exporter
