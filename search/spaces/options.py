"""Spaces whose slots each have options of their own; `choices` is the most that any of them has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.relaxation import entropies, sample_one_hot
from ehdnas.search.spaces.base import Architecture, Space
from ehdnas.search.spaces.reading import option, read_json, require_short

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NEVER = -1e9  # added to logits: finite, since gradients go through it


class OptionsSpace(Space):
    """A space given by the options of each slot, by name, which are drawn independently of one another.

    A subclass sets `name` and `options` and builds the networks. It may tie slots together: then `is_valid`,
    `sample`, `relax`, `most_likely` and `log_prob` are its own too, on logits that `masked` has made safe.
    """

    options: tuple[tuple[str, ...], ...]
    """The names of each slot's options; an option that several slots have has one name in all of them."""

    def __init__(self, excluded: frozenset[str] = frozenset()) -> None:
        self.slots = len(self.options)
        self.choices = max(map(len, self.options))
        self._excluded = excluded
        self._allowed = tuple(
            tuple(choice for choice, name in enumerate(names) if name not in excluded)
            for names in self.options
        )
        self._open = tuple(slot for slot, choices in enumerate(self._allowed) if len(choices) > 1)
        self._mask = torch.full((self.slots, self.choices), _NEVER)
        for slot, choices in enumerate(self._allowed):
            self._mask[slot, list(choices)] = 0.0

    def masked(self, logits: Tensor) -> Tensor:
        """Return logits [slots, choices] that never draw what a slot has not, or what is left out."""
        return logits + self._mask

    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether every slot takes one of its options."""
        choices = architecture.choices
        return len(choices) == self.slots and all(
            0 <= choice < len(names) for choice, names in zip(choices, self.options, strict=True)
        )

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return an architecture drawn uniformly."""
        return Architecture(tuple(own[int(rng.integers(len(own)))] for own in self._allowed))

    def initial_logits(self) -> Tensor:
        """Return zeros [slots, choices]: every option as likely as the others of its slot."""
        return torch.zeros(self.slots, self.choices)

    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return straight-through gates [slots, choices] of an architecture drawn from `logits`."""
        return sample_one_hot(self.masked(logits), generator)

    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the architecture of the highest probability under `logits`."""
        return Architecture(tuple(self.masked(logits).argmax(dim=1).tolist()))

    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture; −∞ if not valid."""
        if not self.is_valid(architecture):
            return logits.new_full((), -torch.inf)
        own = torch.tensor(architecture.choices)[:, None]
        return self.masked(logits).log_softmax(dim=1).gather(1, own).sum()

    def entropy(self, logits: Tensor) -> float:
        """Return the mean entropy of the slots that have several options left, in nats."""
        return float(entropies(self.masked(logits.detach()))[list(self._open)].mean()) if self._open else 0.0

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every valid architecture that differs in one slot, in a fixed order."""
        choices = architecture.choices
        for slot, allowed in enumerate(self._allowed):
            for choice in allowed:
                other = Architecture((*choices[:slot], choice, *choices[slot + 1 :]))
                if other != architecture and self.is_valid(other):
                    yield other

    def parse(self, text: str) -> Architecture:
        """Return the architecture of a name, of one digit a slot, or of the JSON that `genotype` gives."""
        named = self.named().get(text.strip())
        if named is not None:
            return named
        return self.checked(self.read(text), text)

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return {"choices": [name, ...]}, one a slot."""
        return {"choices": [self.choice_name(*at) for at in enumerate(architecture.choices)]}

    def text(self, architecture: Architecture) -> str:
        """Return one digit a slot: the number of its option, from 0; letters follow 9."""
        return "".join(_DIGITS[choice] for choice in architecture.choices)

    def choice_name(self, slot: int, choice: int) -> str:
        """Return the option's name."""
        return self.options[slot][choice]

    def allows(self, architecture: Architecture) -> bool:
        """Return whether the architecture is valid and has no option that was left out."""
        return self.is_valid(architecture) and not self._excluded & {
            self.choice_name(*at) for at in enumerate(architecture.choices)
        }

    def without(self, names: frozenset[str]) -> Self:
        """Return the space with some options never sampled; every slot must keep one."""
        known = {name for own in self.options for name in own}
        for name in names:
            if name not in known:
                raise UsageError(f"space '{self.name}' has no choice '{name}'{nearest(name, known)}")
        excluded = self._excluded | names
        for slot, own in enumerate(self.options):
            if excluded.issuperset(own):
                raise UsageError(
                    f"space '{self.name}': slot {slot} has only {', '.join(own)}; leave one of them"
                )
        return type(self)(excluded) if names else self

    def read(self, text: str) -> tuple[int, ...]:
        """Return the choices that digits or JSON name, which may still break a rule of the space.

        Raises:
            UsageError: it is neither; the message says what is wrong with it.
        """
        text = require_short(text)
        if text.startswith("{"):
            return self._named(read_json(text).get("choices"))
        if len(text) == self.slots and set(text) <= set(_DIGITS):
            return tuple(_DIGITS.index(digit) for digit in text)
        raise UsageError(
            f"'{text[:60]}' is not a genotype of space '{self.name}'; give {self.slots} digits or "
            '{"choices": ["NAME", ...]}'
        )

    def checked(self, choices: tuple[int, ...], text: str) -> Architecture:
        """Return the architecture of choices that were read.

        Raises:
            UsageError: a slot has no such option, or the choices break a rule of the space.
        """
        for slot, (choice, names) in enumerate(zip(choices, self.options, strict=True)):
            if choice >= len(names):
                raise UsageError(
                    f"genotype: choice {choice} in slot {slot}; its choices go from 0 to {len(names) - 1}"
                )
        architecture = Architecture(choices)
        if not self.is_valid(architecture):
            raise UsageError(f"'{text[:60]}' breaks a rule of space '{self.name}'")
        return architecture

    def _named(self, names: Any) -> tuple[int, ...]:
        if not isinstance(names, list) or len(names) != self.slots:
            count = len(names) if isinstance(names, list) else 0
            raise UsageError(f"genotype of {count} choices: space '{self.name}' has {self.slots} slots")
        return tuple(
            option(name, own, f"slot {slot}")
            for slot, (name, own) in enumerate(zip(names, self.options, strict=True))
        )
