"""The search: weights and architecture in turn, one sampled path at a time, under a budget.

First-order bilevel optimisation of DARTS (Liu, Simonyan, Yang, ICLR 2019) with single paths as in GDAS (Dong,
Yang, CVPR 2019), over operations and edges. A recipe can ask for mixtures, or for the second order, instead.
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
from ehdnas.search.loop import EpochRecord, Loop, Progress, epoch_order, step_seed, steps_per_epoch, unheard
from ehdnas.search.memory import within_memory
from ehdnas.search.micro_batches import MicroBatches
from ehdnas.search.objective import Constraints
from ehdnas.search.processes import ALONE, Processes
from ehdnas.search.recipes import Recipe
from ehdnas.search.spaces.base import NetworkShape, Space, Supernet
from ehdnas.search.temperature import decided, explored
from ehdnas.search.unrolled import unrolled_slopes

_WARM_UP = 0.3  # of the epochs train weights alone, so that early luck decides nothing
_HARDWARE_SAMPLES = 4  # architectures a step that the predictor sees; it costs next to nothing


Batch = tuple[Tensor, Tensor]
"""Images [n, c, h, w] and their labels [n]."""


@dataclass(frozen=True)
class SearchTask:
    """Everything a search depends on; the same task gives the same architecture.

    A distribution is learnt for each of `constraints`, all with the weights of one supernet; None stands for
    one without a budget. What a GPU computes differs from what a CPU does in the last digits, and so may what
    is found. Of several `processes` only the first one needs the constraints, the others as many None. With
    `uniform` the shared weights alone are trained, on paths drawn evenly from the whole of the space (SPOS:
    Guo et al., ECCV 2020, section 3.1), and the distributions stay as they began.
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
    uniform: bool = False


def warm_up_epochs(epochs: int) -> int:
    """Return how many of a search's epochs train weights alone, before the distribution moves."""
    return int(_WARM_UP * epochs)


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
        self.relaxation = task.space.relaxation(task.recipe.relaxation)
        self.supernet = self.relaxation.supernet(task.shape)
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

    def run(self, progress: Progress, on_epoch: EpochRecord = unheard) -> SearchResult:
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
                self.loop.history[-1] |= {} if self.task.uniform else self._decided()
                on_epoch(self.loop.history[-1])
            for number, one in enumerate(self.distributions):
                self.loop.carried |= one.carried(number)
            self.loop.show(partial(self._show, progress))
        return SearchResult(
            list(map(self._distribution, self.distributions)), self.supernet, self.loop.history
        )

    @property
    def logits(self) -> Tensor:
        """The logits [slots, choices] of the first distribution, mostly the only one."""
        return self.distributions[0].logits

    def weight_step(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Train the weights on one batch by the gates of one step; return (its `loss`, the gradient's norm).

        The batch is what this process computes of it; so it is in `architecture_step`.
        """
        gates = self.relaxation.gates(self._explored(self._drawn_from.logits.detach()))
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

    def architecture_step(
        self, images: Tensor, labels: Tensor, ahead: Batch | None = None
    ) -> dict[str, float | Tensor]:
        """Move the distribution by one batch's gradient; return what the step saw.

        Only the gradient towards the logits is computed: weights get none, which saves a third. With the
        batch of the weights' next step, `ahead`, it is of second order (see `unrolled_slopes`).
        """
        moved = self._moved
        gates = self.relaxation.gates(self._explored(moved.logits))
        figures: dict[str, float | Tensor] = {}
        hardware = []
        if moved.constraints is not None:  # by the CPU, while a GPU is still at the weights
            term, told = moved.hardware(self._hardware_gates(moved))
            hardware.append(term)
            figures |= told
        slopes, seen = self._slopes(gates.detach().requires_grad_(), (images, labels), ahead)
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

    def _hardware_gates(self, moved: Distribution) -> Tensor:
        """Return gates [samples, slots, choices] of architectures as the predictor knows them, one-hot.

        They are drawn as if all were decided: it is the network chosen in the end that is to meet the budget.
        Were it the mean of what is explored, a distribution that is undecided about anything would have to
        prefer the fastest choice everywhere, and its likeliest network would be far faster than was asked.
        """
        logits = decided(self.task.space, self.relaxation.distribution(moved.logits))
        return self.task.space.relax_many(logits, _HARDWARE_SAMPLES)

    def _explored(self, logits: Tensor) -> Tensor:
        """Return the logits that this step's path is drawn by; mixtures have no temperature."""
        if self.task.uniform or self.task.recipe.relaxation != "single":
            return logits
        warm_up = warm_up_epochs(self.loop.epochs) * self.loop.steps
        share = (self.loop.done - warm_up) / (self.loop.epochs * self.loop.steps - warm_up)
        return explored(self.task.space, logits, share)

    def _slopes(self, gates: Tensor, batch: Batch, ahead: Batch | None) -> tuple[Tensor, Tensor]:
        """Return (the gradient [slots, choices] of a batch's loss towards gates, [loss, accuracy])."""
        validation = partial(self._gradients, gates, *batch, "architecture")
        if ahead is None:
            (slopes,), seen = validation([gates])
            return slopes, seen
        training = partial(self._gradients, gates, *ahead, "ahead")
        return unrolled_slopes(gates, self.loop.optimizers["weights"], training, validation)

    def _gradients(
        self, gates: Tensor, images: Tensor, labels: Tensor, of: str, towards: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return (the gradients of a batch's loss towards tensors it depends on, [loss, accuracy])."""
        sums = [torch.zeros_like(one) for one in towards]
        seen = torch.zeros(2, device=self.compute.device)
        for part in self.parts.each(len(images), self._parts_seed(of)):
            with torch.enable_grad(), self.compute.autocast():
                logits = self.supernet(images[part], gates)
                loss = self.parts.share * F.cross_entropy(logits, labels[part])
            torch._foreach_add_(sums, torch.autograd.grad(loss, towards, materialize_grads=True))
            accuracy = self.parts.share * (logits.argmax(1) == labels[part]).float().mean()
            seen += torch.stack([loss.detach(), accuracy])
        for device in dict.fromkeys(one.device for one in sums):  # the gates' need not be the weights'
            self.parts.processes.sum([one for one in sums if one.device == device])
        self.parts.processes.sum([seen])
        return sums, seen

    def _parts_seed(self, of: str) -> int:
        return step_seed(self.task.seed, f"search-{of}-parts", self.loop.done)

    def _show(self, progress: Progress, done: int, total: int, text: str) -> None:
        last = self.loop.history[-1] if self.loop.history else {}
        shown = [f"{key} {last[key]:.3g}" for key in ("entropy", "skips") if key in last]
        progress(done, total, ", ".join([text, *shown]))

    def _both_steps(self, epoch: int, step: int) -> tuple[dict[str, float | Tensor], Tensor]:
        figures, norm = self.weight_step(*self._batch(0, epoch, step))
        if self.task.uniform or epoch < warm_up_epochs(self.loop.epochs):
            return {**figures}, norm
        following = divmod(self.loop.done + 1, self.loop.steps)
        ahead = self._batch(0, *following) if self.task.recipe.unrolled else None
        return {**figures, **self.architecture_step(*self._batch(1, epoch, step), ahead)}, norm

    @property
    def _batch_size(self) -> int:
        return min(self.task.recipe.batch_size, len(self.labels[0]))

    def _attempt(self, size: int) -> None:
        """Do what takes a weight step's memory with `size` images, and keep nothing."""
        gates = self.relaxation.gates(self.logits.detach())
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

    def _distribution(self, of: Distribution) -> Tensor:
        return self.relaxation.distribution(self._explored(of.logits.detach()))

    def _set_learning_rate(self) -> None:
        epoch = self.loop.done // self.loop.steps
        lowest, highest = 0.001, self.task.recipe.learning_rate
        cosine = (1 + math.cos(math.pi * epoch / self.loop.epochs)) / 2
        for group in self.loop.optimizers["weights"].param_groups:
            group["lr"] = min(lowest, highest) + max(0.0, highest - lowest) * cosine

    def _decided(self) -> dict[str, float]:
        """Return what an epoch's record says of the distributions: how decided they are, and their likeliest.

        Of those networks, the most skips and what is predicted of each budget's metric. With several
        distributions the entropy is their mean, and each has its own beside it, by its number from 1.
        """
        space, learnt = self.task.space, list(map(self._distribution, self.distributions))
        likeliest = list(map(space.most_likely, learnt))
        entropies = list(map(space.entropy, learnt))
        record = {"entropy": sum(entropies) / len(entropies)}
        record["learning_rate"] = self.loop.optimizers["weights"].param_groups[0]["lr"]
        several = len(learnt) > 1
        for number, (one, network) in enumerate(zip(self.distributions, likeliest, strict=True), 1):
            ending = f".{number}" if several else ""
            if several:
                record[f"entropy{ending}"] = entropies[number - 1]
            predicted = one.predicted(space.encode_all([network]))
            record |= {f"predicted.{name}{ending}": value for name, value in predicted.items()}
        skips = [count for network in likeliest for count in space.identities(network)]
        return {**record, "skips": max(skips)} if skips else record
