"""Several processes at one search or training, as `torchrun` starts them: all that touches torch.distributed.

Each process computes its share of every batch; what they sum is the same on all of them afterwards, so that
all take the same step. The first one (rank 0) reads, writes and speaks; the others only compute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store  # where typed code finds them
from torch.distributed.rendezvous import rendezvous

from ehdnas.core.errors import EhdnasError, UsageError

# The first process may measure networks on a board for hours, while the others wait to be asked.
_PATIENCE = timedelta(days=1)
_ASK_EVERY_S = 0.1
_FAILED = "failed"


@dataclass(frozen=True)
class Processes:
    """The processes that share the work, as one of them sees them.

    `rank` is its own number, from 0, of `count`; `local_rank` its number among the `local_count` on its
    machine. Every method that sums, shares or asks must be called by all of them, in the same order.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that reads, writes and speaks."""
        return self.rank == 0

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over all processes, in place; they go over the wire together.

        All are of one type and on one device.
        """
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _within_reach():
            dist.all_reduce(flat)
        _spread(flat, tensors)

    @torch.no_grad()
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor the first process's values, in place, on all others."""
        if self.count == 1:
            return
        with _within_reach():
            for tensor in tensors:
                own = tensor.detach().contiguous()
                dist.broadcast(own, 0)
                tensor.copy_(own)

    def share_object(self, value: Any) -> Any:
        """Return what the first process passed; it travels pickled, between processes of one job only."""
        if self.count == 1:
            return value
        box = [value]
        with _within_reach():
            dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def any(self, asked: bool) -> bool:
        """Return whether this was asked of any process. A GPU's work is not waited for."""
        if self.count == 1:
            return asked
        flag = torch.tensor(int(asked))
        with _within_reach():
            dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def wait(self) -> None:
        """Return once every process has come here."""
        self.any(False)

    def place(self, where: str) -> str:
        """Return where this process computes: of `auto` and `cuda`, the GPU of its number on its machine.

        Raises:
            UsageError: the machine has fewer GPUs than processes, or all were given the same one.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.count == 1 or where == "cpu" or not gpus:
            return where
        if where not in ("auto", "cuda") and self.local_count > 1:
            raise UsageError(
                f"--compute {where}: each of the {self.local_count} processes here needs a GPU of its own; "
                "leave it at auto"
            )
        if self.local_count > gpus:
            raise UsageError(
                f"{self.local_count} processes here, but torch finds {gpus} GPUs; start {gpus}, or say "
                "--compute cpu"
            )
        return f"cuda:{self.local_rank}" if where in ("auto", "cuda") else where

    def post(self, text: str) -> None:
        """Leave a text for the others, who are not waited for."""
        if self.store is not None:
            number = self.store.add("posts", 1)
            self.store.set(f"post-{number}", text)

    def await_post(self, number: int) -> str:
        """Return the text of a post, numbered from 1, once it has been left; a signal ends the wait."""
        assert self.store is not None
        key = f"post-{number}"
        with _within_reach():
            while not self.store.check([key]):
                time.sleep(_ASK_EVERY_S)  # in Python, where a signal is seen at once
        text: bytes = self.store.get(key)
        return text.decode()

    def claim_failure(self) -> bool:
        """Return whether this process is the first to fail, and so the one to say why.

        Where one fails, the others' sums break, and they fail because of it.
        """
        if self.store is None:
            return True
        own = str(self.rank)
        try:
            first: bytes = self.store.compare_set(_FAILED, "", own)
        except RuntimeError:  # the store went down with the process that kept it, which had said why
            return False
        return first.decode() == own


ALONE = Processes()
_joined = ALONE


def started() -> tuple[int, int]:
    """Return (own rank, how many processes) as `torchrun` has started them; (0, 1) without it.

    Raises:
        UsageError: the environment holds no numbers there.
    """
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise UsageError(f"RANK or WORLD_SIZE is no number ({error}); start with torchrun") from error


def current() -> Processes:
    """Return the processes that were joined, or `ALONE`."""
    return _joined


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that `torchrun` started, until the block ends; alone, nothing happens.

    Sums of CPU tensors go through gloo, those of GPU tensors through nccl.

    Raises:
        EhdnasError: they cannot reach one another.
    """
    global _joined
    _, count = started()
    if count == 1:
        yield ALONE
        return
    try:
        _joined = _join()
    except (RuntimeError, ValueError) as error:
        raise EhdnasError(
            f"the {count} processes cannot reach one another ({str(error).splitlines()[0]}); start all with "
            "torchrun, and check --rdzv-endpoint"
        ) from error
    try:
        yield _joined
        # Not after a failure: with nccl that would wait for processes that may no longer come.
        dist.destroy_process_group()
    finally:
        _joined = ALONE


def _join() -> Processes:
    store, rank, count = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    return Processes(
        rank=rank,
        count=count,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_count=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        store=PrefixStore("ehdnas", store),
    )


@contextmanager
def _within_reach() -> Iterator[None]:
    """Raise EhdnasError where torch cannot reach another process."""
    try:
        yield
    except RuntimeError as error:
        raise EhdnasError(
            f"another process was lost ({str(error).splitlines()[0]}); start all again, with --resume"
        ) from error


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    torch._foreach_copy_(
        list(tensors), [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
    )
