"""What is trained: the network that a run is about, by what makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ehdnas.core.errors import UsageError
from ehdnas.exporters.given import as_network
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.user_module import load_module, short_name, source_sha256
from ehdnas.workspace import Run


@dataclass(frozen=True)
class Trainee:
    """A network of the space, by its genotype, or the user's own, by the reference of its module.

    `make` gives it untrained; asked for an auxiliary head it has one where its space knows of any. `identity`
    is what a checkpoint of its training must agree with, and `meta` what its weights say of it.
    """

    make: Callable[[bool], nn.Module]
    identity: dict[str, Any]
    meta: dict[str, Any]
    genotype: str = ""
    module: str = ""


def trainee_of(context: Context, run: Run) -> Trainee:
    """Return what a run trains.

    Raises:
        UsageError: the run holds no finished search.
    """
    module = run.module
    return of_module(context, module) if module else of_genotype(context, run.genotype)


def of_genotype(context: Context, genotype: str) -> Trainee:
    """Return the network of a genotype, at the context's size."""
    architecture = context.space.parse(genotype)
    text = context.space.text(architecture)

    def make(auxiliary: bool) -> nn.Module:
        return context.space.network(architecture, context.shape, auxiliary=auxiliary)

    return Trainee(make, {"genotype": text}, {"space": context.space.name, "genotype": text}, genotype=text)


def of_module(context: Context, reference: str) -> Trainee:
    """Return the user's own network, with the weights that its function gives it.

    Raises:
        DataError, UsageError: as `load_module` and `as_network`.
    """
    name = short_name(reference)
    identity = {"module": name, "module_sha256": source_sha256(reference)}

    def make(auxiliary: bool) -> nn.Module:
        return as_network(load_module(reference))

    return Trainee(make, identity, {"module": name}, module=reference)


def require_images(context: Context) -> None:
    """Return if the data are what networks of the context's size take.

    Raises:
        UsageError: they are others, as the default may be of a table whose networks others have trained.
    """
    dataset, shape = context.dataset, context.shape
    if dataset.image_shape != shape.image or dataset.num_classes != shape.classes:
        theirs, ours = ("x".join(map(str, one)) for one in (dataset.image_shape, shape.image))
        raise UsageError(
            f"the networks take images of {ours} in {shape.classes} classes, and '{dataset.source}' has "
            f"{theirs} in {dataset.num_classes}; give --data of that size"
        )
