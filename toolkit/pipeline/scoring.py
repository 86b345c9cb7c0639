"""Networks scored with the supernet's weights: the candidates of a search, or a baseline's by the hundred."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ehdnas.core.errors import DataError
from ehdnas.core.files import read_json, write_json
from ehdnas.pipeline.context import Context
from ehdnas.search.equal_cost import networks_to_score, scored_candidates
from ehdnas.search.objective import Constraints
from ehdnas.search.selection import Candidate, supernet_accuracy
from ehdnas.search.spaces.base import Architecture, Supernet
from ehdnas.workspace import Run

SCORED = 16
"""Candidates that the search by gradient judges with the supernet's weights,"""
SCORED_ON = 1000
"""on this many held-out images at most."""

Accuracy = Callable[[Architecture], float]


def shared_accuracy(context: Context, supernet: Supernet, most: int = SCORED_ON) -> Accuracy:
    """Return what gives a network's accuracy, a share of 1, with the shared weights.

    Args:
        most: held-out images that it is judged on; fewer where there are no more.
    """
    _, held_out = context.dataset.halves(context.settings.seed)
    images = torch.from_numpy(held_out.images[:most])
    labels = torch.from_numpy(held_out.labels[:most])

    def accuracy(architecture: Architecture) -> float:
        return supernet_accuracy(
            context.space, supernet, architecture, images, labels, context.augmentation, context.compute
        )  # fmt: skip

    return accuracy


def score_by_method(
    context: Context, run: Run, supernet: Supernet, constraints: Constraints
) -> list[tuple[Candidate, float]]:
    """Return what random search or evolution scored, at the cost of the search by gradient; with accuracies.

    What was scored is kept in the run's folder, so that one that was stopped scores none again.
    """
    method = context.settings.method or ""
    weights, held_out = context.dataset.halves(context.settings.seed)
    count = networks_to_score(context.recipe, len(weights), min(len(held_out), SCORED_ON), SCORED)
    context.reporter.say(
        f"search: {method} over {count} networks, scored with the shared weights; that costs as much as the "
        "architecture steps of a search by gradient"
    )
    kept = _Kept(context, run.stage_file("scores"), shared_accuracy(context, supernet), count)
    found = scored_candidates(method, context.space, constraints, context.settings.seed, kept, count)
    kept.write()
    return found


class _Kept:
    """Accuracies that are kept in a file from time to time, and told from there again."""

    def __init__(self, context: Context, path: Path, ask: Accuracy, count: int) -> None:
        self._context, self._path, self._ask, self._count = context, path, ask, count
        self._told = kept_accuracies(path)
        self._asked, self._written = 0, time.monotonic()

    def __call__(self, architecture: Architecture) -> float:
        text = self._context.space.text(architecture)
        if text not in self._told:
            self._told[text] = self._ask(architecture)
            if time.monotonic() - self._written > self._context.settings.checkpoint_s:
                self.write()
        self._asked += 1
        self._context.reporter.progress(self._asked, self._count, "networks scored")
        return self._told[text]

    def write(self) -> None:
        write_json(self._path, self._told)
        self._written = time.monotonic()


def kept_accuracies(path: Path) -> dict[str, float]:
    """Return what was kept; nothing where it is absent or damaged, since it can be had again."""
    try:
        kept = read_json(path)
    except DataError:
        return {}
    return {
        text: float(value)
        for text, value in (kept.items() if isinstance(kept, dict) else ())
        if isinstance(value, int | float) and 0 <= value <= 1
    }
