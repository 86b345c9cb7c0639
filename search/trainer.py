"""Training a network from scratch, by the recipe of DARTS: SGD, cosine, drop-path, auxiliary head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.loop import Loop, Progress, epoch_order, step_seed, steps_per_epoch
from ehdnas.search.recipes import Recipe


@dataclass(frozen=True)
class TrainTask:
    """Everything a training depends on; the same task gives the same weights."""

    network: nn.Module
    images: Split
    augmentation: Augmentation
    recipe: Recipe
    seed: int
    save_every_s: float
    identity: dict[str, Any]


class Trainer:
    """Runs a `TrainTask`, from the start or from its checkpoint."""

    def __init__(self, task: TrainTask, checkpoint: Path) -> None:
        self.task = task
        self.network = task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recipe = task.recipe
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.train_learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.images = torch.from_numpy(task.images.images)
        self.labels = torch.from_numpy(task.images.labels)
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
        )

    def run(self, progress: Progress) -> list[dict[str, Any]]:
        """Train to the end, from the start or from where `loop.resume` found it; one record an epoch."""
        total = self.loop.epochs * self.loop.steps
        self.network.train()
        for epoch, step in self.loop.remaining():
            loss, correct = self.step(epoch, step)
            sums = self.loop.carried
            self.loop.carried = {
                "loss": sums.get("loss", 0.0) + loss,
                "accuracy": sums.get("accuracy", 0.0) + correct,
            }
            if step == self.loop.steps - 1:
                means = {key: value / self.loop.steps for key, value in self.loop.carried.items()}
                self.loop.history.append({"epoch": epoch, **means})
                self.loop.carried = {}
            progress(self.loop.done + 1, total, f"loss {loss:.2f}")
        return self.loop.history

    def step(self, epoch: int, step: int) -> tuple[float, float]:
        """Train on one batch; return (loss, accuracy) on it."""
        images, labels = self._batch(epoch, step)
        self._schedule(epoch)
        out = self.network(images)
        logits, auxiliary = out if isinstance(out, tuple) else (out, None)
        loss = F.cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + self.task.recipe.auxiliary_weight * F.cross_entropy(auxiliary, labels)
        self.loop.require_finite(loss)
        optimizer = self.loop.optimizers["weights"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.task.recipe.clip)
        optimizer.step()
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    def _batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        seed, recipe = self.task.seed, self.task.recipe
        rows = epoch_order(len(self.labels), recipe.train_batch_size, seed, "training", epoch)[step]
        generator = torch.Generator().manual_seed(step_seed(seed, "training-augment", epoch, step))
        return self.task.augmentation(self.images[rows], generator), self.labels[rows]

    def _schedule(self, epoch: int) -> None:
        """Cosine learning rate to 0; drop-path rising linearly to its full probability."""
        progress = epoch / self.loop.epochs
        for group in self.loop.optimizers["weights"].param_groups:
            group["lr"] = self.task.recipe.train_learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if hasattr(self.network, "drop_path"):
            self.network.drop_path = self.task.recipe.drop_path * progress


def logits_of(network: nn.Module, images: NDArray[np.float32], batch: int = 256) -> NDArray[np.float32]:
    """Return the logits [n, classes] of normalised images [n, c, h, w]."""
    network.eval()
    with torch.no_grad():
        parts = [network(chunk) for chunk in torch.split(torch.from_numpy(images), batch)]
    return torch.cat(parts).numpy()


def accuracy_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose highest logit is their label."""
    return float((logits.argmax(axis=1) == labels).mean())
