"""What is exported: a trained network, one with random weights, the user's own, or a part of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import untrained
from ehdnas.pipeline.train import Trained, load_trained
from ehdnas.pipeline.user_module import load_module
from ehdnas.search.spaces.base import Part

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


def checkpoint_subject(path: Path) -> Subject:
    """Return the trained network in a weights file of ours.

    Raises:
        DataError: the file is absent, damaged or not one of ours.
    """
    return trained_subject(load_trained(path))


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
    """
    meta = {"module": reference, **_of_data(context), "weights": "as the module came"}
    return Subject(load_module(reference), (context.dataset.image_shape,), meta, labelled=True)


def part_subject(context: Context, genotype: str, name: str) -> Subject:
    """Return a cell of a genotype's network, or a candidate operation of the space, with random weights.

    Raises:
        UsageError: there is no such part; the message names the nearest.
    """
    architecture = context.space.parse(genotype)
    parts = {part.name: part for part in _parts(context, genotype)}
    if name not in parts:
        raise UsageError(f"no part '{name}' in {context.shape}{nearest(name, parts)}")
    part = parts[name]
    meta = {
        "space": context.space.name,
        "part": name,
        **({"genotype": context.space.text(architecture)} if len(part.inputs) > 1 else {}),
        "weights": "random: not trained",
    }
    return Subject(part.module.eval(), part.inputs, meta, takes_images=False, name=name.replace(".", "_"))


def _parts(context: Context, genotype: str) -> list[Part]:
    space, shape = context.space, context.shape
    cut = space.parts(shape)
    operations = [part for parts in cut.chosen.values() for part in parts]
    return [*space.cells(space.parse(genotype), shape), *cut.fixed, *operations]


def _of_data(context: Context) -> dict[str, Any]:
    dataset = context.dataset
    return {
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "input": _INPUT,
    }
