"""Where a search or a training computes, and in which numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ehdnas.core.errors import UsageError

_LOOK_EVERY = 25  # steps between two looks at a GPU's figures: each look waits for all it has been asked
_HELD_SHARE = 0.5  # of a GPU's free memory is what images may take; beyond it they come batch by batch


@dataclass(frozen=True)
class Compute:
    """A torch device and the numbers that networks are computed in there.

    `precision` is `float32` or `bfloat16`. With the latter the convolutions and matrix products of a forward
    pass run in it by autocast; weights, their gradients and what optimizers keep stay float32.
    `memory_format` is how images and weights lie in memory.
    """

    device: torch.device
    precision: str = "float32"
    memory_format: torch.memory_format = torch.channels_last

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}"

    @property
    def look_every(self) -> int:
        """Every how many steps figures are read; reading one on a GPU waits for it."""
        return 1 if self.device.type == "cpu" else _LOOK_EVERY

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        # Each weight is used once a pass, so that keeping its cast copies would save nothing.
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=False
        )

    def prepare(self) -> None:
        """Let a GPU choose its fastest convolutions; those of float32 may round their inputs to TF32."""
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cuda.matmul.allow_tf32 = True

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module here, its weights in this memory format; return it."""
        return module.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def move(self, tensor: Tensor) -> Tensor:
        """Return a tensor here; never waits for what a GPU is still at."""
        return tensor.to(self.device, non_blocking=True)

    def batch(self, images: Tensor) -> Tensor:
        """Return images [n, c, h, w] here, in this memory format."""
        return self.move(images).contiguous(memory_format=self.memory_format)

    def hold(self, images: NDArray[np.uint8]) -> Tensor:
        """Return a data set's images [n, h, w, c] here, or in the CPU's memory where they are too many."""
        held = torch.from_numpy(images)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if held.nbytes > _HELD_SHARE * free:
                return held
        return self.move(held)

    def take(self, held: Tensor, rows: Tensor) -> Tensor:
        """Return some rows of what `hold` gave, here."""
        return self.move(held[rows.to(held.device, non_blocking=True)])

    def synchronise(self) -> None:
        """Wait until all that was asked has been computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


CPU = Compute(torch.device("cpu"))


def find_compute(where: str = "auto", precision: str = "auto") -> Compute:
    """Return where to compute, and in which numbers.

    Args:
        where: `auto` (a CUDA GPU where torch finds one, else the CPU), `cpu`, `cuda` or `cuda:N`.
        precision: `float32`, `bfloat16` or `auto`: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        UsageError: the GPU asked for is not there.
    """
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if where == "auto" else where)
    if device.type == "cuda":
        _require_gpu(where, device.index or 0)
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    # In channels_last, oneDNN's dilated depthwise convolutions give NaN for the gradients of bfloat16 weights
    # (seen with torch 2.13 on an AMD EPYC).
    sound = device.type != "cpu" or precision == "float32"
    return Compute(device, precision, torch.channels_last if sound else torch.contiguous_format)


def _require_gpu(where: str, index: int) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index < count:
        return
    built = "" if torch.version.cuda else " without CUDA"
    raise UsageError(
        f"--compute {where}: torch {torch.__version__}{built} finds {count} GPUs here; choose auto or cpu"
    )
