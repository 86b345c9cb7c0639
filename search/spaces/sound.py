"""Whether a space that somebody wrote can be used, asked before hours are spent on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.search.spaces.base import NetworkShape, Space

T = TypeVar("T")


def require_sound(space: Space, shape: NetworkShape) -> None:
    """Build the reference network and the supernet, and compute two images with either.

    It is a part of the contract that `tests/contracts/test_spaces.py` asks every installed space.

    Raises:
        UsageError: something raises, or gives what it should not; the message names the space and the step.
    """
    images = torch.randn(2, *shape.image, generator=torch.Generator().manual_seed(0))
    reference = _step(space, "reference", lambda: space.reference)
    _require(space, "reference is no valid architecture", space.is_valid(reference))
    text = _step(space, "text", lambda: space.text(reference))
    read = _step(space, "parse", lambda: space.parse(text))
    _require(space, f"parse does not read back what text gives, '{text[:60]}'", read == reference)
    network = _step(space, "network", lambda: space.network(reference, shape).eval())
    logits = _step(space, "network", lambda: network(images))
    _require_logits(space, "network", logits, shape)
    _step(space, "parts", lambda: space.parts(shape))
    supernet = _step(space, "supernet", lambda: space.supernet(shape))
    gates = space.encode(reference).requires_grad_()
    logits = _step(space, "supernet", lambda: supernet(images, gates))
    _require_logits(space, "supernet", logits, shape)
    if logits.requires_grad:
        logits.square().sum().backward()
    told = gates.grad is not None and bool(gates.grad.abs().sum() > 0)
    _require(space, "supernet gives the gates no gradient: multiply what a choice computes by its gate", told)


def _require_logits(space: Space, of: str, logits: object, shape: NetworkShape) -> None:
    wanted = (2, shape.classes)
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    _require(space, f"{of} gives {found} for two images, not logits {wanted}", found == wanted)


def _step(space: Space, name: str, step: Callable[[], T]) -> T:
    try:
        return step()
    except EhdnasError as error:
        raise UsageError(f"{_called(space)}: {name}: {error}") from error
    except Exception as error:
        raise UsageError(
            f"{_called(space)}: {name} raised {type(error).__name__}: {str(error).partition(chr(10))[0]}; "
            "`ehdnas --debug ...` shows where"
        ) from error


def _require(space: Space, what: str, holds: bool) -> None:
    if not holds:
        raise UsageError(f"{_called(space)}: {what}")


def _called(space: Space) -> str:
    return f"space '{space.name}' ({type(space).__module__}.{type(space).__name__})"
