"""The loop under searching and training: batches in a fixed order, checkpoints, exact resume.

No random state is ever saved: every step's randomness follows from the seed, the stage and the step's
number, so a run that was killed repeats exactly what it lost.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
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
from ehdnas.search.processes import ALONE, Processes

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what to show)."""

EpochRecord = Callable[[dict[str, Any]], None]
"""Called with the record of each epoch when it ends; one that is done again on resuming is told again."""


def unheard(record: dict[str, Any]) -> None:
    """Do nothing with an epoch's record."""


def step_seed(seed: int, stage: str, *position: int) -> int:
    """Return a seed of 63 bits, fixed by the run's seed, the stage and a position in it."""
    text = f"{seed}/{stage}/{'/'.join(map(str, position))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


@lru_cache(maxsize=4)  # an epoch's steps ask one after another
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
    an epoch; `extra` holds named tensors that are neither the module's nor an optimizer's. `carried` holds
    numbers, among them the sums over the epoch so far; those stay on the compute device, as float64, until
    they are read, since reading one waits for it.
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
    carried: dict[str, float | Tensor] = field(default_factory=dict)
    look_every: int = 1
    processes: Processes = ALONE
    _watched: float | Tensor = field(default=0.0, init=False)
    _shown: str = field(default="", init=False)

    def resume(self) -> int:
        """Continue from the checkpoint, if there is one; return how many steps it holds.

        Of several processes the first one reads it, for all.

        Raises:
            UsageError: it was made with other settings; the message says which differ.
        """
        kept = self.processes.share_object(self._kept() if self.processes.first else None)
        if kept is None:
            return 0
        tensors, meta = kept
        restore_module(self.module, tensors, self.path)
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, tensors, f"optimizer-{name}")
        for name, tensor in self.extra.items():
            tensor.data.copy_(tensors[f"extra.{name}"])
        self.done, self.history, self.carried = meta["done"], meta["history"], meta["carried"]
        return self.done

    def _kept(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if not self.path.exists():
            return None
        tensors, meta = load_checkpoint(self.path)
        require_same(self.identity, meta["identity"], str(self.path))
        return tensors, meta

    def save(self) -> None:
        """Write the checkpoint; its tensors are the CPU's, so that it can be continued on any device.

        Of several processes only the first one writes.

        Raises:
            EhdnasError: a figure is no number; the file stays as it is.
        """
        self.look()
        if not self.processes.first:
            return
        tensors = module_tensors(self.module)
        for name, optimizer in self.optimizers.items():
            tensors |= flatten_optimizer(optimizer, f"optimizer-{name}")
        tensors |= {f"extra.{name}": tensor for name, tensor in self.extra.items()}
        meta = {
            "identity": self.identity,
            "done": self.done,
            "history": self.history,
            "carried": {key: float(value) for key, value in self.carried.items()},
        }
        save_checkpoint(self.path, tensors, meta)

    def remaining(self) -> Iterator[tuple[int, int]]:
        """Yield (epoch, step) for what is left, seeding each step and saving every so often.

        Raises:
            KeyboardInterrupt: a process was asked to stop; the step all were in is finished, and saved.
        """
        # Seeds give equal weights where equal versions of torch run on equal machines; this, everywhere.
        self.processes.share([*self.module.state_dict().values(), *self.extra.values()])
        saved = time.monotonic()
        with _stop_requests(insisting=self.processes.count == 1) as stop:
            while self.done < self.epochs * self.steps:
                epoch, step = divmod(self.done, self.steps)
                torch.manual_seed(step_seed(self.seed, self.stage, self.done))
                yield epoch, step
                self.done += 1
                stopping = self.processes.any(stop.is_set())
                if stopping or time.monotonic() - saved > self.save_every_s:
                    self.save()
                    saved = time.monotonic()
                if stopping:
                    self.processes.wait()  # for the first, which writes: where one ends, all are ended
                    raise KeyboardInterrupt
            self.save()

    def account(self, figures: Mapping[str, float | Tensor], gradient: Tensor) -> None:
        """Add a step's figures to the epoch's sums, and at the epoch's end their means to the history.

        Args:
            figures: by name; `loss` is one of them.
            gradient: the norm of the step's gradient. It shows a step that spoils the weights before any
                loss does.

        Raises:
            EhdnasError: loss or gradient became no number.
        """
        epoch, step = divmod(self.done, self.steps)
        self._watched = self._watched + gradient.detach().double() + figures["loss"]
        for key, value in figures.items():
            value = value.detach().double() if isinstance(value, Tensor) else value
            self.carried[f"sum.{key}"] = self.carried.get(f"sum.{key}", 0.0) + value
        if step == self.steps - 1 or self.done % self.look_every == 0:
            self.look()
            self._shown = f"loss {float(figures['loss']):.2f}"
        if step == self.steps - 1:
            sums = [key for key in self.carried if key.startswith("sum.")]
            means = {key.removeprefix("sum."): float(self.carried.pop(key)) / self.steps for key in sums}
            self.history.append({"epoch": epoch, **means})

    def look(self) -> None:
        """Raise EhdnasError where a loss or gradient since the last look was no number."""
        watched, self._watched = float(self._watched), 0.0
        self.require_finite(watched)

    def show(self, progress: Progress) -> None:
        """Tell how far the loop is, and its loss when it was last read."""
        progress(self.done + 1, self.epochs * self.steps, self._shown)

    def require_finite(self, loss: float | Tensor) -> None:
        """Raise EhdnasError when the loss is no number; what was saved before stays as it is."""
        if not math.isfinite(loss):
            epoch, step = divmod(self.done, self.steps)
            raise EhdnasError(
                f"the {self.stage} loss became {float(loss)} in epoch {epoch}, step {step}; "
                "start again, without --resume, with a lower --learning-rate; what was saved before is kept"
            )


@contextmanager
def _stop_requests(insisting: bool) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or SIGTERM sets, so that a step is never cut in two.

    With `insisting` a second one cuts. Several processes may well be sent the same one twice, by whoever
    stops the job and by torchrun, which ends by force what takes too long.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return

    def request(number: int, frame: object) -> None:
        if stop.is_set() and insisting:
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
