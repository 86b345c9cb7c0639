"""How a padded window of torch's is said to TensorFlow, whose SAME pads by a rule of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.graph import Node


@dataclass(frozen=True)
class Axis:
    """A sliding window along one axis: `size` elements, `padding` zeros at each end."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int = 1

    @property
    def out(self) -> int:
        """Number of windows."""
        return (self.size + 2 * self.padding - self._reach) // self.stride + 1

    @property
    def end(self) -> int:
        """Zeros at the end that some window reads: with a stride, often fewer than `padding`."""
        return max(0, (self.out - 1) * self.stride + self._reach - self.size - self.padding)

    @property
    def is_same(self) -> bool:
        """True when TensorFlow's SAME starts each window where torch does.

        SAME makes ceil(size / stride) windows and puts the smaller half of what they lack in front.
        """
        windows = -(-self.size // self.stride)
        lacking = max(0, (windows - 1) * self.stride + self._reach - self.size)
        return self.out == windows and lacking // 2 == self.padding

    @property
    def is_centred(self) -> bool:
        """True when the window is centred on each element it starts from, as SAME with stride 1 is."""
        return 2 * self.padding == self._reach - 1

    @property
    def inside(self) -> NDArray[np.float32]:
        """How many elements of each window are not padding."""
        first = np.arange(self.out) * self.stride - self.padding
        last = np.minimum(first + self.kernel, self.size)
        return (last - np.maximum(first, 0)).astype(np.float32)

    @property
    def _reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1


def axes(node: Node) -> tuple[Axis, Axis]:
    """Return the window of a convolution or pooling node along height and along width."""
    attrs: dict[str, Any] = node.attrs
    kernel = attrs["kernel"] if "kernel" in attrs else node.params["weight"].shape[2:]
    dilation = attrs.get("dilation", (1, 1))
    high, wide = (
        Axis(node.inputs[0].shape[2 + i], kernel[i], attrs["stride"][i], attrs["padding"][i], dilation[i])
        for i in (0, 1)
    )
    return high, wide
