"""The train stage: the network that was searched, or any genotype, trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import sha256
from ehdnas.core.images.dataset import normalise
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.events import heard
from ehdnas.pipeline.following import call
from ehdnas.pipeline.tasks import train_task
from ehdnas.pipeline.timing import about, pass_seconds
from ehdnas.pipeline.trainee import Trainee, require_images, trainee_of
from ehdnas.search.checkpoint import load_checkpoint, module_tensors, restore_module, save_checkpoint
from ehdnas.search.processes import current
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.trainer import Trainer, accuracy_of, logits_of
from ehdnas.settings import kept_by_runs
from ehdnas.workspace import Run


@dataclass(frozen=True)
class Trained:
    """A trained network and the facts that an exported file must carry."""

    network: nn.Module
    shape: NetworkShape
    meta: dict[str, Any]


def train(context: Context, run: Run, resume: bool = False) -> dict[str, Any]:
    """Train the run's network; return and store what came of it.

    Raises:
        UsageError: the run holds no finished search, or resuming with other settings.
    """
    if resume and run.has("train") and weights_problem(run) is None:
        context.reporter.say(f"train: run {run.name} is trained; nothing to resume")
        return dict(run.read("train"))
    context.compute  # noqa: B018 - a GPU that is not there is said before an earlier training is forgotten
    trainee = trainee_of(context, run)
    require_images(context)
    if str(context.shape) != run.read("search")["shape"]:
        raise UsageError(
            f"run {run.name} was searched at {run.read('search')['shape']}, and the settings now give "
            f"{context.shape}; train with the settings of the search"
        )
    with run.working():
        return _train(context, run, trainee, resume)


def _train(context: Context, run: Run, trainee: Trainee, resume: bool) -> dict[str, Any]:
    run.forget("train", "export", "verify")
    if not resume:
        run.checkpoint("train").unlink(missing_ok=True)
        run.write("training", {"settings": kept_by_runs(context.settings)})
    task = train_task(context, trainee, context.identity(**trainee.identity))
    trainer = Trainer(task, run.checkpoint("train"))
    _say_plan(context, trainer)
    call(context, "train", resume, trainee)
    if resume:
        context.say_resumed("train", trainer.resume(), trainer.loop)
    history = trainer.run(context.reporter.progress, heard(context, run, "train", trainer.loop))
    network = _plain(trainee, trainer)
    result = _evaluate(context, network, history)
    result["weights_sha256"] = _save_weights(context, run, trainee, network, result)
    run.write("train", result)
    return result


def weights_problem(run: Run) -> str | None:
    """Return what is wrong with the weights of a trained run, in a few words; None if nothing is."""
    if not run.weights.is_file():
        return "missing"
    return None if sha256(run.weights) == run.read("train").get("weights_sha256") else "damaged"


def load_trained(path: Path) -> Trained:
    """Return the network in a weights file.

    Raises:
        DataError: it is damaged, or not one of ours.
    """
    tensors, meta = load_checkpoint(path)
    try:
        space = find_space(meta["space"])
        shape = shape_from(meta["shape"])
        network = space.network(space.parse(meta["genotype"]), shape)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} does not say which network its weights are for; train again") from error
    restore_module(network, tensors, path)
    return Trained(network.eval(), shape, meta)


def shape_from(fields: dict[str, Any]) -> NetworkShape:
    """Return the network shape that `shape_fields` wrote."""
    return NetworkShape(**{**fields, "image": tuple(fields["image"])})


def shape_fields(shape: NetworkShape) -> dict[str, Any]:
    """Return a network shape as JSON-able data."""
    return {**vars(shape), "image": list(shape.image)}


def _say_plan(context: Context, trainer: Trainer) -> None:
    loop, compute = trainer.loop, context.compute
    trainer.network.train()
    size = max(context.recipe.train_batch_size // trainer.parts.count, 1)
    images = context.augmentation.evaluate(torch.from_numpy(context.dataset.train.images[:size]))
    taken = pass_seconds(trainer.network, images, compute)
    passes = loop.steps * loop.epochs * (trainer.parts.count // current().count)
    seconds = None if taken is None else taken * passes
    context.reporter.say(
        f"train: {loop.epochs} epochs of {loop.steps} steps on {len(context.dataset.train)} images"
        f"{about(seconds)} on {context.computing}"
    )


def _plain(trainee: Trainee, trainer: Trainer) -> nn.Module:
    """Return the trained network, on the CPU, without its auxiliary head, which only training needs."""
    network = trainee.make(False)
    trained = trainer.trained_state()
    network.load_state_dict({name: trained[name] for name in network.state_dict()})
    return network.eval()


def _evaluate(context: Context, network: nn.Module, history: list[dict[str, Any]]) -> dict[str, Any]:
    test = context.dataset.test
    images = normalise(test.images, context.dataset.mean, context.dataset.std)
    accuracy = accuracy_of(logits_of(network, images, compute=context.compute), test.labels)
    context.reporter.say(f"train: test accuracy {accuracy:.2%} on {len(test)} images")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "test_accuracy": accuracy,
        "test_images": len(test),
        "train_images": len(context.dataset.train),
        "parameters": parameters,
        "epochs": len(history),
        "history": history,
    }


def _save_weights(
    context: Context, run: Run, trainee: Trainee, network: nn.Module, result: dict[str, Any]
) -> str:
    meta = {
        **trainee.meta,
        "shape": shape_fields(context.shape),
        "classes": list(context.dataset.classes),
        "mean": list(context.dataset.mean),
        "std": list(context.dataset.std),
        "data": context.dataset.fingerprint(),
        "test_accuracy": result["test_accuracy"],
    }
    return save_checkpoint(run.weights, module_tensors(network), meta)
