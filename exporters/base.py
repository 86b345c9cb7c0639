"""What an exporter is. A new target is one subclass, registered under `ehdnas.exporters`."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ehdnas.core.artifact import Artifact, Manifest, TensorSpec, Tolerance
from ehdnas.core.errors import ExportError, UsageError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.files import atomic_path, sha256
from ehdnas.core.plugins import load_plugin

if TYPE_CHECKING:
    from torch import nn

    from ehdnas.core.graph import Array, Graph, Shape, Value

# The difference that float32 arithmetic in another order makes; the project's own bound.
FLOAT32 = Tolerance(max_difference=1e-4)


@dataclass(frozen=True)
class Written:
    """What an exporter says of the file it wrote.

    `dtype` is that of inputs and output, `scales` their (scale, zero point) by name where they are
    quantised, and `details` JSON-able facts for the manifest.
    """

    dtype: str = "float32"
    scales: dict[str, tuple[float, int]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class Exporter(ABC):
    """Writes networks as files for one target.

    `layout` is the image layout the file takes, `NCHW` or `NHWC`; `ending` is what its file's name ends
    in, the suffix included; `needs_images` says whether real images are needed, to calibrate on;
    `tolerance` is how far the file may differ from the network.
    """

    target: ClassVar[str]
    suffix: ClassVar[str]
    layout: ClassVar[str]
    ending: ClassVar[str] = ""
    precision: ClassVar[str] = "fp32"
    needs_images: ClassVar[bool] = False
    tolerance: ClassVar[Tolerance] = FLOAT32

    def __init__(self, options: ExportOptions | None = None) -> None:
        self.options = options or ExportOptions()

    def file_name(self, stem: str = "model") -> str:
        """Return the name of this target's file among those of other targets."""
        return f"{stem}{self.ending or self.suffix}"

    def export(
        self,
        model: nn.Module,
        input_shape: Shape | Sequence[Shape],
        path: Path,
        metadata: dict[str, Any] | None = None,
        calibration: Array | Sequence[Array] | None = None,
    ) -> Artifact:
        """Write `model` to `path` for one image of `input_shape` (C, H, W) and return the artifact.

        The file is written whole or not at all. The manifest is neither saved nor checked for parity:
        that takes images, and is the caller's to do. A module of several inputs, such as a cell, is given
        several shapes.

        Args:
            metadata: JSON-able; goes into the manifest and into the file itself.
            calibration: normalised images [n, C, H, W], one array for each input, for int8 targets.

        Raises:
            UnsupportedOperatorError: the network has an operator that the target cannot express.
            ExportError: the network cannot be traced, or the target's own tools refuse it.
            DataError: calibration images are needed and absent, or cannot be right.
            UsageError: `path` does not end in the target's suffix, or `input_shape` cannot be right.
            EhdnasError: the folder cannot be written.
        """
        graph = network_graph(model, input_shape)
        images = [calibration] if isinstance(calibration, np.ndarray) else list(calibration or [])
        return self.export_graph(graph, path, metadata, images)

    def export_graph(
        self, graph: Graph, path: Path, metadata: dict[str, Any] | None = None, images: Sequence[Array] = ()
    ) -> Artifact:
        """Write a graph whose batch norms are folded, as `export` does a network."""
        if path.suffix != self.suffix:
            raise UsageError(f"{path}: a file for {self.target} must end in {self.suffix}")
        carried = _jsonable(metadata or {})
        versions = {"ehdnas": version("ehdnas"), "torch": version("torch"), **self.toolchain()}
        facts = {
            **carried,
            "target": self.target,
            "precision": self.precision,
            "versions": versions,
            "parameters_sha256": parameters_sha256(graph),
        }
        with atomic_path(path) as temporary:
            written = self.write(graph, temporary, images)
            self.embed(temporary, facts)
            manifest = Manifest(
                file=path.name,
                target=self.target,
                precision=self.precision,
                size_bytes=temporary.stat().st_size,
                sha256=sha256(temporary),
                parameters_sha256=facts["parameters_sha256"],
                inputs=[
                    self._spec(name, value, written)
                    for name, value in zip(input_names(graph), graph.inputs, strict=True)
                ],
                outputs=[self._spec(output_name(graph), graph.output, written)],
                versions=versions,
                metadata=carried,
                details=written.details,
            )
        return Artifact(path=path, manifest=manifest)

    @abstractmethod
    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph, its batch norms folded, to `path`; `images` are for calibration.

        Raises:
            ExportError: the target cannot express the graph.
        """

    @abstractmethod
    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Put JSON-able facts into the file at `path` itself, where the format has a place for them."""

    def finish(self, artifact: Artifact) -> list[Artifact]:
        """Have a checked file compiled by the vendor's tools, where a target needs it; return what they made.

        Raises:
            NotCompiledError: there is no compiler; says what to do.
            ExportError: the compiler refuses the file.
            DeviceError: the machine it is on cannot be reached.
        """
        return []

    @abstractmethod
    def toolchain(self) -> dict[str, str]:
        """Return the versions of what wrote the file, by package name."""

    def _spec(self, name: str, value: Value, written: Written) -> TensorSpec:
        batch, *rest = value.shape
        image = len(rest) == 3
        if image and self.layout == "NHWC":
            rest = [*rest[1:], rest[0]]
        scale, zero_point = written.scales.get(name, (None, None))
        return TensorSpec(
            name=name,
            shape=[batch, *rest],
            dtype=written.dtype,
            layout=self.layout if image else "NC",
            scale=scale,
            zero_point=zero_point,
        )


def _jsonable(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(
            json.dumps(metadata, allow_nan=False, default=lambda o: o.tolist())
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"metadata cannot be written as JSON: {error}; give plain numbers, texts and lists"
        ) from error
    return plain


def compiled_artifact(
    source: Manifest, path: Path, versions: dict[str, str], details: dict[str, Any], **changes: Any
) -> Artifact:
    """Return the artifact of what a vendor's compiler made, at `path`, of a file with manifest `source`.

    Its parity is unknown: only the device can run it.
    """
    described = {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "sha256": sha256(path),
        "versions": {**source.versions, **versions},
        "parity": None,
        "details": {
            **source.details,
            **details,
            "compiled_from": {"file": source.file, "sha256": source.sha256},
        },
    }
    return Artifact(path=path, manifest=source.model_copy(update={**described, **changes}))


def network_graph(model: nn.Module, input_shape: Shape | Sequence[Shape]) -> Graph:
    """Return the graph that exporters write: batch norms folded, equal operators shared.

    Raises:
        ExportError, UnsupportedOperatorError, UsageError: as `Exporter.export`.
    """
    from ehdnas.core.graph import fold_batch_norm, share_common, trace

    graph = share_common(fold_batch_norm(trace(model, input_shape)))
    if not graph.nodes:
        raise ExportError("the network hands its input on unchanged; there is nothing to export")
    return graph


def input_names(graph: Graph) -> list[str]:
    """Return what the file calls its inputs: `input`, or `input0`, `input1`, ... where there are several."""
    several = len(graph.inputs) > 1
    return [f"input{index}" if several else "input" for index in range(len(graph.inputs))]


def output_name(graph: Graph) -> str:
    """Return what the file calls its output: `logits`, or `features` where it is an image."""
    return "logits" if len(graph.output.shape) == 2 else "features"


def parameters_sha256(graph: Graph) -> str:
    """Return the SHA-256 of the network's float32 parameters, batch norms folded, in execution order."""
    digest = hashlib.sha256()
    for node in graph.nodes:
        for name in sorted(node.params):
            digest.update(node.params[name].tobytes())
    return digest.hexdigest()


def find_exporter(target: str, options: ExportOptions | None = None) -> Exporter:
    """Return the exporter registered for `target`, such as `onnx` or `tflite-int8`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    exporter: Exporter = load_plugin("ehdnas.exporters", target)(options)
    return exporter
