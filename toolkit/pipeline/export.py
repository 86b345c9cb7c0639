"""The export stage: a network to a file the device can load, checked against the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Artifact
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import atomic_path, write_json, write_text
from ehdnas.core.images.dataset import Dataset, normalise
from ehdnas.core.plugins import plugin_names
from ehdnas.core.text import nearest
from ehdnas.exporters.base import find_exporter
from ehdnas.exporters.parity import check_parity, require_parity, run_artifact
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import untrained
from ehdnas.pipeline.train import Trained, load_trained, weights_problem
from ehdnas.search.trainer import accuracy_of
from ehdnas.workspace import Run

_PARITY_IMAGES = 256
_TEST_IMAGES_BYTES = 8 << 20  # test images up to this size are put beside the files, for whoever checks them


@dataclass(frozen=True)
class Exported:
    """An artifact, and the accuracy of the file itself in its own interpreter."""

    artifact: Artifact
    file_accuracy: float | None

    def record(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        manifest = self.artifact.manifest
        return {
            "target": manifest.target,
            "file": str(self.artifact.path),
            "size_bytes": manifest.size_bytes,
            "sha256": manifest.sha256,
            "file_accuracy": self.file_accuracy,
            "parity": manifest.parity.model_dump() if manifest.parity else None,
        }


def export_run(context: Context, run: Run, targets: list[str], out: Path | None) -> list[dict[str, Any]]:
    """Export the run's trained network to each target; return and store what was written.

    Raises:
        UsageError: the run is not trained; the message says what to run.
        DataError: its weights are missing, or not those that were trained.
        ParityError: a file disagrees with the network.
    """
    if not run.has("train"):
        step = "`ehdnas train`" if run.has("search") else "`ehdnas search --resume`, then `ehdnas train`"
        raise UsageError(f"run {run.name} is not trained; run {step} first")
    problem = weights_problem(run)
    if problem is not None:
        raise DataError(f"{run.weights} is {problem}; run `ehdnas train --resume`")
    with run.working():
        run.forget("verify")
        trained = load_trained(run.weights)
        records = _export_all(context, trained, targets, out or run.folder / "export")
        run.write("export", {"artifacts": records})
    return records


def export_untrained(context: Context, genotype: str, targets: list[str], out: Path) -> list[dict[str, Any]]:
    """Export a genotype with random weights, and say so in the manifest."""
    architecture = context.space.parse(genotype)
    network = untrained(context.space, architecture, context.shape)
    meta = {
        "space": context.space.name,
        "genotype": context.space.text(architecture),
        "classes": list(context.dataset.classes),
        "mean": list(context.dataset.mean),
        "std": list(context.dataset.std),
        "test_accuracy": None,
        "weights": "random: not trained",
    }
    return _export_all(context, Trained(network, context.shape, meta), targets, out)


def known_targets(text: str) -> list[str]:
    """Return the export targets named in a comma-separated list.

    Raises:
        UsageError: one of them is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = plugin_names("ehdnas.exporters")
    for name in names:
        if name not in known:
            raise UsageError(f"unknown target '{name}'{nearest(name, known)}")
    if not names:
        raise UsageError(f"no target given; known: {', '.join(known)}")
    return names


def _export_all(context: Context, trained: Trained, targets: list[str], out: Path) -> list[dict[str, Any]]:
    records = [_export_one(context, trained, target, out).record() for target in targets]
    write_text(out / "labels.txt", "\n".join(trained.meta["classes"]) + "\n")
    _write_test_images(context.dataset, out)
    return records


def _export_one(context: Context, trained: Trained, target: str, out: Path) -> Exported:
    exporter = find_exporter(target)
    context.reporter.say(f"export: {target}, then the file against the network on real images")
    path = out / f"model{exporter.suffix}"
    artifact = exporter.export(trained.network, trained.shape.image, path, _metadata(trained))
    images = _test_images(context.dataset)
    some = images[:_PARITY_IMAGES]
    artifact.manifest.parity = check_parity(artifact, trained.network, some, exporter.threshold)
    accuracy = None
    if trained.meta.get("test_accuracy") is not None:
        accuracy = accuracy_of(run_artifact(path, images), context.dataset.test.labels)
        artifact.manifest.metadata["file_accuracy"] = accuracy
    artifact.save()
    require_parity(artifact)
    return Exported(artifact, accuracy)


def _metadata(trained: Trained) -> dict[str, Any]:
    meta = {key: value for key, value in trained.meta.items() if key not in ("shape", "data")}
    meta["input"] = "pixels / 255, minus mean, divided by std, per channel"
    return meta


def _test_images(dataset: Dataset) -> NDArray[np.float32]:
    return normalise(dataset.test.images, dataset.mean, dataset.std)


def _write_test_images(dataset: Dataset, out: Path) -> None:
    """Put the test images beside the files when they are few, so that anyone can check the accuracy."""
    if dataset.test.images.nbytes <= _TEST_IMAGES_BYTES:
        with atomic_path(out / "test_images.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, images=dataset.test.images, labels=dataset.test.labels)
    write_json(out / "split.json", dataset.split_record())
