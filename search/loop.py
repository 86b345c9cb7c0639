"""The loop under searching and training: batches in a fixed order, checkpoints, exact resume.

No random state is ever saved: every step's randomness follows from the seed, the stage and the step's
number, so a run that was killed repeats exactly what it lost.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.search.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    module_tensors,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what to show)."""


def step_seed(seed: int, stage: str, *position: int) -> int:
    """Return a seed of 63 bits, fixed by the run's seed, the stage and a position in it."""
    text = f"{seed}/{stage}/{'/'.join(map(str, position))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def epoch_order(count: int, batch: int, seed: int, stage: str, epoch: int) -> Tensor:
    """Return the indices of an epoch's whole batches, [batches, batch]; a data set under a batch is one."""
    generator = torch.Generator().manual_seed(step_seed(seed, f"{stage}-order", epoch))
    size = min(batch, count)
    order = torch.randperm(count, generator=generator)
    return order[: count // size * size].view(-1, size)


def steps_per_epoch(count: int, batch: int) -> int:
    """Return how many batches `epoch_order` gives."""
    return count // min(batch, count)


@dataclass
class Loop:
    """Where a stage stands, and how it is saved and found again.

    `identity` is what must be equal for a checkpoint to be continued; `history` is one JSON-able record
    an epoch; `extra` holds named tensors that are neither the module's nor an optimizer's.
    """

    stage: str
    path: Path
    identity: dict[str, Any]
    module: torch.nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    epochs: int
    steps: int
    seed: int
    save_every_s: float
    extra: dict[str, Tensor] = field(default_factory=dict)
    done: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    carried: dict[str, float] = field(default_factory=dict)

    def resume(self) -> int:
        """Continue from the checkpoint, if there is one; return how many steps it holds.

        Raises:
            UsageError: it was made with other settings; the message says which differ.
        """
        if not self.path.exists():
            return 0
        tensors, meta = load_checkpoint(self.path)
        require_same(self.identity, meta["identity"], str(self.path))
        restore_module(self.module, tensors, self.path)
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, tensors, f"optimizer-{name}")
        for name, tensor in self.extra.items():
            tensor.data.copy_(tensors[f"extra.{name}"])
        self.done, self.history, self.carried = meta["done"], meta["history"], meta["carried"]
        return self.done

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = module_tensors(self.module)
        for name, optimizer in self.optimizers.items():
            tensors |= flatten_optimizer(optimizer, f"optimizer-{name}")
        tensors |= {f"extra.{name}": tensor for name, tensor in self.extra.items()}
        meta = {
            "identity": self.identity,
            "done": self.done,
            "history": self.history,
            "carried": self.carried,
        }
        save_checkpoint(self.path, tensors, meta)

    def remaining(self) -> Iterator[tuple[int, int]]:
        """Yield (epoch, step) for what is left, seeding each step and saving every so often.

        Raises:
            KeyboardInterrupt: the process was asked to stop; the step it was in is finished, and saved.
        """
        saved = time.monotonic()
        with _stop_requests() as stop:
            while self.done < self.epochs * self.steps:
                epoch, step = divmod(self.done, self.steps)
                torch.manual_seed(step_seed(self.seed, self.stage, self.done))
                yield epoch, step
                self.done += 1
                if stop.is_set() or time.monotonic() - saved > self.save_every_s:
                    self.save()
                    saved = time.monotonic()
                if stop.is_set():
                    raise KeyboardInterrupt
            self.save()

    def require_finite(self, loss: Tensor) -> None:
        """Raise EhdnasError when the loss is no number; what was saved before stays as it is."""
        if not torch.isfinite(loss):
            epoch, step = divmod(self.done, self.steps)
            raise EhdnasError(
                f"the {self.stage} loss became {loss.item()} in epoch {epoch}, step {step}; "
                "try a lower learning rate, then go on with --resume"
            )


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or SIGTERM sets, so that a step is never cut in two; a second one cuts."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_same(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
    """Raise UsageError, naming each setting that differs, unless both are equal."""
    ours, theirs = _flat(ours), _flat(theirs)
    differing = [
        f"{key} (was {theirs.get(key)}, now {ours.get(key)})"
        for key in sorted(ours | theirs)
        if ours.get(key) != theirs.get(key)
    ]
    if differing:
        raise UsageError(
            f"{where} was made with other settings: {', '.join(differing)}; start without --resume"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with groups of them spread out, so that the one that differs can be named."""
    groups = {key: value for key, value in settings.items() if isinstance(value, dict)}
    plain = {key: value for key, value in settings.items() if key not in groups}
    return plain | {f"{key}.{name}": value for key, group in groups.items() for name, value in group.items()}
