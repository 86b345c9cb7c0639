"""The report stage: what the run's files say, gathered and written as one page."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

import ehdnas
from ehdnas.core.artifact import Manifest, read_artifact
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import write_text
from ehdnas.pipeline.beside import baseline_of
from ehdnas.pipeline.user_module import short_name
from ehdnas.report.comparison import render_comparison
from ehdnas.report.data import ReportData
from ehdnas.report.page import render
from ehdnas.report.passport import private_words, shareable
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.workspace import Run, Workspace

_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "tensorflow-cpu", "tensorflow", "ai-edge-litert")
_MOST_COMPARED = 20
_AFTER_SEARCH = ("train", "export", "verify")
_Record = dict[str, Any]


def report(workspace: Workspace, run: Run) -> Path:
    """Write the run's report and return its path, `report.html` in the run's folder.

    Every stage but the search may be missing; the page says what has not been done yet.

    Raises:
        UsageError: the run holds no finished search.
        DataError: a file of the run is damaged.
    """
    path = run.folder / "report.html"
    write_text(path, render(gather(workspace, run)))
    return path


def compare(workspace: Workspace, runs: Sequence[Run]) -> Path:
    """Write a page of several runs beside each other and return its path, in the workspace.

    Raises:
        UsageError: there are fewer than two, or one holds no finished search.
        DataError: a file of a run is damaged.
    """
    names = dict.fromkeys(run.name for run in runs)
    if not 2 <= len(names) <= _MOST_COMPARED:
        raise UsageError(f"{len(names)} runs to compare; give 2 to {_MOST_COMPARED} different ones")
    path = workspace.folder / "comparisons" / f"{'--'.join(names)[:200]}.html"
    write_text(path, render_comparison([gather(workspace, run) for run in runs]))
    return path


def gather(workspace: Workspace, run: Run) -> ReportData:
    """Return what the run's report shows.

    Raises:
        UsageError, DataError: as `report`.
    """
    try:
        return TypeAdapter(ReportData).validate_python(_fields(workspace, run))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"run {run.name}: '{where}' is damaged ({first['msg']}); repeat that stage"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"a file of {run.folder} is damaged ({error!r}); repeat its stage") from error


def _fields(workspace: Workspace, run: Run) -> _Record:
    """Return the fields of `ReportData`, not checked yet."""
    genotype = run.genotype
    made, search = _read(run, "run"), _read(run, "search")
    train, exported, verify = (_read(run, stage) if run.has(stage) else None for stage in _AFTER_SEARCH)
    settings = {**made["settings"], "data": _without_place(made["settings"]["data"])}
    if settings.get("baseline"):
        settings["baseline"] = short_name(settings["baseline"])
    files, manifests = _files(exported)
    return {
        "run": run.name,
        "devices": made["devices"],
        "settings": settings,
        "search": {**search, "genotype": genotype},
        "train": train,
        "files": files,
        "beside": baseline_of(run),
        "verify": _without_names(verify, made["devices"]),
        "points": [_points(workspace, search, predictor) for predictor in search["predictors"]],
        "classes": _classes(manifests),
        "commands": _commands(settings, search, train, exported),
        "versions": _versions(manifests),
    }


def _read(run: Run, stage: str) -> _Record:
    value = run.read(stage)
    if not isinstance(value, dict):
        raise DataError(f"{run.stage_file(stage)} holds no JSON object; repeat that stage")
    return value


def _without_names(verify: _Record | None, devices: list[_Record]) -> _Record | None:
    if verify is None:
        return None
    hosts = {device["name"]: device.get("host", "") for device in devices}
    return {
        **verify,
        "measurements": [_shareable(one, hosts[one["device"]]) for one in verify["measurements"]],
    }


def _shareable(taken: _Record, host: str) -> _Record:
    measurement = taken["measurement"]
    passport = shareable(measurement["passport"], private_words(host))
    return {**taken, "measurement": {**measurement, "passport": passport}}


def _without_place(data: str) -> str:
    """Return a data setting that tells the kind and the folder's name, not whose machine it was on."""
    kind, colon, path = data.partition(":")
    return f"{kind}:PATH/{Path(path).name}" if colon else kind


def _files(exported: _Record | None) -> tuple[list[_Record] | None, dict[str, Manifest]]:
    """Return the exported files by name alone, and the manifests of those that are still where they were."""
    if exported is None:
        return None, {}
    files, manifests = [], {}
    for record in exported["artifacts"]:
        name = Path(record["file"]).name
        # The run's own record has the figures; a file that moved on since costs the page details only.
        with suppress(DataError):
            manifests[name] = read_artifact(Path(record["file"])).manifest
        precision = manifests[name].precision if name in manifests else ""
        files.append({**record, "file": name, "precision": precision})
    return files, manifests


def _classes(manifests: dict[str, Manifest]) -> list[str]:
    for manifest in manifests.values():
        classes = manifest.metadata.get("classes")
        if isinstance(classes, list):
            return [str(name) for name in classes]
    return []


def _points(workspace: Workspace, search: _Record, predictor: _Record) -> _Record | None:
    """Return what a predictor of the search said of unseen networks, unless it was fitted again since."""
    wanted = {key: search[key] for key in ("space", "shape")}
    wanted |= {key: predictor[key] for key in ("device", "metric")}
    for path in sorted(workspace.predictors.glob("*.safetensors")):
        try:
            _, meta = load_checkpoint(path)
        except DataError:
            continue  # a damaged predictor costs the page a figure; the commands that need it complain
        identity, quality = meta.get("identity") or {}, meta.get("quality") or {}
        same_figures = predictor["held_out"].items() <= quality.items()
        if wanted.items() <= identity.items() and same_figures:
            return {key: quality[key] for key in ("predicted", "measured")}
    return None


def _commands(
    settings: _Record, search: _Record, train: _Record | None, exported: _Record | None
) -> list[str]:
    """Return the commands that do it all again, in one and stage by stage."""
    known = {**settings, "search_epochs": len(search["history"]) or None}
    if train is not None:
        known["train_epochs"] = train["epochs"]
    if exported is not None:
        known["targets"] = ",".join(record["target"] for record in exported["artifacts"])
    flags = [
        f"--{key.replace('_', '-')} {shlex.quote(str(value))}"
        for key, value in known.items()
        if value is not None
    ]
    # A table of imported figures has no device that a run could end on.
    lines = ["ehdnas search" if "queries" in search else "ehdnas run", *flags]
    return [" \\\n    ".join(lines), "ehdnas report"]


def _versions(manifests: dict[str, Manifest]) -> dict[str, dict[str, str]]:
    here = {"ehdnas": ehdnas.__version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            here[package] = version(package)
        except PackageNotFoundError:
            continue
    title = f"where this page was written ({platform.system()}, {platform.machine()})"
    return {title: here} | {
        f"{name} was written with": manifest.versions for name, manifest in manifests.items()
    }
