"""Trials at a search's end: each finalist trained a little by itself, and the most accurate one kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from ehdnas.core.files import write_json
from ehdnas.core.images.dataset import normalise
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Finalist
from ehdnas.pipeline.following import call
from ehdnas.pipeline.reporter import Reporter
from ehdnas.pipeline.scoring import kept_accuracies
from ehdnas.pipeline.tasks import trial_task
from ehdnas.pipeline.trainee import of_genotype
from ehdnas.search.halving import Trial, halved, rounds
from ehdnas.search.loop import Progress, steps_per_epoch
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
    trials = halved([one.architecture for one in finalists], epochs, _Trials(context, run), FACTOR)
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


class _Trials:
    """Trains networks for a few epochs and gives their accuracies, which are kept in the run's folder."""

    def __init__(self, context: Context, run: Run) -> None:
        self._context, self._run = context, run
        self._path = run.stage_file("trials")
        self._known = kept_accuracies(self._path)

    def __call__(self, architectures: Sequence[Architecture], epochs: int) -> list[float]:
        """Return the accuracy of each, a share of 1, after so many epochs; none is tried twice."""
        genotypes = [self._context.space.text(one) for one in architectures]
        names = {genotype: f"{genotype} {epochs}" for genotype in genotypes}
        left = [genotype for genotype, name in names.items() if name not in self._known]
        for number, genotype in enumerate(left):
            show = partial(_show, self._context.reporter, number, len(left))
            self._known[names[genotype]] = self._train(genotype, epochs, show)
            write_json(self._path, self._known)
            self._checkpoint(genotype, epochs).unlink(missing_ok=True)
        return [self._known[names[genotype]] for genotype in genotypes]

    def _train(self, genotype: str, epochs: int, show: Progress) -> float:
        """Train a network for so many epochs, from where an earlier process left off; return its accuracy."""
        context, trainee = self._context, of_genotype(self._context, genotype)
        task = trial_task(context, trainee, epochs, context.identity(trial=genotype, epochs=epochs))
        trainer = Trainer(task, self._checkpoint(genotype, epochs))
        call(context, "trial", True, trainee, epochs)
        trainer.resume()
        trainer.run(show)
        _, held_out = context.dataset.halves(context.settings.seed)
        images = normalise(held_out.images, context.dataset.mean, context.dataset.std)
        logits = logits_of(trainer.network, images, compute=context.compute)
        return accuracy_of(logits, held_out.labels)

    def _checkpoint(self, genotype: str, epochs: int) -> Path:
        """Return where a trial's checkpoint is: genotypes of some spaces are no names of files."""
        name = sha256(f"{genotype} {epochs}".encode()).hexdigest()[:12]
        return self._run.checkpoint(f"trial-{name}")


def _show(reporter: Reporter, number: int, count: int, done: int, total: int, text: str) -> None:
    """Show how far `count` trainings of `total` steps are, in that of a number from 0."""
    reporter.progress(number * total + done, count * total, f"trial {number + 1} of {count}, {text}")
