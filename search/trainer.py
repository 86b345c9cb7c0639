"""Training a network from scratch, by the recipe of DARTS: SGD, cosine, drop-path, auxiliary head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.averaging import Average
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.loop import EpochRecord, Loop, Progress, epoch_order, step_seed, steps_per_epoch, unheard
from ehdnas.search.memory import within_memory
from ehdnas.search.micro_batches import MicroBatches
from ehdnas.search.processes import ALONE, Processes
from ehdnas.search.recipes import Recipe
from ehdnas.search.targets import Mixing, Targets


@dataclass(frozen=True)
class TrainTask:
    """Everything a training depends on; the same task gives the same weights on the same kind of device."""

    network: nn.Module
    images: Split
    augmentation: Augmentation
    recipe: Recipe
    seed: int
    save_every_s: float
    identity: dict[str, Any]
    compute: Compute = CPU
    processes: Processes = ALONE


class Trainer:
    """Runs a `TrainTask`, from the start or from its checkpoint."""

    def __init__(self, task: TrainTask, checkpoint: Path) -> None:
        self.task = task
        self.compute = task.compute
        self.compute.prepare()
        self.network = self.compute.place(task.network)
        recipe = task.recipe
        self.weights = list(self.network.parameters())
        optimizer = torch.optim.SGD(
            self.weights,
            lr=recipe.train_learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.average = Average(self.network, recipe.ema) if recipe.ema else None
        self.images = self.compute.hold(task.images.images)
        self.labels = self.compute.move(torch.from_numpy(task.images.labels))
        self.parts = MicroBatches(self.network, recipe.micro_batches, self._batch_size, task.processes)
        self.loop = Loop(
            stage="training",
            path=checkpoint,
            identity=task.identity,
            module=self.network,
            optimizers={"weights": optimizer},
            epochs=recipe.train_epochs,
            steps=steps_per_epoch(len(task.images), recipe.train_batch_size),
            seed=task.seed,
            save_every_s=task.save_every_s,
            extra={} if self.average is None else self.average.tensors,
            look_every=self.compute.look_every,
            processes=task.processes,
        )

    def resume(self) -> int:
        """Continue from the checkpoint, if there is one; return how many steps it holds."""
        return self.loop.resume()

    def run(self, progress: Progress, on_epoch: EpochRecord = unheard) -> list[dict[str, Any]]:
        """Train to the end, from the start or from where `resume` found it; one record an epoch.

        Raises:
            EhdnasError: a loss became no number, or the batch does not fit into memory.
        """
        self.network.train()
        memory = partial(
            within_memory, attempt=self._attempt, batch=self._batch_size, parts=self.parts.count,
            compute=self.compute, stage=self.loop.stage,
        )  # fmt: skip
        for epoch, step in self.loop.remaining():
            figures, gradient = memory(partial(self.step, epoch, step))
            self.loop.account(figures, gradient)
            if self.average is not None:
                self.average.update(self.loop.done)
            if step == self.loop.steps - 1:
                self.loop.history[-1]["learning_rate"] = self.loop.optimizers["weights"].param_groups[0]["lr"]
                on_epoch(self.loop.history[-1])
            self.loop.show(progress)
        return self.loop.history

    def step(self, epoch: int, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """Train on one batch; return (`loss` and `accuracy` on it, the gradient's norm)."""
        images, targets = self._batch(epoch, step)
        self._schedule(epoch)
        optimizer = self.loop.optimizers["weights"]
        optimizer.zero_grad(set_to_none=True)
        figures = torch.zeros(2, device=self.compute.device)
        for part in self.parts.each(len(images), step_seed(self.task.seed, "training-parts", epoch, step)):
            own = targets.of(part)
            with self.compute.autocast():
                loss, logits = self._loss(images[part], own)
            (self.parts.share * loss).backward()  # type: ignore[no-untyped-call]
            figures += self.parts.share * torch.stack([loss.detach(), own.accuracy(logits)])
        self.parts.sum(self.weights, figures)
        norm = nn.utils.clip_grad_norm_(self.weights, self.task.recipe.clip)
        optimizer.step()
        return {"loss": figures[0], "accuracy": figures[1]}, norm

    def trained_state(self) -> dict[str, Tensor]:
        """Return what was trained, by its names in the network: averages, if the recipe has them taken."""
        own: dict[str, Tensor] = self.network.state_dict()
        return own if self.average is None else {**own, **self.average.state()}

    def _loss(self, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Return (the loss, the logits), the auxiliary head's loss weighed in where there is one."""
        recipe = self.task.recipe
        out = self.network(images)
        logits, auxiliary = out if isinstance(out, tuple) else (out, None)
        loss = targets.loss(logits, recipe.label_smoothing)
        if auxiliary is not None:
            loss = loss + recipe.auxiliary_weight * targets.loss(auxiliary, recipe.label_smoothing)
        return loss, logits

    @property
    def _batch_size(self) -> int:
        return min(self.task.recipe.train_batch_size, len(self.labels))

    def _batch(self, epoch: int, step: int) -> tuple[Tensor, Targets]:
        """Return what this process computes of a step's batch."""
        seed, recipe = self.task.seed, self.task.recipe
        order = epoch_order(len(self.labels), recipe.train_batch_size, seed, "training", epoch)[step]
        drawn = Mixing.draw(len(order), recipe.mixup, step_seed(seed, "training-mixup", epoch, step))
        rows, mixing = drawn.among(self.parts.own(len(order)))
        generator = torch.Generator().manual_seed(step_seed(seed, "training-augment", epoch, step))
        taken = self.compute.take(self.images, order[rows])
        images = self.task.augmentation(taken, generator, rows, len(order))
        images, targets = mixing.apply(images, self.labels[self.compute.move(order[rows])])
        return self.compute.batch(images), targets

    def _attempt(self, size: int) -> None:
        """Do what takes a step's memory with `size` images, and keep nothing."""
        image = self.task.augmentation.evaluate(self.compute.move(self.images[:1]).expand(size, -1, -1, -1))
        targets = Targets(self.labels[:1].expand(size))
        with self.compute.autocast():
            loss, _ = self._loss(self.compute.batch(image), targets)
        torch.autograd.grad(loss, self.weights)

    def _schedule(self, epoch: int) -> None:
        """Cosine learning rate to 0; drop-path rising linearly to its full probability."""
        progress = epoch / self.loop.epochs
        for group in self.loop.optimizers["weights"].param_groups:
            group["lr"] = self.task.recipe.train_learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if hasattr(self.network, "drop_path"):
            self.network.drop_path = self.task.recipe.drop_path * progress  # type: ignore[assignment]


def logits_of(
    network: nn.Module, images: NDArray[np.float32], batch: int = 256, compute: Compute = CPU
) -> NDArray[np.float32]:
    """Return the logits [n, classes] of normalised images [n, c, h, w], computed in float32.

    The network is left in evaluation mode, and on the CPU.
    """
    network.eval()
    compute.place(network)
    try:
        with torch.no_grad():
            chunks = torch.split(torch.from_numpy(images), batch)
            parts = [network(compute.batch(chunk)) for chunk in chunks]
        return torch.cat(parts).cpu().numpy()
    finally:
        CPU.place(network)


def accuracy_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose highest logit is their label."""
    return float((logits.argmax(axis=1) == labels).mean())
