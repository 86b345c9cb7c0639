"""What is exported: a trained network, one with random weights, the user's own, or a part of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.text import nearest
from ehdnas.pipeline.candidates import untrained
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.train import Trained, load_trained, shape_from
from ehdnas.pipeline.user_module import load_module, require_fit
from ehdnas.search.checkpoint import load_checkpoint, restore_module
from ehdnas.search.spaces.base import Part
from ehdnas.workspace import Run

_INPUT = "pixels / 255, minus mean, divided by std, per channel"


@dataclass(frozen=True)
class Subject:
    """A module, what it is fed, and what its files say of it.

    `labelled` is whether its answers are meant to be the data's classes; `takes_images` whether it is fed
    images at all, as a part of a network is not. `name` is what its files are called.
    """

    network: nn.Module
    shapes: tuple[tuple[int, int, int], ...]
    meta: dict[str, Any]
    labelled: bool = False
    takes_images: bool = True
    name: str = "model"


def trained_subject(trained: Trained) -> Subject:
    """Return a trained network of ours."""
    meta = {key: value for key, value in trained.meta.items() if key not in ("shape", "data")}
    return Subject(trained.network, (trained.shape.image,), {**meta, "input": _INPUT}, labelled=True)


def run_subject(run: Run) -> Subject:
    """Return the trained network of a run; the user's own is made by the module that the run names.

    A weights file never says which module to import: it may come from anybody.

    Raises:
        DataError: its weights are damaged, or of another network than the module makes now.
    """
    if not run.module:
        return trained_subject(load_trained(run.weights))
    tensors, meta = load_checkpoint(run.weights)
    network = load_module(run.module)
    restore_module(network, tensors, run.weights)
    shape = shape_from(meta["shape"])
    kept = {key: value for key, value in meta.items() if key not in ("shape", "data")}
    return Subject(network, (shape.image,), {**kept, "input": _INPUT}, labelled=True)


def checkpoint_subject(path: Path) -> Subject:
    """Return the trained network in a weights file of ours.

    Raises:
        DataError: the file is absent, damaged or not one of ours.
    """
    trained = load_trained(path)
    sizes = {"classes": trained.shape.classes, "mean": trained.shape.image[0], "std": trained.shape.image[0]}
    for key, size in sizes.items():
        found = trained.meta.get(key)
        if not isinstance(found, list) or len(found) != size:
            raise DataError(f"{path} does not say the {key} of what its network was trained on; train again")
    return trained_subject(trained)


def untrained_subject(context: Context, genotype: str) -> Subject:
    """Return a genotype's network with random weights, and say so in its files.

    Raises:
        UsageError: it is no genotype of the space.
    """
    architecture = context.space.parse(genotype)
    network = untrained(context.space, architecture, context.shape)
    meta = {
        "space": context.space.name,
        "genotype": context.space.text(architecture),
        **_of_data(context),
        "weights": "random: not trained",
    }
    return Subject(network, (context.shape.image,), meta)


def module_subject(context: Context, reference: str) -> Subject:
    """Return the user's own network, weights and all, named as FILE.py:FUNCTION.

    Raises:
        DataError, UsageError: as `load_module`.
        UsageError: the data are not what it takes, or have other classes than it tells apart.
    """
    network = load_module(reference)
    require_fit(network, reference, context.dataset)
    meta = {"module": reference, **_of_data(context), "weights": "as the module came"}
    return Subject(network, (context.dataset.image_shape,), meta, labelled=True)


def part_subject(context: Context, genotype: str, name: str) -> Subject:
    """Return a cell of a genotype's network, or a candidate operation of the space, with random weights.

    Raises:
        UsageError: there is no such part; the message names the nearest.
    """
    architecture = context.space.parse(genotype)
    with torch.random.fork_rng():
        torch.manual_seed(context.settings.seed)
        parts = {part.name: part for part in _parts(context, genotype)}
    if name not in parts:
        raise UsageError(f"no part '{name}' in {context.shape}{_nearest_part(name, parts)}")
    part = parts[name]
    meta = {
        "space": context.space.name,
        "part": name,
        **({"genotype": context.space.text(architecture)} if len(part.inputs) > 1 else {}),
        "weights": "random: not trained",
    }
    return Subject(part.module.eval(), part.inputs, meta, takes_images=False, name=name.replace(".", "_"))


def _nearest_part(name: str, parts: dict[str, Part]) -> str:
    close = nearest(name, parts)
    whole = ", ".join(part for part in parts if "." not in part)  # with all their pieces, there are hundreds
    return close if close.endswith("?") else f"; known: {whole}, and cell0.edge3.sep_conv_3x3 and the like"


def _parts(context: Context, genotype: str) -> list[Part]:
    space, shape = context.space, context.shape
    cut = space.parts(shape)
    operations = [part for _, parts in cut.by_decision() for part in parts]
    return [*space.cells(space.parse(genotype), shape), *cut.fixed, *operations]


def _of_data(context: Context) -> dict[str, Any]:
    dataset = context.dataset
    return {
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "input": _INPUT,
    }
