"""From a network to a file that can be shipped: exported, checked, described, compiled where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ehdnas.core.artifact import Artifact, Parity
from ehdnas.core.errors import DataError, DeviceError, EhdnasError, ExportError, NotCompiledError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.files import holding, write_text
from ehdnas.exporters.base import Exporter, find_exporter, network_graph
from ehdnas.exporters.card import write_card
from ehdnas.exporters.example import write_examples
from ehdnas.exporters.given import as_images, as_network, require_classes
from ehdnas.exporters.parity import Reference, check_parity, find_fault, require_parity

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ehdnas.core.graph import Graph

    Array = NDArray[np.float32]


@dataclass(frozen=True)
class Delivery:
    """The artifacts of one target, and why a vendor's compiler left the job `unfinished`, if it did.

    The last artifact is the one to deploy; a compiled one comes after the file it was compiled from.
    """

    artifacts: list[Artifact]
    unfinished: EhdnasError | None = None


def export_network(
    model: nn.Module,
    target: str,
    folder: Path | str,
    images: Array,
    labels: NDArray[np.int64] | None = None,
    calibration: Array | None = None,
    metadata: dict[str, Any] | None = None,
    options: ExportOptions | None = None,
) -> Artifact:
    """Export your own network, weights and all, and return the artifact to deploy.

    The same door that `ehdnas export` goes through: the file is checked against the network in its own
    interpreter; manifest, model card, an example of its use and class names are written beside it.

    Args:
        model: gives logits (n, classes) for (n, C, H, W).
        target: a name such as `tflite-int8`.
        folder: where to write; made if it is not there.
        images: normalised test images (n, C, H, W), to compare file and network on.
        labels: their classes (n), for the accuracy before and after.
        calibration: normalised training images (n, C, H, W), which int8 targets need.
        metadata: JSON-able, carried in the file; `classes`, `mean` and `std` are shown in the card.

    Raises:
        ParityError: the file disagrees with the network.
        NotCompiledError: all is written, but no compiler was there to finish the job.
        ExportError: all is written, but the compiler refused the file; or as `Exporter.export`.
        UnsupportedOperatorError, DataError, UsageError, EhdnasError: as `Exporter.export`.
    """
    exporter = find_exporter(target, options)
    judged = as_images(images, "images")
    given = [] if calibration is None else [as_images(calibration, "calibration")]
    if exporter.needs_images and not given:
        raise DataError(f"target {target} needs training images to calibrate on; give calibration=...")
    carried = metadata or {}
    reference = Reference(as_network(model), judged, None if labels is None else np.asarray(labels))
    classes = carried.get("classes")
    require_classes(reference, classes)
    path = Path(folder) / exporter.file_name()
    delivery = deliver(exporter, path, reference, [judged.shape[1:]], given, carried)
    if classes:
        write_labels(Path(folder), classes)
    if delivery.unfinished is not None:
        raise delivery.unfinished
    return delivery.artifacts[-1]


def deliver(
    exporter: Exporter,
    path: Path,
    reference: Reference,
    shapes: Sequence[tuple[int, int, int]],
    calibration: Sequence[Array],
    metadata: dict[str, Any],
) -> Delivery:
    """Export `reference`'s network to `path`, check it, write what describes it, and have it compiled.

    Raises:
        ParityError: the file disagrees with the network; the manifest says so, and where they part.
        UnsupportedOperatorError, ExportError, DataError, UsageError, EhdnasError: as `Exporter.export`.
    """
    graph = network_graph(reference.model, shapes)
    reference.require_sound()
    # File, manifest and card are of one export, even when another writes here at the same time.
    with holding(path.parent):
        artifact = exporter.export_graph(graph, path, metadata, calibration)
        artifact.manifest.parity = _judged(exporter, artifact, reference, graph, calibration)
        _describe(artifact)
        require_parity(artifact)
        return _finished(exporter, artifact)


def write_labels(folder: Path, classes: Sequence[object]) -> None:
    """Write `labels.txt`: line n names class n, so that a name is kept to one line."""
    write_text(folder / "labels.txt", "".join(f"{' '.join(str(name).split())}\n" for name in classes))


def _judged(
    exporter: Exporter, artifact: Artifact, reference: Reference, graph: Graph, calibration: Sequence[Array]
) -> Parity:
    parity = check_parity(artifact, reference, exporter.tolerance)
    if parity.passed:
        return parity
    fault = find_fault(exporter, reference.model, graph, reference.images, calibration)
    return parity.model_copy(update={"fault": fault})


def _finished(exporter: Exporter, artifact: Artifact) -> Delivery:
    try:
        finished = exporter.finish(artifact)
    except (NotCompiledError, ExportError, DeviceError) as error:
        # The file that it starts from is good all the same.
        _describe(artifact)  # which now says what is left to do
        return Delivery([artifact], error)
    for one in finished:
        _describe(one)
    return Delivery([artifact, *finished])


def _describe(artifact: Artifact) -> None:
    artifact.save()
    write_card(artifact)
    write_examples(artifact)
