"""What people hand to the Python API, looked at before hours or files are spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError, UsageError
from ehdnas.exporters.parity import Reference

if TYPE_CHECKING:
    from torch import nn


def as_images(given: Any, name: str) -> NDArray[np.float32]:
    """Return images (n, C, H, W), an array or a tensor of real numbers, as float32.

    Raises:
        DataError: they are of another kind or shape, or are pixels that nobody has normalised.
    """
    array = given.detach().cpu().numpy() if hasattr(given, "detach") else given
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{name} is a {type(given).__name__}; give a numpy array (n, channels, height, width)"
        )
    if array.ndim != 4:
        raise DataError(f"{name} has shape {array.shape}; give (n, channels, height, width)")
    if array.dtype.kind != "f":
        raise DataError(f"{name} is of {array.dtype}; normalise it as the network was trained, in float32")
    return np.ascontiguousarray(array, np.float32)


def as_network(given: Any) -> nn.Module:
    """Return a module whose parameters are float32.

    Raises:
        UsageError: it is no module, or computes in another type.
    """
    from torch import float32, nn

    if not isinstance(given, nn.Module):
        raise UsageError(f"the network is a {type(given).__name__}; give a torch nn.Module")
    other = [p.dtype for p in given.parameters() if p.is_floating_point() and p.dtype != float32]
    if other:
        raise UsageError(f"the network's weights are {other[0]}; export it as float32: network.float()")
    return given


def require_classes(reference: Reference, classes: Sequence[object] | None) -> None:
    """Return if labels and class names are those of the network's outputs.

    Raises:
        DataError: a label is none of the network's classes.
        UsageError: there are more or fewer names than outputs.
    """
    if reference.labels is None and classes is None:
        return
    outputs = reference.outputs.shape
    if len(outputs) != 2:
        raise UsageError(
            f"the network gives outputs of shape {outputs}; labels and classes need (n, classes)"
        )
    if classes is not None and len(classes) != outputs[1]:
        raise UsageError(f"{len(classes)} class names for a network of {outputs[1]} outputs; name each")
    labels = reference.labels
    if labels is None:
        return
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= outputs[1]:
        raise DataError(f"labels must be whole numbers from 0 to {outputs[1] - 1}, one an image")
