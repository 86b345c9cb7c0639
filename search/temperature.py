"""How sharply a search draws from its logits: a temperature schedule, set by entropy.

Logits that begin at zero move by a learning rate and by how clear a gradient is, and both differ from one
data set and schedule to the next; after a short search a softmax at temperature 1 would still be nearly even.
So the temperature follows from the entropy that is wanted, as soft actor-critic has it follow (Haarnoja et
al., arXiv 1812.05905, section 5), here by bisection.
"""

from __future__ import annotations

from bisect import bisect_left

from torch import Tensor

from ehdnas.search.spaces.base import Space

_LAST = 0.3  # of the entropy that a search begins with, what paths are drawn by in the end
_DECIDED = 0.15  # the same of a network that is as good as chosen
_COLDER, _COLDEST = 1.5, 12  # factors between one temperature and the next, and how many there are


def explored(space: Space, logits: Tensor, share: float) -> Tensor:
    """Return the logits [slots, choices] that paths are drawn by when a share of the search is over.

    Their entropy falls from the initial logits' to three tenths of it: in the end the shared weights are
    trained for, and the distribution learns among, networks alike the one that will be chosen.
    """
    return _at_entropy(space, logits, 1 - share * (1 - _LAST)) if share > 0 else logits


def decided(space: Space, logits: Tensor) -> Tensor:
    """Return logits [slots, choices] that nearly always draw their likeliest network or one much like it."""
    return _at_entropy(space, logits, _DECIDED)


def _at_entropy(space: Space, logits: Tensor, share: float) -> Tensor:
    """Return logits over the highest temperature, of 1 and less, at which they have so little entropy.

    The gradient goes through the logits alone, not through the temperature.

    Args:
        share: of the initial logits' entropy, what there may be at most.
    """
    most = share * space.entropy(space.initial_logits())
    fixed = logits.detach()
    steps = bisect_left(range(_COLDEST), True, key=lambda at: space.entropy(_COLDER**at * fixed) <= most)
    return _COLDER**steps * logits
