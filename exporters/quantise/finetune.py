"""Quantisation-aware fine-tuning: the int8 network learns to answer as the float network does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.errors import ExportError
from ehdnas.core.graph import Array, Graph, Node, Params, Value, execute, params_of
from ehdnas.exporters.quantise.scheme import Ranges
from ehdnas.exporters.quantise.simulate import fake_params

_BATCH = 32
_LEARNING_RATE = 1e-4


def fine_tune(
    graph: Graph, start: Graph, ranges: Ranges, images: Sequence[Array], steps: int, seed: int
) -> Graph:
    """Return `start` with weights and biases trained in the presence of rounding, to answer as `graph` does.

    No labels are needed: the float network's own answers are the targets (distillation, Hinton, Vinyals,
    Dean, 2015), and gradients pass the rounding straight through (Bengio, Léonard, Courville, 2013).

    Args:
        start: the same network, its biases corrected for example.
        images: [n, C, H, W] for each input; better training images than calibration's few.

    Raises:
        ExportError: the loss is not finite.
    """
    trained = {node.name: _trainable(node) for node in start.nodes if "weight" in node.params}
    optimizer = torch.optim.Adam([p for params in trained.values() for p in params.values()], _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(seed)

    def watch(value: Value, made: Tensor) -> Tensor:
        return ranges[value.name].fake(made) if value.name in ranges else made

    def params(node: Node) -> Params:
        return fake_params(node, trained.get(node.name))

    for step in range(steps):
        rows = rng.choice(len(images[0]), min(_BATCH, len(images[0])), replace=False)
        batch = [torch.from_numpy(np.ascontiguousarray(one[rows], np.float32)) for one in images]
        with torch.no_grad():
            wanted = execute(graph, batch)
        loss = _distance(execute(graph, batch, params, watch), wanted)
        if not torch.isfinite(loss):
            raise ExportError(
                f"fine-tuning lost its way at step {step} (loss {loss.item()}); use fewer steps"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return start.with_nodes([_with(node, trained.get(node.name)) for node in start.nodes])


def _trainable(node: Node) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_() for name, value in params_of(node).items()}


def _distance(made: Tensor, wanted: Tensor) -> Tensor:
    if made.dim() != 2:
        return F.mse_loss(made, wanted)
    return F.kl_div(made.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)


def _with(node: Node, params: dict[str, Tensor] | None) -> Node:
    if params is None:
        return node
    return replace(node, params={name: value.detach().numpy() for name, value in params.items()})
