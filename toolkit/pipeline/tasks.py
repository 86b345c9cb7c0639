"""From a context to what a search or a training is given; the same on every process that shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.trainee import Trainee
from ehdnas.search.equal_cost import METHODS
from ehdnas.search.loop import step_seed
from ehdnas.search.objective import Constraints
from ehdnas.search.processes import current
from ehdnas.search.searcher import SearchTask
from ehdnas.search.trainer import TrainTask

_SHORT_RATE = 0.1


def search_task(
    context: Context, constraints: Sequence[Constraints] = (), identity: dict[str, Any] | None = None
) -> SearchTask:
    """Return the search; only the first process needs the constraints, and the identity for checkpoints.

    There is one of `constraints` for each distribution that is learnt: several where a front is asked for.
    """
    weights, architecture = context.dataset.halves(context.settings.seed)
    return SearchTask(
        space=context.space,
        shape=context.shape,
        weights=weights,
        architecture=architecture,
        augmentation=context.augmentation,
        recipe=context.recipe,
        constraints=constraints or [None] * (context.settings.pareto or 1),
        seed=context.settings.seed,
        save_every_s=context.settings.checkpoint_s,
        identity=identity or {},
        compute=context.compute,
        processes=current(),
        uniform=context.settings.method in METHODS,
    )


def train_task(context: Context, trainee: Trainee, identity: dict[str, Any] | None = None) -> TrainTask:
    """Return the training; only the first process needs the identity, for checkpoints."""
    torch.manual_seed(step_seed(context.settings.seed, "network"))
    return TrainTask(
        network=trainee.make(context.recipe.auxiliary_weight > 0),
        images=context.dataset.train,
        augmentation=context.augmentation,
        recipe=context.recipe,
        seed=context.settings.seed,
        save_every_s=context.settings.checkpoint_s,
        identity=identity or {},
        compute=context.compute,
        processes=current(),
    )


def trial_task(
    context: Context, trainee: Trainee, epochs: int, identity: dict[str, Any] | None = None
) -> TrainTask:
    """Return a short training, on the half of the images that a search trains weights on.

    What regularises long trainings is left out, and the rate is at least what suits a short schedule.
    """
    rate = context.settings.learning_rate or max(context.recipe.train_learning_rate, _SHORT_RATE)
    plain = dict.fromkeys(("drop_path", "auxiliary_weight", "ema", "label_smoothing", "mixup"), 0.0)
    short = {"train_epochs": epochs, "train_learning_rate": rate}
    weights, _ = context.dataset.halves(context.settings.seed)
    brief = replace(context)
    vars(brief).update(
        dataset=replace(context.dataset, train=weights),
        recipe=context.recipe.model_copy(update={**plain, **short}),
        augmentation=replace(context.augmentation, cutout=0),
    )
    return train_task(brief, trainee, identity)
