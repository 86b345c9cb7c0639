"""Trials at a search's end: each finalist trained a little by itself, and the most accurate one kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from ehdnas.core.files import write_json
from ehdnas.core.images.dataset import normalise
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Finalist
from ehdnas.pipeline.following import call
from ehdnas.pipeline.scoring import kept_accuracies
from ehdnas.pipeline.tasks import trial_task
from ehdnas.pipeline.trainee import of_genotype
from ehdnas.search.halving import Trial, halved, rounds
from ehdnas.search.loop import steps_per_epoch
from ehdnas.search.spaces.base import Architecture
from ehdnas.search.trainer import Trainer, accuracy_of, logits_of
from ehdnas.workspace import Run

_SHARE = 0.04  # of the search's epochs, that the first trials take at least
FACTOR = 3  # a round goes on with the best third, three times as long
_STEPS = 300  # at least: a hundred told two networks apart that were alike after six hundred


def trial_epochs(context: Context) -> int:
    """Return the epochs of the first round of trials: as set, else by the search's length and the images."""
    recipe = context.recipe
    steps = steps_per_epoch(len(context.dataset.train) // 2, recipe.train_batch_size)
    usual = max(math.ceil(_SHARE * recipe.search_epochs), math.ceil(_STEPS / steps))
    return context.settings.trial_epochs or usual


def winner(
    context: Context, run: Run, finalists: Sequence[Finalist]
) -> tuple[Finalist, list[dict[str, Any]]]:
    """Return the finalist that trains best, and the trials as JSON-able rows; none of a single finalist.

    They are trained on the half of the images that the shared weights were, and judged on the other. What was
    tried is kept in the run's folder, so that one that was stopped tries none again.
    """
    if len(finalists) < 2:
        return finalists[0], []
    epochs = trial_epochs(context)
    lengths = [length for _, length in rounds(len(finalists), epochs, FACTOR)]
    then = "".join(f", the best third of them for {length}" for length in lengths[1:])
    context.reporter.say(
        f"search: {len(finalists)} networks meet the budget about alike; training each from scratch for "
        f"{epochs} epochs{then}, to tell which is best"
    )
    trials = halved([one.architecture for one in finalists], epochs, _Tried(context, run), FACTOR)
    for one in trials:
        run.checkpoint(_stage(context.space.text(one.architecture), one.epochs)).unlink(missing_ok=True)
    rows = [_row(context, one) for one in trials]
    best = next(one for one in finalists if one.architecture == trials[-1].architecture)
    context.reporter.say(
        f"search: the best of them is right for {trials[-1].accuracy:.2%} of the held-out images after "
        f"{trials[-1].epochs} epochs"
    )
    return best, rows


def _row(context: Context, trial: Trial) -> dict[str, Any]:
    genotype = context.space.text(trial.architecture)
    return {"genotype": genotype, "epochs": trial.epochs, "accuracy": trial.accuracy}


def _stage(genotype: str, epochs: int) -> str:
    """Return what a trial's checkpoint is called: genotypes of some spaces are no names of files."""
    return f"trial-{sha256(f'{genotype} {epochs}'.encode()).hexdigest()[:12]}"


class _Tried:
    """Accuracies of networks trained for a few epochs, kept in the run's folder."""

    def __init__(self, context: Context, run: Run) -> None:
        self._context, self._run = context, run
        self._path = run.stage_file("trials")
        self._known = kept_accuracies(self._path)

    def __call__(self, architectures: Sequence[Architecture], epochs: int) -> list[float]:
        return [self._accuracy(self._context.space.text(one), epochs) for one in architectures]

    def _accuracy(self, genotype: str, epochs: int) -> float:
        name = f"{genotype} {epochs}"
        if name not in self._known:
            self._known[name] = self._train(genotype, epochs)
            write_json(self._path, self._known)
        return self._known[name]

    def _train(self, genotype: str, epochs: int) -> float:
        """Train a network for so many epochs, from where an earlier process left off; return its accuracy."""
        context, trainee = self._context, of_genotype(self._context, genotype)
        task = trial_task(context, trainee, epochs, context.identity(trial=genotype, epochs=epochs))
        trainer = Trainer(task, self._run.checkpoint(_stage(genotype, epochs)))
        call(context, "trial", True, trainee, epochs)
        trainer.resume()
        trainer.run(context.reporter.progress)
        _, held_out = context.dataset.halves(context.settings.seed)
        images = normalise(held_out.images, context.dataset.mean, context.dataset.std)
        logits = logits_of(trainer.network, images, compute=context.compute)
        return accuracy_of(logits, held_out.labels)
