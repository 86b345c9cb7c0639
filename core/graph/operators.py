"""The operator table: how each ATen operator becomes nodes of the graph. A new one is one more handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.graph.ir import Array, Node, Value

Handler = Callable[..., Value]
Ints = int | list[int]

HANDLERS: dict[str, Handler] = {}

# Operators that hand their first argument on, at inference and for one dense float32 image.
IDENTITIES = frozenset(
    f"aten.{name}"
    for name in (
        "dropout", "dropout_", "feature_dropout", "alpha_dropout", "clone", "contiguous", "detach", "alias",
        "lift_fresh_copy", "_assert_tensor_metadata",
    )
)  # fmt: skip


class Refusal(Exception):  # noqa: N818 - the walk gathers these; only `trace` turns them into an error
    """The graph has no words for a call."""


@dataclass
class Call:
    """One ATen call being translated: its name, the value it makes, and the nodes emitted for it so far."""

    operator: str
    name: str
    shape: tuple[int, ...]
    path: str
    emitted: list[Node] = field(default_factory=list)

    def emit(
        self,
        op: str,
        inputs: tuple[Value, ...],
        shape: tuple[int, ...] | None = None,
        params: dict[str, Array] | None = None,
        **attrs: Any,
    ) -> Value:
        """Add a node and return its output; `shape` is given for a step on the way to the call's result."""
        name = self.name if shape is None else f"{self.name}_{op}"
        output = Value(name, self.shape if shape is None else shape)
        self.emitted.append(Node(op, name, inputs, output, attrs, params or {}, self.path))
        return output

    def refusal(self, why: str = "") -> Refusal:
        """Return the exception that names the operator, what about it is refused, and its module path."""
        place = f"at {self.path}" if self.path else "in the network's own forward"
        return Refusal(" ".join([self.operator, *why.split(), place]))


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update({f"aten.{name}": handler for name in names})
        return handler

    return register


def _pair(value: Ints) -> tuple[int, int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes[0], sizes[-1]


def _array(tensor: Tensor) -> Array:
    return np.array(tensor.detach().to("cpu", torch.float32).numpy())


@_handles("conv2d")
def _conv(
    call: Call,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Value:
    kernel = weight.shape[2:]
    spread = _pair(dilation)
    if padding == "same":
        total = [step * (size - 1) for step, size in zip(spread, kernel, strict=True)]
        if any(size % 2 for size in total):
            raise call.refusal("with padding='same' and an even kernel")
        padding = [size // 2 for size in total]
    pads = (0, 0) if isinstance(padding, str) else _pair(padding)
    zeros = np.zeros(weight.shape[0], np.float32)
    params = {"weight": _array(weight), "bias": zeros if bias is None else _array(bias)}
    return call.emit(
        "conv", (x,), params=params, stride=_pair(stride), padding=pads, dilation=spread, groups=groups
    )


@_handles("linear")
def _linear(call: Call, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    if len(x.shape) != 2:
        raise call.refusal(f"on {len(x.shape)} dimensions")
    zeros = np.zeros(weight.shape[0], np.float32)
    return call.emit(
        "linear", (x,), params={"weight": _array(weight), "bias": zeros if bias is None else _array(bias)}
    )


@_handles("addmm")
def _addmm(call: Call, bias: Tensor, x: Value, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Value:
    return _linear(call, x, weight.t() * alpha, bias.expand(weight.shape[1]) * beta)


@_handles("batch_norm")
def _batch_norm(
    call: Call,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Value:
    if mean is None or variance is None:
        raise call.refusal("without running statistics")
    # In double precision: the variances of a trained network span many orders of magnitude.
    scale = (variance.double() + eps).rsqrt() * (1.0 if weight is None else weight.double())
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    return _affine(call, x, scale, shift, norm=True)


@_handles("_native_batch_norm_legit_no_training")
def _functional_batch_norm(
    call: Call,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> Value:
    call.shape = x.shape  # The operator gives a tuple: the result, then statistics that are empty here.
    return _batch_norm(call, x, weight, bias, mean, variance, False, momentum, eps, False)


def _affine(call: Call, x: Value, scale: Tensor, shift: Tensor, *, norm: bool = False) -> Value:
    params = {"scale": _array(scale), "shift": _array(shift)}
    return call.emit("affine", (x,), params=params, norm=norm)


def _activation(op: str) -> Handler:
    return lambda call, x: call.emit(op, (x,))


for _name in ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "tanh"):
    _handles(_name)(_activation(_name))


@_handles("silu")
def _silu(call: Call, x: Value) -> Value:
    return call.emit("mul", (x, call.emit("sigmoid", (x,), x.shape)))


@_handles("leaky_relu")
def _leaky_relu(call: Call, x: Value, slope: float = 0.01) -> Value:
    return call.emit("leaky_relu", (x,), slope=float(slope))


@_handles("softmax")
def _softmax(call: Call, x: Value, dim: int, dtype: Any = None) -> Value:
    if len(x.shape) != 2 or dim % 2 != 1 or dtype not in (None, torch.float32):
        raise call.refusal("over anything but the classes")
    return call.emit("softmax", (x,))


@_handles("hardtanh")
def _hardtanh(call: Call, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    return _clamp(call, x, low, high)


@_handles("clamp")
def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None) -> Value:
    bounds = {(0.0, 6.0): "relu6", (0.0, None): "relu"}
    op = bounds.get((-1.0 if low is None else float(low), None if high is None else float(high)))
    if op is None:
        raise call.refusal(f"with bounds {low} and {high}")
    return call.emit(op, (x,))


@_handles("clamp_min")
def _clamp_min(call: Call, x: Value, low: float) -> Value:
    return _clamp(call, x, low, None)


@_handles("max_pool2d")
def _max_pool(
    call: Call,
    x: Value,
    kernel: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Value:
    if ceil_mode or _pair(dilation) != (1, 1):
        raise call.refusal("with ceil_mode or dilation")
    step = _pair(stride or kernel)
    return call.emit("max_pool", (x,), kernel=_pair(kernel), stride=step, padding=_pair(padding))


@_handles("avg_pool2d")
def _avg_pool(
    call: Call,
    x: Value,
    kernel: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    if ceil_mode or divisor_override is not None:
        raise call.refusal("with ceil_mode or divisor_override")
    size, pads = _pair(kernel), _pair(padding)
    if size == x.shape[2:] and pads == (0, 0):
        return call.emit("global_pool", (x,))
    step = _pair(stride or kernel)
    if count_include_pad and pads != (0, 0):
        # Zeros that count are what a convolution pads with. OpenCV's pool gets such a mean wrong.
        channels = x.shape[1]
        weight = np.full((channels, 1, *size), 1 / prod(size), np.float32)
        params = {"weight": weight, "bias": np.zeros(channels, np.float32)}
        return call.emit(
            "conv", (x,), params=params, stride=step, padding=pads, dilation=(1, 1), groups=channels
        )
    return call.emit("avg_pool", (x,), kernel=size, stride=step, padding=pads)


@_handles("adaptive_avg_pool2d")
def _adaptive_avg_pool(call: Call, x: Value, output_size: list[int]) -> Value:
    size, target = x.shape[2:], call.shape[2:]
    if any(have % want for have, want in zip(size, target, strict=True)):
        raise call.refusal(f"from {size} to {target}")
    kernel = [have // want for have, want in zip(size, target, strict=True)]
    return x if kernel == [1, 1] else _avg_pool(call, x, kernel)


@_handles("mean")
def _mean(call: Call, x: Value, dims: list[int] | None = None, keepdim: bool = False) -> Value:
    rank = len(x.shape)
    if rank != 4 or dims is None or {dim % rank for dim in dims} != {2, 3}:
        raise call.refusal("over anything but height and width")
    if keepdim:
        return call.emit("global_pool", (x,))
    return call.emit("reshape", (call.emit("global_pool", (x,), (*x.shape[:2], 1, 1)),))


@_handles("add")
def _add(call: Call, x: Any, y: Any, *, alpha: float = 1) -> Value:
    if isinstance(x, Value) and isinstance(y, Value) and alpha == 1:
        return _elementwise(call, "add", x, y)
    if not isinstance(x, Value):
        return _with_constant(call, y, alpha, x)
    return _with_constant(call, x, 1.0, y * alpha)


@_handles("sub")
def _sub(call: Call, x: Any, y: Any, *, alpha: float = 1) -> Value:
    if isinstance(x, Value) and isinstance(y, Value) and alpha == 1:
        return _elementwise(call, "sub", x, y)
    return _add(call, x, y, alpha=-alpha)


@_handles("rsub")
def _rsub(call: Call, x: Any, y: Any, *, alpha: float = 1) -> Value:
    return _sub(call, y, x, alpha=alpha)


@_handles("mul")
def _mul(call: Call, x: Any, y: Any) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        return _elementwise(call, "mul", x, y)
    return _with_constant(call, x, y, 0.0) if isinstance(x, Value) else _with_constant(call, y, x, 0.0)


@_handles("div")
def _div(call: Call, x: Any, y: Any) -> Value:
    return _with_constant(call, x, 1.0 / y, 0.0)


def _elementwise(call: Call, op: str, x: Value, y: Value) -> Value:
    if x.shape[:2] != y.shape[:2] or len(x.shape) != len(y.shape) or call.shape not in (x.shape, y.shape):
        raise call.refusal(f"between shapes {x.shape} and {y.shape}")
    return call.emit(op, (x, y))


def _with_constant(call: Call, x: Value, scale: Any, shift: Any) -> Value:
    if call.shape != x.shape:
        raise call.refusal("that broadcasts the image to a larger shape")
    return _affine(call, x, _per_channel(call, x, scale), _per_channel(call, x, shift))


def _per_channel(call: Call, x: Value, constant: Any) -> Tensor:
    """Return a scalar, or a constant that varies along channels only, as a tensor of shape (C,)."""
    tensor = torch.as_tensor(constant, dtype=torch.float32)
    shape = (1,) * (len(x.shape) - tensor.dim()) + tuple(tensor.shape)
    if len(shape) != len(x.shape) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        raise call.refusal(f"with a constant of shape {tuple(tensor.shape)}")
    return tensor.reshape(-1).expand(x.shape[1])


@_handles("cat", "concat")
def _concat(call: Call, values: list[Any], dim: int = 0) -> Value:
    if not all(isinstance(value, Value) for value in values) or dim % len(call.shape) != 1:
        raise call.refusal("of constants, or not along channels")
    return call.emit("concat", tuple(values))


@_handles("flatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")
def _reshape(call: Call, x: Value, *_: Any) -> Value:
    if call.shape == x.shape:
        return x
    # Anything else would mean different things in NCHW and in NHWC.
    vectors = all(sum(size > 1 for size in shape) <= 1 for shape in (x.shape, call.shape))
    if not vectors and call.shape != (1, prod(x.shape)):
        raise call.refusal(f"from {x.shape} to {call.shape}")
    return call.emit("reshape", (x,))


@_handles("slice")
def _slice(
    call: Call, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    if call.shape == x.shape:
        return x
    axis, rank = dim % len(x.shape), len(x.shape)
    if rank != 4 or axis == 0:
        raise call.refusal("of anything but channels, height and width")
    first, stop, _ = slice(start, end, step).indices(x.shape[axis])
    starts = tuple(first if i == axis else 0 for i in range(rank))
    stops = tuple(stop if i == axis else size for i, size in enumerate(x.shape))
    steps = tuple(step if i == axis else 1 for i in range(rank))
    return call.emit("slice", (x,), starts=starts, stops=stops, steps=steps)


@_handles("pad", "constant_pad_nd")
def _pad(call: Call, x: Value, pads: list[int], mode: Any = "constant", value: float | None = None) -> Value:
    # constant_pad_nd has its value where pad has its mode.
    fill = value if isinstance(mode, str) else mode
    if mode not in ("constant", fill) or fill or len(x.shape) != 4 or min(pads) < 0 or any(pads[4:]):
        raise call.refusal("with anything but zeros around height and width")
    left, right, top, bottom = (*pads, 0, 0)[:4]
    return call.emit("pad", (x,), pads=(top, bottom, left, right))


@_handles("to", "_to_copy")
def _to(call: Call, x: Value, *args: Any, **kwargs: Any) -> Value:
    types = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.dtype)]
    if any(dtype != torch.float32 for dtype in types):
        raise call.refusal("away from float32")
    return x
