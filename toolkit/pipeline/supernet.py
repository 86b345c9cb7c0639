"""The part of a search that learns: a supernet, and the distributions of networks under budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ehdnas.pipeline.constraints import Budgets, said, together
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.events import heard
from ehdnas.pipeline.following import call
from ehdnas.pipeline.tasks import search_task
from ehdnas.pipeline.timing import about, pass_seconds
from ehdnas.pipeline.trials import FACTOR, trial_epochs
from ehdnas.pipeline.worth import warn_of_few_images
from ehdnas.search.halving import rounds
from ehdnas.search.processes import current
from ehdnas.search.searcher import Searcher, SearchResult
from ehdnas.search.selection import can_be_spent
from ehdnas.workspace import Run

_PASSES = 1.7  # of a batch that a step takes: of weights, and of architecture without their gradients


def learn(
    context: Context, run: Run, budgets: Sequence[Budgets], resume: bool, further: int = 0
) -> SearchResult:
    """Learn one distribution for each of `budgets` through one supernet, and return them.

    Args:
        budgets: those of each distribution, which it is to meet together.
        resume: go on from the run's checkpoint, if there is one.
        further: epochs beyond those of the recipe; the checkpoint is then gone on from.

    Raises:
        UsageError: the checkpoint was made with other settings; the message says which differ.
    """
    texts = "; ".join(f"{one.budget!r} on {one.context.device.name}" for own in budgets for one in own)
    identity = context.identity(budgets=texts)
    longer = context.having(search_epochs=context.recipe.search_epochs + further) if further else context
    resume = resume or further > 0
    constraints = [replace(one, spend=can_be_spent(context.space, one)) for one in map(together, budgets)]
    searcher = Searcher(search_task(longer, constraints, identity), run.checkpoint("search"))
    call(longer, "search", resume)
    if resume:
        context.say_resumed("search", searcher.resume(), searcher.loop)
    return searcher.run(context.reporter.progress, heard(context, run, "search", searcher.loop))


def say_plan(context: Context, budgets: Budgets) -> None:
    """Say how long the search is, over what and for what."""
    context.say_data()
    warn_of_few_images(context)
    recipe, reporter = context.recipe, context.reporter
    steps = max(1, len(context.dataset.train) // 2 // recipe.batch_size)
    taken, passes = _pass_seconds(context), _PASSES * steps * recipe.search_epochs + _trial_passes(context)
    seconds = None if taken is None else taken * passes
    many = "" if context.settings.pareto is None else f"{context.settings.pareto} networks within "
    reporter.say(
        f"search: {recipe.search_epochs} epochs of {steps} steps over '{context.space.name}' "
        f"({context.shape}) for {many}{said(budgets)}{about(seconds)} on {context.computing}"
    )


def _trial_passes(context: Context) -> float:
    """Return how many passes the trials of the finalists take, at most: fewer may meet the budgets."""
    images, settings = len(context.dataset.train) // 2, context.settings
    if settings.pareto is not None or settings.finalists < 2:
        return 0.0
    tried = rounds(settings.finalists, trial_epochs(context), FACTOR)
    return sum(count * epochs for count, epochs in tried) * images / context.recipe.batch_size


def _pass_seconds(context: Context) -> float | None:
    """Return how long the reference network takes for a batch here; None where memory is too small."""
    compute = context.compute
    with torch.random.fork_rng():
        network = compute.place(context.space.network(context.space.reference, context.shape))
        size = min(context.recipe.batch_size, len(context.dataset.train)) // context.recipe.micro_batches
        images = torch.randn(max(size, 1), *context.shape.image)
    taken = pass_seconds(network, images, compute)
    return None if taken is None else taken * context.recipe.micro_batches / current().count
