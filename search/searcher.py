"""The search: weights and architecture in turn, one sampled path at a time, under a budget.

First-order bilevel optimisation of DARTS (Liu, Simonyan, Yang, ICLR 2019) with the single-path
straight-through Gumbel-softmax of GDAS (Dong, Yang, CVPR 2019), over operations and edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.loop import Loop, Progress, epoch_order, step_seed, steps_per_epoch
from ehdnas.search.objective import Constraint, DualAscent
from ehdnas.search.recipes import Recipe
from ehdnas.search.relaxation import temperature_at
from ehdnas.search.spaces.base import NetworkShape, Space, Supernet

_WARM_UP = 0.3  # of the epochs train weights alone, so that early luck decides nothing
_HARDWARE_SAMPLES = 4  # architectures a step that the predictor sees; it costs next to nothing


@dataclass(frozen=True)
class SearchTask:
    """Everything a search depends on; the same task gives the same architecture."""

    space: Space
    shape: NetworkShape
    weights: Split
    architecture: Split
    augmentation: Augmentation
    recipe: Recipe
    constraint: Constraint | None
    seed: int
    save_every_s: float
    identity: dict[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """The learnt distribution, the supernet it was learnt with, and one record an epoch."""

    logits: Tensor
    supernet: Supernet
    history: list[dict[str, Any]]


class Searcher:
    """Runs a `SearchTask`, from the start or from its checkpoint."""

    def __init__(self, task: SearchTask, checkpoint: Path) -> None:
        self.task = task
        torch.manual_seed(step_seed(task.seed, "supernet"))
        self.supernet = task.space.supernet(task.shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.logits = task.space.initial_logits().requires_grad_()
        self.dual = DualAscent()
        recipe = task.recipe
        weights = torch.optim.SGD(
            self.supernet.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        architecture = torch.optim.Adam(
            [self.logits],
            lr=recipe.architecture_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=recipe.architecture_weight_decay,
        )
        self.images = torch.from_numpy(task.weights.images), torch.from_numpy(task.architecture.images)
        self.labels = torch.from_numpy(task.weights.labels), torch.from_numpy(task.architecture.labels)
        self.loop = Loop(
            stage="search",
            path=checkpoint,
            identity=task.identity,
            module=self.supernet,
            optimizers={"weights": weights, "architecture": architecture},
            epochs=recipe.search_epochs,
            steps=steps_per_epoch(len(task.weights), recipe.batch_size),
            seed=task.seed,
            save_every_s=task.save_every_s,
            extra={"logits": self.logits},
        )

    def resume(self) -> int:
        """Continue from the checkpoint, if there is one; return how many steps it holds."""
        done = self.loop.resume()
        self.dual.multiplier = self.loop.carried.get("multiplier", 0.0)
        return done

    def run(self, progress: Progress) -> SearchResult:
        """Search to the end, from the start or from where `resume` found it."""
        total = self.loop.epochs * self.loop.steps
        sums = self.loop.carried.copy()
        for epoch, step in self.loop.remaining():
            self._set_learning_rate()
            record = {"loss": self.weight_step(*self._batch(0, epoch, step))}
            if epoch >= int(_WARM_UP * self.loop.epochs):
                record |= self.architecture_step(*self._batch(1, epoch, step))
            sums = self._account(sums, record, epoch, step)
            progress(self.loop.done + 1, total, f"loss {record['loss']:.2f}")
        return SearchResult(self.logits.detach(), self.supernet, self.loop.history)

    def weight_step(self, images: Tensor, labels: Tensor) -> float:
        """Train the weights of one sampled architecture on one batch; return the loss."""
        gates = self.task.space.relax(self.logits.detach(), self._temperature())
        loss = F.cross_entropy(self.supernet(images, gates), labels)
        self.loop.require_finite(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.task.recipe.clip)
        optimizer = self.loop.optimizers["weights"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def architecture_step(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Move the distribution by one batch's gradient; return what the step saw.

        Only the gradient towards the logits is computed: weights get none, which saves a third.
        """
        space, constraint = self.task.space, self.task.constraint
        gates = space.relax(self.logits, self._temperature())
        logits = self.supernet(images, gates)
        loss = F.cross_entropy(logits, labels)
        self.loop.require_finite(loss)
        record = {
            "architecture_loss": loss.item(),
            "accuracy": (logits.argmax(1) == labels).float().mean().item(),
        }
        if constraint is not None:
            others = [space.relax(self.logits, self._temperature()) for _ in range(_HARDWARE_SAMPLES - 1)]
            violation = constraint.violation(torch.stack([gates, *others]))
            loss = loss + self.dual.loss(violation)
            self.dual.update(violation)
            record |= {"violation": float(violation.detach().mean()), "multiplier": self.dual.multiplier}
        (self.logits.grad,) = torch.autograd.grad(loss, [self.logits])
        self.loop.optimizers["architecture"].step()
        return record

    def _batch(self, half: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        images, labels = self.images[half], self.labels[half]
        stage = ("search-weights", "search-architecture")[half]
        # The two halves can differ in length by a few images; the order repeats rather than runs out.
        order = epoch_order(len(labels), self.task.recipe.batch_size, self.task.seed, stage, epoch)
        rows = order[step % len(order)]
        generator = torch.Generator().manual_seed(step_seed(self.task.seed, stage, epoch, step))
        return self.task.augmentation(images[rows], generator), labels[rows]

    def _temperature(self) -> float:
        return temperature_at(self.loop.done / (self.loop.epochs * self.loop.steps))

    def _set_learning_rate(self) -> None:
        epoch = self.loop.done // self.loop.steps
        lowest, highest = 0.001, self.task.recipe.learning_rate
        cosine = (1 + math.cos(math.pi * epoch / self.loop.epochs)) / 2
        for group in self.loop.optimizers["weights"].param_groups:
            group["lr"] = min(lowest, highest) + max(0.0, highest - lowest) * cosine

    def _account(
        self, sums: dict[str, float], record: dict[str, float], epoch: int, step: int
    ) -> dict[str, float]:
        """Add a step to the epoch's sums; at its end turn them into a record of means."""
        for key, value in record.items():
            sums[f"sum.{key}"] = sums.get(f"sum.{key}", 0.0) + value
        if step == self.loop.steps - 1:
            means = {
                key.removeprefix("sum."): value / self.loop.steps
                for key, value in sums.items()
                if key[:4] == "sum."
            }
            operations = self.logits.detach()[:, 1:].softmax(dim=1)
            entropy = -(operations * operations.log()).sum(dim=1).mean()
            self.loop.history.append(
                {"epoch": epoch, **means, "entropy": float(entropy), "temperature": self._temperature()}
            )
            sums = {}
        self.loop.carried = {**sums, "multiplier": self.dual.multiplier}
        return sums
