"""Where to look: descent of the relaxed objective through two predictors, for all budgets side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.objective import violations
from ehdnas.search.predictor.base import Predictor
from ehdnas.search.queried.task import QueriedTask
from ehdnas.search.spaces.base import Architecture

_STEPS = 25
_RATE = 0.3
_PULL = 4.0  # so that a lower error never pays for breaking a budget by as much, in logs
_LEAN = 2.0  # how far a chain's distribution leans to the network it starts from
_SLACK = (0.0, 0.8)  # the shares of the predictor's own errors that chains allow for


def visited(
    task: QueriedTask,
    log_error: Callable[[Tensor], Tensor],
    starts: dict[Budget, list[Architecture]],
    generator: torch.Generator,
) -> list[Architecture]:
    """Return every network that chains of gradient descent draw on their way down.

    For each budget there is one chain a slack and start: networks that are predicted to break the budget
    by no more than the predictor is often off may meet it when measured. A chain descends
    log error + pull · max(0, log(predicted / bound) − slack), an exact penalty (Nocedal and Wright, Numerical
    Optimization, 2nd edition, equation 17.23), by straight-through samples of its logits.

    Args:
        log_error: logs of the errors [n] of gates [n, slots, choices], differentiable.
        starts: by budget, networks that distributions lean to at first; with none they start even.
    """
    chains = [
        (budget, slack, start)
        for budget in task.budgets
        for slack in _SLACK
        for start in [None, *starts[budget]]
    ]
    slacks = torch.tensor([_slack(task.predictor, slack) for _, slack, _ in chains]).double()
    logits = torch.stack([_start(task, start) for _, _, start in chains]).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=_RATE)
    seen: dict[Architecture, None] = {}
    for _ in range(_STEPS):
        gates = torch.stack([task.space.relax(one, generator) for one in logits])
        seen |= dict.fromkeys(task.space.decode(one) for one in gates.detach())
        broken = _broken(task, task.predictor.log_value(gates).double(), [chain[0] for chain in chains])
        loss = log_error(gates) + _PULL * torch.relu(broken - slacks)
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return list(seen)


def _start(task: QueriedTask, start: Architecture | None) -> Tensor:
    logits = task.space.initial_logits()
    return logits if start is None else logits + _LEAN * task.space.encode(start)


def _slack(predictor: Predictor, share: float) -> float:
    """Return by how much the log of a prediction is off in this share of held-out networks, 0 for none."""
    residuals = predictor.residuals
    return float(residuals.quantile(share)) if share and len(residuals) else 0.0


def _broken(task: QueriedTask, log_values: Tensor, budgets: list[Budget]) -> Tensor:
    return torch.stack([violations(one, budget) for one, budget in zip(log_values, budgets, strict=True)])
