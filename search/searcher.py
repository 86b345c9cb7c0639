"""The search: weights and architecture in turn, one sampled path at a time, under a budget.

First-order bilevel optimisation of DARTS (Liu, Simonyan, Yang, ICLR 2019) with the single-path
straight-through Gumbel-softmax of GDAS (Dong, Yang, CVPR 2019), over operations and edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.distribution import Distribution
from ehdnas.search.loop import Loop, Progress, epoch_order, step_seed, steps_per_epoch
from ehdnas.search.memory import within_memory
from ehdnas.search.micro_batches import MicroBatches
from ehdnas.search.objective import Constraints
from ehdnas.search.processes import ALONE, Processes
from ehdnas.search.recipes import Recipe
from ehdnas.search.relaxation import temperature_at
from ehdnas.search.spaces.base import NetworkShape, Space, Supernet

_WARM_UP = 0.3  # of the epochs train weights alone, so that early luck decides nothing
_HARDWARE_SAMPLES = 4  # architectures a step that the predictor sees; it costs next to nothing


@dataclass(frozen=True)
class SearchTask:
    """Everything a search depends on; the same task gives the same architecture.

    A distribution is learnt for each of `constraints`, all with the weights of one supernet; None stands for
    one without a budget. What a GPU computes differs from what a CPU does in the last digits, and so may what
    is found. Of several `processes` only the first one needs the constraints, the others as many None.
    """

    space: Space
    shape: NetworkShape
    weights: Split
    architecture: Split
    augmentation: Augmentation
    recipe: Recipe
    constraints: Sequence[Constraints | None]
    seed: int
    save_every_s: float
    identity: dict[str, Any]
    compute: Compute = CPU
    processes: Processes = ALONE


@dataclass(frozen=True)
class SearchResult:
    """Each learnt distribution's logits, the supernet they were learnt with, and one record an epoch."""

    distributions: list[Tensor]
    supernet: Supernet
    history: list[dict[str, Any]]

    @property
    def logits(self) -> Tensor:
        """The logits [slots, choices] of the first distribution, mostly the only one."""
        return self.distributions[0]


class Searcher:
    """Runs a `SearchTask`, from the start or from its checkpoint."""

    def __init__(self, task: SearchTask, checkpoint: Path) -> None:
        self.task = task
        self.compute = task.compute
        self.compute.prepare()
        torch.manual_seed(step_seed(task.seed, "supernet"))
        self.supernet = task.space.supernet(task.shape)
        self.supernet.skip_beside = task.recipe.skip_beside
        self.compute.place(self.supernet)
        self.weights = list(self.supernet.parameters())  # walking thousands of modules each step would show
        self.distributions = [Distribution(task.space, one) for one in task.constraints]
        recipe = task.recipe
        weights = torch.optim.SGD(
            self.weights,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        architecture = torch.optim.Adam(
            [one.logits for one in self.distributions],
            lr=recipe.architecture_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=recipe.architecture_weight_decay,
        )
        halves = task.weights, task.architecture
        self.images = [self.compute.hold(half.images) for half in halves]
        self.labels = [self.compute.move(torch.from_numpy(half.labels)) for half in halves]
        self.parts = MicroBatches(self.supernet, recipe.micro_batches, self._batch_size, task.processes)
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
            extra={f"logits.{number}": one.logits for number, one in enumerate(self.distributions)},
            look_every=self.compute.look_every,
            processes=task.processes,
        )

    def resume(self) -> int:
        """Continue from the checkpoint, if there is one; return how many steps it holds."""
        done = self.loop.resume()
        for number, one in enumerate(self.distributions):
            one.restore(number, self.loop.carried)
        return done

    def run(self, progress: Progress) -> SearchResult:
        """Search to the end, from the start or from where `resume` found it.

        Raises:
            EhdnasError: a loss became no number, or the batch does not fit into memory.
        """
        for epoch, step in self.loop.remaining():
            self._set_learning_rate()
            both = partial(self._both_steps, epoch, step)
            figures, gradient = within_memory(
                both, self._attempt, self._batch_size, self.parts.count, self.compute, self.loop.stage
            )
            self.loop.account(figures, gradient)
            if step == self.loop.steps - 1:
                self.loop.history[-1] |= self._decided()
            for number, one in enumerate(self.distributions):
                self.loop.carried |= one.carried(number)
            self.loop.show(partial(self._show, progress))
        logits = [one.logits.detach() for one in self.distributions]
        return SearchResult(logits, self.supernet, self.loop.history)

    @property
    def logits(self) -> Tensor:
        """The logits [slots, choices] of the first distribution, mostly the only one."""
        return self.distributions[0].logits

    def weight_step(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Train one sampled architecture's weights on one batch; return (its `loss`, the gradient's norm).

        The batch is what this process computes of it; so it is in `architecture_step`.
        """
        gates = self.task.space.relax(self._drawn_from.logits.detach(), self._temperature())
        total = torch.zeros(1, device=self.compute.device)
        for part in self.parts.each(len(images), self._parts_seed("weights")):
            with self.compute.autocast():
                loss = self.parts.share * F.cross_entropy(self.supernet(images[part], gates), labels[part])
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.parts.sum(self.weights, total)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.task.recipe.clip)
        optimizer = self.loop.optimizers["weights"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": total[0]}, norm

    def architecture_step(self, images: Tensor, labels: Tensor) -> dict[str, float | Tensor]:
        """Move the distribution by one batch's gradient; return what the step saw.

        Only the gradient towards the logits is computed: weights get none, which saves a third.
        """
        space, moved = self.task.space, self._moved
        gates = space.relax(moved.logits, self._temperature())
        figures: dict[str, float | Tensor] = {}
        hardware = []
        if moved.constraints is not None:  # by the CPU, while a GPU is still at the weights
            others = [space.relax(moved.logits, self._temperature()) for _ in range(_HARDWARE_SAMPLES - 1)]
            term, told = moved.hardware(torch.stack([gates, *others]))
            hardware.append(term)
            figures |= told
        slopes, seen = self._slopes(gates.detach(), images, labels)
        (gradient,) = torch.autograd.grad(
            [gates, *hardware], [moved.logits], [slopes, *map(torch.ones_like, hardware)]
        )
        # The first process's, which alone knows the budget; with it the logits are the same everywhere.
        self.parts.processes.share([gradient])
        # It is on the CPU, where to look costs nothing; logits that are no numbers select no architecture.
        self.loop.require_finite(gradient.norm())
        moved.logits.grad = gradient
        self.loop.optimizers["architecture"].step()
        moved.logits.grad = None  # the optimizer leaves alone what has none: the other distributions
        return {"architecture_loss": seen[0], "accuracy": seen[1], **figures}

    @property
    def _drawn_from(self) -> Distribution:
        """The distribution whose network this step's weights are trained for: any of them, by the seed."""
        count = len(self.distributions)
        return self.distributions[step_seed(self.task.seed, "distribution", self.loop.done) % count]

    @property
    def _moved(self) -> Distribution:
        """The distribution that this step moves: each in turn, so that several take no longer than one."""
        return self.distributions[self.loop.done % len(self.distributions)]

    def _slopes(self, gates: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (the gradient [slots, choices] of a batch's loss towards gates, [loss, accuracy])."""
        gates.requires_grad_()
        slopes, seen = torch.zeros_like(gates), torch.zeros(2, device=self.compute.device)
        for part in self.parts.each(len(images), self._parts_seed("architecture")):
            with self.compute.autocast():
                logits = self.supernet(images[part], gates)
                loss = F.cross_entropy(logits, labels[part])
            (own,) = torch.autograd.grad(self.parts.share * loss, [gates])
            slopes += own
            accuracy = (logits.argmax(1) == labels[part]).float().mean()
            seen += self.parts.share * torch.stack([loss.detach(), accuracy])
        self.parts.processes.sum([slopes])
        self.parts.processes.sum([seen])
        return slopes, seen

    def _parts_seed(self, of: str) -> int:
        return step_seed(self.task.seed, f"search-{of}-parts", self.loop.done)

    def _show(self, progress: Progress, done: int, total: int, text: str) -> None:
        last = self.loop.history[-1] if self.loop.history else {}
        shown = [f"{key} {last[key]:.3g}" for key in ("entropy", "skips") if key in last]
        progress(done, total, ", ".join([text, *shown]))

    def _both_steps(self, epoch: int, step: int) -> tuple[dict[str, float | Tensor], Tensor]:
        figures, norm = self.weight_step(*self._batch(0, epoch, step))
        if epoch < int(_WARM_UP * self.loop.epochs):
            return {**figures}, norm
        return {**figures, **self.architecture_step(*self._batch(1, epoch, step))}, norm

    @property
    def _batch_size(self) -> int:
        return min(self.task.recipe.batch_size, len(self.labels[0]))

    def _attempt(self, size: int) -> None:
        """Do what takes a weight step's memory with `size` images, and keep nothing."""
        gates = self.task.space.relax(self.logits.detach(), self._temperature())
        images = self.compute.batch(torch.zeros(size, *self.task.shape.image))
        with self.compute.autocast():
            loss = self.supernet(images, gates).float().sum()
        torch.autograd.grad(loss, self.weights, allow_unused=True)

    def _batch(self, half: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        images, labels = self.images[half], self.labels[half]
        stage = ("search-weights", "search-architecture")[half]
        # The two halves can differ in length by a few images; the order repeats rather than runs out.
        order = epoch_order(len(labels), self.task.recipe.batch_size, self.task.seed, stage, epoch)
        rows = order[step % len(order)]
        own = torch.arange(len(rows))[self.parts.own(len(rows))]
        taken = rows[own]
        generator = torch.Generator().manual_seed(step_seed(self.task.seed, stage, epoch, step))
        batch = self.task.augmentation(self.compute.take(images, taken), generator, own, len(rows))
        return self.compute.batch(batch), labels[self.compute.move(taken)]

    def _temperature(self) -> float:
        return temperature_at(self.loop.done / (self.loop.epochs * self.loop.steps))

    def _set_learning_rate(self) -> None:
        epoch = self.loop.done // self.loop.steps
        lowest, highest = 0.001, self.task.recipe.learning_rate
        cosine = (1 + math.cos(math.pi * epoch / self.loop.epochs)) / 2
        for group in self.loop.optimizers["weights"].param_groups:
            group["lr"] = min(lowest, highest) + max(0.0, highest - lowest) * cosine

    def _decided(self) -> dict[str, float]:
        """Return what an epoch's record says of the distributions: how decided they are, and most skips."""
        space, learnt = self.task.space, [one.logits.detach() for one in self.distributions]
        skips = [count for logits in learnt for count in space.identities(space.most_likely(logits))]
        entropy = sum(map(space.entropy, learnt)) / len(learnt)
        decided = {"entropy": entropy, "temperature": self._temperature()}
        return {**decided, "skips": max(skips)} if skips else decided
