"""The architecture's gradient through the weights' next step (DARTS: Liu, Simonyan, Yang, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Seen = TypeVar("Seen")
Gradients = Callable[[Sequence[Tensor]], tuple[list[Tensor], Seen]]
"""The gradients of a batch's loss by tensors it depends on, and what else was seen of the batch."""

_STEP = 0.01  # over the gradient's norm, is by how much weights are moved to either side (section 2.3)


@torch.no_grad()
def unrolled_slopes(
    gates: Tensor, optimizer: torch.optim.Optimizer, training: Gradients[object], validation: Gradients[Seen]
) -> tuple[Tensor, Seen]:
    """Return the gradient of the validation loss towards gates, the weights being a step ahead (equation 7).

    The step is the optimizer's next one, with its rate, momentum and weight decay, from the gradient of the
    training loss; what gates change of it enters by finite differences (equation 8). Weights and optimizer
    are left as they were.

    Args:
        gates: [slots, choices].
        optimizer: SGD of the weights, in one group of parameters.
        training: gradients of the loss whose step is looked ahead to.
        validation: gradients of the loss that is to fall.
    """
    (group,) = optimizer.param_groups
    weights, rate = group["params"], group["lr"]
    kept = [weight.clone() for weight in weights]
    steps, _ = training(weights)
    torch._foreach_add_(steps, kept, alpha=group["weight_decay"])
    for step, weight in zip(steps, weights, strict=True):
        momentum = optimizer.state[weight].get("momentum_buffer")
        if momentum is not None:
            step.add_(momentum, alpha=group["momentum"])
    torch._foreach_add_(weights, steps, alpha=-rate)
    (slopes, *directions), seen = validation([gates, *weights])
    distance = _STEP / torch.stack(torch._foreach_norm(directions)).norm().clamp_min(1e-12)
    torch._foreach_mul_(directions, distance)
    sides = []
    for sign in (1, -1):
        torch._foreach_copy_(weights, kept)
        torch._foreach_add_(weights, directions, alpha=sign)
        sides.append(training([gates])[0][0])
    torch._foreach_copy_(weights, kept)
    return slopes - rate * (sides[0] - sides[1]) / (2 * distance.to(slopes.device)), seen
