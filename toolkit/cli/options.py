"""The flags that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ehdnas.pipeline.context import Context
    from ehdnas.settings import Settings
    from ehdnas.workspace import Run

Data = Annotated[str | None, typer.Option(help="digits, cifar10:PATH or images:PATH.")]
ImageSize = Annotated[int | None, typer.Option(help="Side that images are resized to.")]
DeviceName = Annotated[str | None, typer.Option(help="Device, as `ehdnas devices` lists it.")]
DeviceNames = Annotated[
    str | None,
    typer.Option("--device", help="Device, as `ehdnas devices` lists it; or several, comma-separated."),
]
Space = Annotated[str | None, typer.Option(help="Search space.")]
Channels = Annotated[int | None, typer.Option(help="Channels of the first cells.")]
Cells = Annotated[int | None, typer.Option(help="Cells of the network.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="'latency <= 20 ms', 'throughput >= 500 fps', or '0.7x' of the reference; several "
        "comma-separated, one a device in order or each '... on DEVICE'."
    ),
]
Pareto = Annotated[
    int | None,
    typer.Option(
        help="Networks to find, from the fastest to those that just meet the budget; each is a run."
    ),
]
Codesign = Annotated[
    bool | None, typer.Option("--codesign", help="Design the simulated accelerator anew for every network.")
]
Method = Annotated[
    str | None, typer.Option(help="gradient, random or evolution; on an imported table guided, too.")
]
Queries = Annotated[
    int | None, typer.Option(help="On an imported table: accuracies that may be asked for; 100 by default.")
]
Baseline = Annotated[
    str | None,
    typer.Option(help="Network to train and judge beside the one found: FILE.py:FUNCTION or a genotype."),
]
Confidence = Annotated[float | None, typer.Option(help="How sure the search must be of the budget.")]
Seed = Annotated[int | None, typer.Option(help="Fixes everything random.")]
Samples = Annotated[
    int | None, typer.Option(help="Networks to measure; 0 fits the predictor to those there are.")
]
Protocol = Annotated[str | None, typer.Option(help="standard or quick; quick is never used for a verdict.")]
Predictor = Annotated[str | None, typer.Option(help="Method that the device's figures are predicted by.")]
Transfer = Annotated[
    str | None, typer.Option(help="Device whose predictor may help where few are measured: auto, none, NAME.")
]
Random = Annotated[bool, typer.Option("--random", help="Measure networks as drawn, not the most telling.")]
SearchEpochs = Annotated[int | None, typer.Option(help="Epochs of the search.")]
Finalists = Annotated[
    int | None,
    typer.Option(help="Networks that are tried at the end, each trained for a few epochs; 1: none is."),
]
TrialEpochs = Annotated[int | None, typer.Option(help="Epochs of the first round of such trials.")]
TrainEpochs = Annotated[int | None, typer.Option(help="Epochs of the final training.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.")]
MicroBatches = Annotated[
    int | None, typer.Option(help="Parts that a step's images are computed in, one after another.")
]
Relaxation = Annotated[
    str | None, typer.Option(help="What a search step computes: single (a path), mixed or partial (all).")
]
Unrolled = Annotated[
    bool | None, typer.Option("--unrolled", help="Second-order gradient of the architecture, as in DARTS.")
]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate of the weights.")]
Ema = Annotated[float | None, typer.Option(help="Decay of a moving average of the weights; 0 for none.")]
LabelSmoothing = Annotated[float | None, typer.Option(help="Share of each target spread over all classes.")]
Mixup = Annotated[float | None, typer.Option(help="Alpha of mixup; 0 trains on images as they are.")]
Compute = Annotated[
    str | None, typer.Option(help="Where to train: auto (a GPU where there is one), cpu, cuda or cuda:N.")
]
Precision = Annotated[
    str | None, typer.Option(help="float32, bfloat16, or auto: bfloat16 on a GPU, float32 on a CPU.")
]
RunName = Annotated[str | None, typer.Option("--run", help="A run's name; the latest by default.")]
Exclude = Annotated[
    str | None, typer.Option(help="Choices to leave out, comma-separated, or 'unmapped' for an Edge TPU.")
]
Compiler = Annotated[
    str | None,
    typer.Option(help="Vendor's compiler: auto, path (what is on PATH), docker:IMAGE or ssh:USER@HOST."),
]
Segments = Annotated[int | None, typer.Option(help="Edge TPU: pieces, one a device.")]
Dilated = Annotated[str | None, typer.Option(help="Edge TPU: expand dilated kernels, or keep them.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the last one stopped.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster, HOST:PORT or ray://HOST:PORT, instead of this machine."),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write to.")]


def make_context(
    flags: dict[str, Any], run: Run | None = None, of: str = "run", goes_on: bool = False
) -> Context:
    """Return the context of a command: its flags over the run's settings over the files and defaults.

    Args:
        of: `training` for the settings that the run's training was started with, where there are any.
        goes_on: take data, space and size from the last profile or search in the project, and say so.
    """
    from ehdnas.settings import BEFORE, PROJECT_FILE, Settings, load_settings
    from ehdnas.workspace import find_workspace

    workspace = find_workspace()
    base = None if run is None else (run.name, run.read(of if run.has(of) else "run")["settings"])
    before = workspace.remembered() if goes_on and run is None else None
    loaded = load_settings(flags, workspace.project, base, before)
    _require_there(flags, loaded.settings)
    # Only now what loads torch: a setting that cannot be right is answered at once.
    from ehdnas.cli.screen import Screen
    from ehdnas.pipeline.context import Context

    reporter = Screen()
    taken = {name: getattr(loaded.settings, name) for name, of in loaded.origins.items() if of == BEFORE}
    usual = {name: of.default for name, of in Settings.model_fields.items()}
    if shown := ", ".join(f"{name} {value}" for name, value in taken.items() if value != usual[name]):
        reporter.say(f"settings: {shown}, as {BEFORE} had it; flags and {PROJECT_FILE} change it")
    given = frozenset(name for name, value in flags.items() if value is not None)
    return Context(loaded.settings, workspace, reporter, given)


def _require_there(flags: dict[str, Any], settings: Settings) -> None:
    """Raise where data or devices that were typed are not there, which takes no time to tell."""
    if flags.get("data") is not None:
        from ehdnas.core.images.dataset import require_data

        require_data(settings.data, settings.image_size)
    if flags.get("device") is not None:
        from ehdnas.pipeline.devices import find_device

        for name in filter(None, map(str.strip, (settings.device or "").split(","))):
            find_device(name)


def find_run(name: str | None, needed: str) -> Run:
    """Return a run by name, or the latest; `needed` says what to run when there is none."""
    from ehdnas.workspace import find_workspace

    return find_workspace().run(name, needed)


def resumed(resume: bool) -> Run | None:
    """Return the latest run when resuming, whose settings then need not be typed again."""
    from ehdnas.workspace import find_workspace

    return find_workspace().latest() if resume else None
