"""Settings: flags, then the project's ehdnas.toml, then the user's file, then built-in defaults."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ehdnas.core.budgets import parse_budgets
from ehdnas.core.errors import UsageError
from ehdnas.core.export_options import ExportOptions, Method
from ehdnas.core.text import nearest

PROJECT_FILE = "ehdnas.toml"
DEFAULT_METHOD = "ehdnas"
"""The predictor that is fitted where none is named; see `search/predictor/methods.py`."""
GRADIENT, GUIDED = "gradient", "guided"
"""What `method` is by default: by gradient, and guided by queries where accuracies are an imported table."""
TRANSFER_AUTO, TRANSFER_NONE = "auto", "none"
"""What `transfer` says besides the name of a device."""
_FEWEST_SAMPLES = 10
_PLAIN = (
    ("Value error, ", ""),
    ("Input should be less than or equal to ", "must be at most "),
    ("Input should be less than ", "must be under "),
    ("Input should be greater than or equal to ", "must be at least "),
    ("Input should be greater than ", "must be over "),
    ("Input should be a valid integer.*", "must be a whole number"),
    ("Input should be a valid number.*", "must be a number"),
    ("Input should be a valid boolean.*", "must be true or false"),
    ("Input should be a valid string.*", "must be a text"),
    ("String should have at least 1 character", "must not be empty"),
    ("Input should ", "must "),
)
"""What the validator's messages begin with, and what is said instead; the first that fits."""


class Settings(BaseModel):
    """Every setting a command reads; None means "what suits the data set or the device"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field("digits", description="digits, cifar10:PATH or images:PATH")
    image_size: int | None = Field(None, ge=4, le=2048, description="side that images are resized to")
    device: str | None = Field(
        None,
        description="name of the device, see `ehdnas devices`; a search may be for several, by commas",
    )
    space: str = Field("darts", description="search space")
    channels: int | None = Field(None, ge=1, le=4096, description="channels of the first cells")
    cells: int | None = Field(None, ge=1, le=200, description="cells of the network")
    budget: str | None = Field(
        None,
        description="'latency <= 20 ms', 'throughput >= 500 fps' or '0.7x' (usual; for a front, 1x); several "
        "comma-separated, '... on DEVICE'",
    )
    pareto: int | None = Field(
        None, ge=2, le=50, description="networks that a search gives, none better than another in everything"
    )
    method: Literal["gradient", "random", "evolution", "guided"] | None = Field(
        None, description="how to search: gradient, random, evolution; on a table guided, random, evolution"
    )
    queries: int | None = Field(
        None, ge=1, le=1_000_000, description="accuracies that a search on an imported table asks for"
    )
    baseline: str | None = Field(
        None, min_length=1, description="network beside the one found: FILE.py:FUNCTION, or a genotype"
    )
    confidence: float = Field(0.9, gt=0, lt=1, description="how sure the search must be of the budget")
    seed: int = Field(0, ge=0, lt=2**63, description="fixes splits, sampling, weights and augmentation")
    samples: int | None = Field(
        None, ge=0, le=1_000_000, description="networks to measure when profiling; 0: fit to those there are"
    )
    predictor: str = Field(DEFAULT_METHOD, description="method that the device's figures are predicted by")
    choice: Literal["active", "random"] = Field(
        "active", description="networks to measure: those that tell most, or as drawn"
    )
    transfer: str = Field(
        TRANSFER_AUTO, min_length=1, description="device whose predictor may help: auto, none or its name"
    )
    protocol: Literal["standard", "quick"] = Field("standard", description="how long each is measured")
    search_epochs: int | None = Field(None, ge=1, description="epochs of the search")
    train_epochs: int | None = Field(None, ge=1, description="epochs of the final training")
    finalists: int = Field(
        5, ge=1, le=64, description="networks tried at the search's end by training them; 1: none is"
    )
    trial_epochs: int | None = Field(None, ge=1, description="epochs of the first round of those trainings")
    batch_size: int | None = Field(None, ge=1, description="images a step, in search and training")
    learning_rate: float | None = Field(None, gt=0, description="learning rate of the weights")
    relaxation: Literal["single", "mixed", "partial"] = Field(
        "single", description="what a search step computes: a path, or all operations"
    )
    unrolled: bool = Field(False, description="search by the second-order gradient of the architecture")
    micro_batches: int | None = Field(
        None, ge=1, description="parts that a step's images are computed in; as many as processes, or 1"
    )
    ema: float | None = Field(None, ge=0, lt=1, description="decay of the weights' moving average; 0: none")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="share of a target spread over all")
    mixup: float | None = Field(None, ge=0, description="alpha of mixup of training images; 0: none")
    compute: str = Field("auto", description="where to search and train: auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="numbers that networks are trained in; auto: bfloat16 on a GPU"
    )
    checkpoint_s: float = Field(30.0, ge=0, description="seconds between checkpoints")
    codesign: bool = Field(False, description="design the simulated accelerator anew for every network")
    exclude: str = Field("", description="choices the search leaves out, comma-separated, or 'unmapped'")
    targets: str = Field("tflite,onnx", description="formats that `run` exports, comma-separated")
    int8_io: Literal["int8", "uint8"] = Field("int8", description="input and output of int8 files")
    calibration: Literal["auto", Method] = Field("auto", description="how int8 ranges are chosen")
    calibration_images: int | None = Field(None, ge=2, description="training images int8 is calibrated on")
    finetune_steps: int = Field(0, ge=0, description="steps of quantisation-aware fine-tuning")
    dilated: Literal["expand", "keep"] = Field("expand", description="dilated kernels for the Edge TPU")
    compiler: str = Field("auto", description="vendor's compiler: auto, path, docker:IMAGE, ssh:USER@HOST")
    compile_timeout_s: float = Field(600.0, gt=0, description="longest that a vendor's compiler may take")
    segments: int = Field(1, ge=1, le=64, description="pieces the Edge TPU compiler cuts the network into")

    @field_validator("budget")
    @classmethod
    def _is_budget(cls, text: str | None) -> str | None:
        if text is not None:
            parse_budgets(text)
        return text

    @field_validator("compute")
    @classmethod
    def _is_place(cls, text: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
            raise ValueError("should be auto, cpu, cuda or cuda:N")
        return text

    @field_validator("samples")
    @classmethod
    def _are_enough(cls, number: int | None) -> int | None:
        if number is not None and 0 < number < _FEWEST_SAMPLES:
            raise ValueError(f"should be 0, or at least {_FEWEST_SAMPLES}")
        return number


EXPORT_SETTINGS = frozenset(ExportOptions.model_fields) & frozenset(Settings.model_fields) - {"seed"}
"""Settings of an export alone: a run does not keep them, since another export may well want others."""

PLACE_SETTINGS = frozenset({"compute", "precision", "micro_batches"})
"""Settings of where a stage computes: what was begun in one place may be continued in another.

Parts count among them, since where they are not set there are as many as processes; a checkpoint knows how
many it was made with, and is not continued with another number.
"""


PROJECT_SETTINGS = ("data", "image_size", "space", "channels", "cells")
"""What a command takes over from the last one in its project: which images, which networks of what size."""
BEFORE = "the last command here"
"""The origin of such settings."""


def kept_by_runs(settings: Settings) -> dict[str, Any]:
    """Return the settings that a run is made with and goes on with, as JSON-able data."""
    return settings.model_dump(exclude=set(EXPORT_SETTINGS))


def export_options(settings: Settings) -> ExportOptions:
    """Return how the settings want files exported."""
    return ExportOptions(seed=settings.seed, **settings.model_dump(include=set(EXPORT_SETTINGS)))


def absolute_data(data: str) -> str:
    """Return the setting `data` as another folder finds them."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon else kind


@dataclass(frozen=True)
class Loaded:
    """Settings and, for each, where its value came from."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    flags: dict[str, Any],
    project: Path | None,
    run: tuple[str, dict[str, Any]] | None = None,
    before: dict[str, Any] | None = None,
) -> Loaded:
    """Lay the flags that were given over the project's file, the user's file and the defaults.

    Args:
        flags: only those given; None counts as not given.
        project: the folder that holds `ehdnas.toml`, if any.
        run: name and settings of the run that is continued; they lie right under the flags.
        before: `PROJECT_SETTINGS` of the last command in this project. They lie over the defaults alone, and
            count for nothing where a file or a flag names other data.

    Raises:
        UsageError: an unknown key (with the nearest known one), or a value that cannot be right.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    user = user_config_path("ehdnas") / "config.toml"
    files = [user, *([project / PROJECT_FILE] if project else [])]
    layers.extend((str(path), _read(path)) for path in files if path.is_file())
    if run is not None:
        layers.append((f"run {run[0]}", run[1]))
    layers.append(("flag", {key: value for key, value in flags.items() if value is not None}))
    data = [layer["data"] for _, layer in layers if isinstance(layer.get("data"), str)]
    if before is not None and (not data or absolute_data(data[-1]) == before.get("data")):
        layers.insert(0, (BEFORE, before))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in layers:
        for key, value in layer.items():
            _check(origin, key, value)
            values[key], origins[key] = value, origin
    return Loaded(Settings(**values), origins)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _check(origin: str, key: str, value: Any) -> None:
    where = f"--{key.replace('_', '-')}" if origin == "flag" else f"{origin}: key '{key}'"
    if key not in Settings.model_fields:
        raise UsageError(f"{origin}: unknown key '{key}'{nearest(key, Settings.model_fields)}")
    try:
        Settings(**{key: value})
    except ValidationError as error:
        raise UsageError(f"{where}: {_plain(error.errors()[0]['msg'])}, not {value!r}") from error


def _plain(message: str) -> str:
    """Return what the validator says in words of everyday."""
    for theirs, ours in _PLAIN:
        if re.match(theirs, message):
            return re.sub(theirs, ours, message, count=1)
    return message
