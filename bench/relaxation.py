"""How far the gradient of samples is from that of the expectation it stands for, by estimator.

    python bench/relaxation.py [--samples 3000] [--seeds 1]

The gradient of E[f(architecture)] by the logits is computed exactly, over all 15,284 connected architectures
of NAS-Bench-201, and over the 4,096 that never use `none`, where slots are independent. Beside it the mean of
n samples through `Space.relax` as searches use it. f is of two kinds: `latency`, the logarithm of a sum of
costs, as predictors are, and `pairs`, which gives every two choices in different slots a value of their own.
Each is also given a gradient by the choices that were drawn alone (`one path`), all that a supernet which
computes one path knows; no estimator is then exact, and an update's direction, the cosine, is what counts.
Logits are normal, with a standard deviation of 0 (the start of a search) or 2 (a decided one).

Searches use ReinMax (Liu et al., NeurIPS 2023, equation 7), which is of second order and knows no noise.
Beside it stand the straight-through Gumbel-softmax (Jang, Gu, Poole, ICLR 2017), by temperature, and
Gumbel-Rao (Paulus, Maddison, Krause, ICLR 2021), which averages it over 16 draws of the noise that give the
same sample. That pairs of edges are drawn as well as operations is tested (tests/search).

Prints a line a setting: the bias in norm, relative to the exact gradient (the noise of the mean is taken
out), the length of the mean relative to it, its cosine with it, and the standard deviation of one sample
relative to it; medians over f and seeds. Writes bench/results/relaxation.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from common import write_result
from torch import Tensor
from torch.nn import functional as F

from ehdnas.search.spaces.base import Architecture, Space, find_space
from ehdnas.search.spaces.nasbench201 import distribution

NOISES = 16
GRADIENTS = ("full", "one path")
STRENGTHS = (0.0, 2.0)
SPACES = {
    "connected": find_space("nasbench201"),
    "independent": find_space("nasbench201").without(frozenset(("none",))),
}
Function = Callable[[Tensor], Tensor]
"""Gates [n, slots, choices] -> values [n]."""
Relaxation = Callable[[Space, Tensor, torch.Generator], Tensor]
"""(space, logits, noise) -> straight-through gates [slots, choices]."""


def as_searched(space: Space, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return gates as a search draws them: ReinMax."""
    return space.relax(logits, generator)


def gumbel_rao(
    temperature: float, noises: int, space: Space, logits: Tensor, generator: torch.Generator
) -> Tensor:
    """Return gates whose gradient is averaged over draws of the noise that gives the same sample.

    With one draw it is the straight-through Gumbel-softmax.
    """
    with torch.no_grad():
        chosen = space.relax(logits, generator).bool()
        exponential = torch.empty(noises, *logits.shape).exponential_(generator=generator).clamp_min(1e-20)
        # The Gumbel noise, given which choice wins (Maddison, Tarlow, Minka, NeurIPS 2014, section 3).
        allowed = allowed_logits(space, logits)
        winner = (exponential.log() * chosen).sum(dim=2, keepdim=True)
        highest = allowed.logsumexp(dim=1, keepdim=True) - winner
        others = -torch.logaddexp(exponential.log() - allowed, -highest)
        noise = torch.where(chosen, highest, others) - allowed
    soft = ((allowed_logits(space, logits) + noise) / temperature).softmax(dim=2).mean(dim=0)
    return chosen.float() + (soft - soft.detach())


def allowed_logits(space: Space, logits: Tensor) -> Tensor:
    """Return logits with the choices that are left out far below the others."""
    none_left_out = not space.allows(Architecture((0, 0, 0, 3, 0, 0)))
    return logits - 1e9 * none_left_out * F.one_hot(torch.zeros(space.slots).long(), space.choices)


ESTIMATORS: dict[str, Relaxation] = {
    "ReinMax, as searched": as_searched,
    **{f"straight-through, τ={t}": partial(gumbel_rao, t, 1) for t in (5.0, 1.0, 0.5, 0.2)},
    **{f"Gumbel-Rao, τ={t}": partial(gumbel_rao, t, NOISES) for t in (0.5, 0.1)},
}


def functions(seed: int) -> dict[tuple[str, str], Function]:
    """Return functions of gates by name, each with the gradients it can have."""
    plain = plain_functions(seed)
    return {(name, kind): plain[name] if kind == "full" else one_path(plain[name])
            for name, kind in product(plain, GRADIENTS)}  # fmt: skip


def one_path(function: Function) -> Function:
    """Return the function with a gradient by the choices that gates select, and none by the others."""
    return lambda gates: function(gates * gates.detach())


def plain_functions(seed: int) -> dict[str, Function]:
    """Return functions of gates that differ in how the slots act together."""
    generator = torch.Generator().manual_seed(seed)
    cost = 0.2 + torch.rand(6, 5, generator=generator)
    values = torch.randn(6, 5, 6, 5, generator=generator)
    values[range(6), :, range(6)] = 0
    return {
        "latency": lambda gates: (1 + (gates * cost).sum(dim=(1, 2))).log(),
        "pairs": lambda gates: torch.einsum("nac,acbd,nbd->n", gates, values, gates),
    }


@dataclass(frozen=True)
class Setting:
    """A distribution over all architectures of a space."""

    space: Space
    every: list[Architecture]
    logits: Tensor

    def exact(self, functions: list[Function]) -> list[Tensor]:
        """Return the gradient [slots, choices] of the expectation of each function."""
        logits = self.logits.clone().requires_grad_()
        allowed, choices = allowed_logits(self.space, logits), [one.choices for one in self.every]
        # As `Space.log_prob`, for all of them at once.
        own = torch.vmap(lambda one: distribution.log_prob(one, allowed))(torch.tensor(choices))
        probabilities = own.exp()
        assert abs(float(probabilities.detach().sum()) - 1) < 1e-4
        gates = self.space.encode_all(self.every)
        means = [(probabilities * function(gates)).sum() for function in functions]
        return [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in means]

    def sampled(
        self, relaxation: Relaxation, functions: list[Function], count: int, seed: int
    ) -> list[Tensor]:
        """Return the gradient of every sample, [count, slots, choices], for each function."""
        logits = self.logits.expand(count, -1, -1).clone().requires_grad_()
        generator = torch.Generator().manual_seed(seed)
        gates = torch.stack([relaxation(self.space, own, generator) for own in logits.unbind()])
        sums = [function(gates).sum() for function in functions]
        return [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in sums]


def compared(gradients: Tensor, exact: Tensor) -> dict[str, float]:
    """Return how the mean of samples [n, ...] lies to the exact gradient [...]."""
    mean, norm = gradients.mean(dim=0), float(exact.norm())
    spread = float(gradients.var(dim=0).sum())
    squared = float((mean - exact).square().sum()) - spread / len(gradients)
    return {
        "bias": max(0.0, squared) ** 0.5 / norm,
        "length": float(mean.norm()) / norm,
        "cosine": float(F.cosine_similarity(mean.flatten(), exact.flatten(), dim=0)),
        "sd": spread**0.5 / norm,
        "noise_of_mean": (spread / len(gradients)) ** 0.5 / norm,
    }


def setting_of(name: str, strength: float, seed: int) -> Setting:
    """Return a space, its architectures and logits so decided."""
    space = SPACES[name]
    every = [one for one in map(Architecture, product(range(space.choices), repeat=6)) if space.allows(one)]
    noise = torch.randn(space.slots, space.choices, generator=torch.Generator().manual_seed(seed))
    return Setting(space, every, strength * noise)


def rows_of(name: str, strength: float, seed: int, samples: int) -> list[dict[str, Any]]:
    """Return how each estimator does on each function."""
    setting, rows, kinds = setting_of(name, strength, seed), [], functions(seed)
    exact = dict(zip(kinds, setting.exact(list(kinds.values())), strict=True))
    for estimator, relaxation in ESTIMATORS.items():
        gradients = setting.sampled(relaxation, list(kinds.values()), samples, seed)
        for (kind, gradient), own in zip(kinds, gradients, strict=True):
            where = {"space": name, "strength": strength, "seed": seed, "f": kind, "gradient": gradient}
            rows.append({**where, "estimator": estimator, **compared(own, exact[kind, gradient])})
    return rows


def line_of(rows: list[dict[str, Any]]) -> str:
    """Return the medians of one estimator in one setting."""
    median = {key: statistics.median(row[key] for row in rows) for key in ("bias", "length", "cosine", "sd")}
    where = "{space:12} ±{strength:g}  {gradient:8}  {estimator:24}".format(**rows[0])
    return (
        f"{where} bias {median['bias']:6.1%}  length {median['length']:.3f}  cosine {median['cosine']:.4f}  "
        f"one sample's deviation {median['sd']:5.1f}"
    )


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, rows = time.process_time(), []
    for name, strength in product(SPACES, STRENGTHS):
        own = [row for seed in range(args.seeds) for row in rows_of(name, strength, seed, args.samples)]
        for gradient, estimator in product(GRADIENTS, ESTIMATORS):
            shown = [row for row in own if (row["gradient"], row["estimator"]) == (gradient, estimator)]
            print(line_of(shown), flush=True)
        rows += own
    spent = round(time.process_time() - start, 1)
    write_result("relaxation", {"samples": args.samples, "cpu_s": spent, "rows": rows})


if __name__ == "__main__":
    main()
