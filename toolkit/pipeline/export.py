"""The export stage: a network to a file the device can load, checked against the network."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Artifact
from ehdnas.core.errors import DataError, EhdnasError, NotCompiledError, UsageError
from ehdnas.core.files import atomic_path, write_json
from ehdnas.core.images.dataset import Dataset, normalise
from ehdnas.core.plugins import plugin_names
from ehdnas.core.text import nearest
from ehdnas.exporters import Delivery, Reference, deliver, find_exporter, write_labels
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.subject import Subject, run_subject
from ehdnas.pipeline.train import weights_problem
from ehdnas.settings import export_options
from ehdnas.workspace import Run

_MOST_TEST_IMAGES = 10_000
_CALIBRATION_PIXELS = 1 << 18  # calibration images hold so many pixels in all, unless their number is given
_CALIBRATION_IMAGES = (64, 256)  # and are at least, and at most, so many
_FEW_CALIBRATION_IMAGES = 32
_FINETUNING_IMAGES = 4096
_TEST_IMAGES_BYTES = 8 << 20  # test images up to this size are put beside the files, for whoever checks them

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Exported:
    """One record a file, and why compilers left a target unfinished, one error a target."""

    records: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[EhdnasError] = field(default_factory=list)

    @property
    def not_compiled(self) -> list[str]:
        """What compilers left undone, one line a target."""
        return list(map(str, self.unfinished))

    def require_finished(self) -> None:
        """Raise what stopped a compiler; where there was none for several targets, all in one."""
        for error in self.unfinished:
            if not isinstance(error, NotCompiledError):
                raise error
        if self.unfinished:
            raise NotCompiledError("; ".join(self.not_compiled))


def export_run(
    context: Context, run: Run, targets: list[str], out: Path | None, exported: Exported | None = None
) -> Exported:
    """Export the run's trained network to each target; return and store what was written.

    `exported`, where given, is what grows as targets are done, and is returned.

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
        subject = run_subject(run)
        exported = exported or Exported()
        try:
            export_subject(context, subject, targets, (out or run.folder / "export").absolute(), exported)
        finally:
            _remember(run, exported)  # what was made before a target failed, too
    return exported


def _remember(run: Run, exported: Exported) -> None:
    before = run.read("export")["artifacts"] if run.has("export") else []
    made = {_place(record) for record in exported.records}
    # Other targets' files of the same network are still there, and still good.
    kept = [one for one in before if _place(one) not in made and Path(one["file"]).is_file()]
    if kept or made:
        run.write("export", {"artifacts": [*kept, *exported.records]})


def export_subject(
    context: Context, subject: Subject, targets: list[str], out: Path, exported: Exported
) -> Exported:
    """Export a network, or a part of one, to each target; `exported` grows as they are done, and is returned.

    Raises:
        UsageError: the network is not one for the data.
        ParityError, ExportError, DataError, EhdnasError: as `deliver`.
    """
    _require_own_folder(out, subject)
    images, labels = _test_images(context, subject)
    reference = Reference(subject.network, images, labels)
    needed = any(find_exporter(target).needs_images for target in targets)
    calibration = _calibration(context, subject) if needed else []
    try:
        for target in targets:
            delivery = _export_one(context, subject, reference, calibration, target, out)
            exported.records.extend(_record(artifact) for artifact in delivery.artifacts)
            if delivery.unfinished is not None:
                exported.unfinished.append(delivery.unfinished)
    finally:
        if exported.records and subject.takes_images:
            write_labels(out, subject.meta["classes"])
            _write_test_images(context.dataset, out)
    return exported


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
    return list(dict.fromkeys(names))


def _export_one(
    context: Context,
    subject: Subject,
    reference: Reference,
    calibration: list[Images],
    target: str,
    out: Path,
) -> Delivery:
    exporter = find_exporter(target, export_options(context.settings))
    what = "real images" if subject.takes_images else "random features"
    context.reporter.say(
        f"export: {target}, then the file against the network on {len(reference.images[0])} {what}"
    )
    given = calibration if exporter.needs_images else []
    path = out / exporter.file_name(subject.name)
    return deliver(exporter, path, reference, subject.shapes, given, subject.meta)


def _place(record: dict[str, Any]) -> tuple[str, Path]:
    return record["target"], Path(record["file"]).parent


def _record(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    parity = manifest.parity
    return {
        "target": manifest.target,
        "file": str(artifact.path),
        "precision": manifest.precision,
        "size_bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "network_accuracy": parity.accuracy_before if parity else None,
        "file_accuracy": parity.accuracy_after if parity else None,
        "parity": parity.model_dump() if parity else None,
        "details": manifest.details,
    }


def _test_images(context: Context, subject: Subject) -> tuple[list[Images], NDArray[np.int64] | None]:
    """Return what file and network are compared on, with labels where they mean something."""
    if not subject.takes_images:
        return _features(context, subject, 64), None
    test = context.dataset.test
    _require_match(context.dataset, subject)
    every = -(-len(test) // _MOST_TEST_IMAGES)
    images = normalise(test.images[::every], subject.meta["mean"], subject.meta["std"])
    return [images], test.labels[::every] if subject.labelled else None


def _require_own_folder(out: Path, subject: Subject) -> None:
    """Refuse a folder whose class names and test images belong to files of another network.

    Raises:
        UsageError: `labels.txt` there names other classes.
    """
    path = out / "labels.txt"
    if not subject.takes_images or not path.is_file():
        return
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        write_labels(Path(folder), subject.meta["classes"])
        if (Path(folder) / path.name).read_bytes() != path.read_bytes():
            raise UsageError(
                f"{out} holds files of a network with other classes; give a folder of its own, --out DIR"
            )


def _require_match(dataset: Dataset, subject: Subject) -> None:
    if subject.shapes[0] != dataset.image_shape:
        raise UsageError(
            f"the network takes images of {'x'.join(map(str, subject.shapes[0]))} and '{dataset.source}' has "
            f"{'x'.join(map(str, dataset.image_shape))}; give its own data with --data and --image-size"
        )
    if subject.labelled and subject.meta["classes"] != list(dataset.classes):
        raise UsageError(
            f"the network tells other classes apart than '{dataset.source}' has; give its own --data"
        )


def _calibration(context: Context, subject: Subject) -> list[Images]:
    """Return training images, or for a part of a network random features, for int8 targets."""
    settings = context.settings
    if not subject.takes_images:
        return _features(context, subject, settings.calibration_images or _CALIBRATION_IMAGES[0])
    _, height, width = subject.shapes[0]
    least, most = _CALIBRATION_IMAGES
    suited = min(max(_CALIBRATION_PIXELS // (height * width), least), most)
    usual = _FINETUNING_IMAGES if settings.finetune_steps else suited
    number = settings.calibration_images or usual
    train = context.dataset.train
    if min(number, len(train)) < _FEW_CALIBRATION_IMAGES:
        few = min(number, len(train))
        context.reporter.warn(
            f"export: {few} training images calibrate int8 targets badly; 100 or more are better"
        )
    rows = np.random.default_rng(settings.seed).permutation(len(train))[:number]
    return [normalise(train.images[rows], subject.meta["mean"], subject.meta["std"])]


def _features(context: Context, subject: Subject, number: int) -> list[Images]:
    rng = np.random.default_rng(context.settings.seed)
    return [rng.standard_normal((number, *shape)).astype(np.float32) for shape in subject.shapes]


def _write_test_images(dataset: Dataset, out: Path) -> None:
    """Put the test images beside the files when they are few, so that anyone can check the accuracy."""
    if dataset.test.images.nbytes <= _TEST_IMAGES_BYTES:
        with atomic_path(out / "test_images.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, images=dataset.test.images, labels=dataset.test.labels)
    write_json(out / "split.json", dataset.split_record())
