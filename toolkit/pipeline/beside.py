"""A network of the user's own, or a published one, beside the one found: the same recipe, files and device.

It is a run of its own in the folder `baseline` of the run, of which the stages that train, export and verify
are asked as of any other; where its search would be, it says which network it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.exporters.given import as_network
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.export import Exported, export_run
from ehdnas.pipeline.predict import read_genotype
from ehdnas.pipeline.profile import open_meter
from ehdnas.pipeline.train import train
from ehdnas.pipeline.user_module import (
    is_module_reference,
    load_module,
    require_trainable,
    short_name,
    source_sha256,
)
from ehdnas.pipeline.verify import simulated_module, verify
from ehdnas.workspace import Run

_LIKE_THE_RUN = ("space", "shape", "budgets")


def require_baseline(context: Context) -> None:
    """Refuse, before hours are spent, a baseline that cannot be trained on the data or judged on the devices.

    Raises:
        DataError: its module cannot be imported, or its function fails.
        UsageError: it is no genotype of the space; it has other classes than the data, does not take their
            images, or cannot be trained; or a device does not model its operators.
    """
    reference = context.settings.baseline
    if reference is None:
        return
    if "module" not in _who(context, reference):
        return
    require_trainable(as_network(load_module(reference)), reference, context.dataset)
    for one in context.each_device():
        if not one.device.simulated:
            continue
        try:
            simulated_module(open_meter(one), reference)
        except MeasurementError as error:
            raise UsageError(
                f"--baseline {reference} cannot be simulated on {one.device.name}: {error}"
            ) from error


def train_beside(context: Context, run: Run, resume: bool) -> dict[str, Any] | None:
    """Train the baseline that the settings name, by the run's recipe and seed; None where they name none.

    Raises:
        UsageError, DataError: as `require_baseline` and `train`.
    """
    beside, reference = run.beside, context.settings.baseline
    if reference is None:
        beside.forget("search")  # what is there was trained beside an earlier training of the run
        return None
    require_baseline(context)
    searched = run.read("search")
    who = {**{key: searched[key] for key in _LIKE_THE_RUN}, **_who(context, reference)}
    if not beside.has("search") or beside.read("search") != who:
        beside.forget("train", "export", "verify")
        beside.checkpoint("train").unlink(missing_ok=True)
    beside.write("run", run.read("run"))
    beside.write("search", who)
    context.reporter.say(f"train: now the baseline, {who['name']}")
    return train(context, beside, resume)


def export_beside(
    context: Context, run: Run, targets: list[str], out: Path | None, exported: Exported
) -> None:
    """Export the baseline, where one is trained, to the same targets, into a folder `baseline`."""
    if _is_trained(run):
        context.reporter.say(f"export: now the baseline, {run.beside.read('search')['name']}")
        export_run(context, run.beside, targets, None if out is None else out / "baseline", exported)


def verify_beside(context: Context, run: Run) -> dict[str, Any] | None:
    """Judge the baseline on the devices as the run's network was; None where none is trained and exported."""
    if not _is_trained(run):
        return None
    if not run.beside.has("export"):
        context.reporter.warn("verify: the baseline is not exported; `ehdnas export` exports it, too")
        return None
    context.reporter.say(f"verify: now the baseline, {run.beside.read('search')['name']}")
    return verify(context, run.beside)


def baseline_of(run: Run) -> dict[str, Any] | None:
    """Return what is known of a run's baseline: its name, accuracy and size, and once judged, its figures.

    None where none is trained.
    """
    if not _is_trained(run):
        return None
    trained = run.beside.read("train")
    found = {
        "name": run.beside.read("search")["name"],
        **{key: trained[key] for key in ("test_accuracy", "test_images", "parameters")},
    }
    if run.beside.has("verify"):
        judged = run.beside.read("verify")
        found |= {key: judged[key] for key in ("verdict", "figures")}
    return found


def _is_trained(run: Run) -> bool:
    return run.beside.has("search") and run.beside.has("train")


def _who(context: Context, reference: str) -> dict[str, Any]:
    """Return what a baseline is: its name, and its module, as a path that holds anywhere, or its genotype."""
    if reference.endswith(".py"):
        raise UsageError(
            f"--baseline {reference} names no function: give {reference}:FUNCTION that returns the nn.Module"
        )
    if is_module_reference(reference):
        home, _, function = reference.rpartition(":")
        module = f"{Path(home).absolute()}:{function}" if home.endswith(".py") else reference
        return {"name": short_name(reference), "module": module, "module_sha256": source_sha256(reference)}
    text = read_genotype(reference)
    architecture = context.space.parse(text)
    if not context.space.is_valid(architecture):
        raise UsageError(f"--baseline {reference[:80]} breaks a rule of space '{context.space.name}'")
    return {"name": reference[:80].strip(), "genotype": context.space.text(architecture)}
