"""One of the processes of a search or a training on a few digits; the first one writes what came of it.

    torchrun --nproc_per_node 2 shared_work.py search|train FOLDER MICRO_BATCHES [--pause SECONDS]
        [--fail RANK] [--resume]

A pause after each step leaves time to kill it. `--fail` has one process fail in its fourth step.
"""

import argparse
import time
from pathlib import Path

import torch

from ehdnas.core.budget import parse_budget
from ehdnas.core.errors import EhdnasError
from ehdnas.core.images import load_data
from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.checkpoint import save_checkpoint
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.processes import joined
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.trainer import Trainer, TrainTask

SPACE, IMAGES = DartsSpace(), 48
# Batch norm over three images of one pixel divides by differences so small that the last digit of a weight
# decides what is learnt; over six it does not.
PART = 6
RECIPE = recipe_for("cifar10").model_copy(
    update={
        "search_epochs": 2, "train_epochs": 2, "architecture_learning_rate": 0.3,
        "ema": 0.9, "mixup": 0.4, "label_smoothing": 0.1,
    }
)  # fmt: skip


class Weighed:
    """A predictor that adds a number for every choice."""

    def __init__(self):
        self.weights = torch.randn(28, 8, generator=torch.Generator().manual_seed(3)) / 9

    def log_value(self, gates):
        return (gates * self.weights).sum((1, 2))

    def margin(self, confidence):
        return 0.1


def main(options):
    with joined() as processes:
        batch = PART * options.micro_batches
        recipe = RECIPE.model_copy(
            update={"micro_batches": options.micro_batches, "batch_size": batch, "train_batch_size": batch}
        )
        data = load_data("digits", seed=0)
        split = Split(data.train.images[:IMAGES], data.train.labels[:IMAGES])
        shape = NetworkShape(4, 3, data.image_shape, data.num_classes)
        augmentation = Augmentation.for_size(8, True, data.mean, data.std)
        make = search if options.stage == "search" else train
        made, module, extra = make(split, shape, augmentation, recipe, processes, options)
        loop = made.loop
        if options.resume:
            done = made.resume() if options.stage == "search" else loop.resume()
            assert done > 0

        def progress(done, total, text):
            if options.fail == processes.rank and done == 4:
                raise EhdnasError(f"process {processes.rank} failed")
            time.sleep(options.pause)

        made.run(progress)
        if processes.first:
            tensors = {**module.state_dict(), **extra()}
            history = {"history": loop.history, "multiplier": loop.carried.get("multiplier.0.0")}
            save_checkpoint(options.folder / "result.safetensors", tensors, history)


def search(split, shape, augmentation, recipe, processes, options):
    constraint = Constraint(Weighed(), parse_budget("latency <= 0.5 ms"), 0.9)
    constraints = [Constraints((constraint,)) if processes.first else None]
    task = SearchTask(
        SPACE, shape, split, split, augmentation, recipe, constraints, 7, 0.0,
        {"recipe": recipe.model_dump()}, processes=processes,
    )  # fmt: skip
    made = Searcher(task, options.folder / "checkpoint.safetensors")
    return made, made.supernet, lambda: {"logits": made.logits}


def train(split, shape, augmentation, recipe, processes, options):
    torch.manual_seed(processes.rank)  # weights that are not the same: the first process's are everyone's
    network = SPACE.network(SPACE.reference, shape, auxiliary=True)
    task = TrainTask(
        network, split, augmentation, recipe, 7, 0.0, {"recipe": recipe.model_dump()}, processes=processes
    )
    made = Trainer(task, options.folder / "checkpoint.safetensors")
    return made, made.network, lambda: {f"a.{k}": v for k, v in made.trained_state().items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["search", "train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("micro_batches", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--fail", type=int)
    parser.add_argument("--resume", action="store_true")
    main(parser.parse_args())
