"""CIFAR-10 as its authors publish it: the python or the binary layout, in a folder or a .tar.gz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError
from ehdnas.core.images.cifar10_files import TEST, TRAIN, read_members
from ehdnas.core.images.dataset import Dataset, Split, make_dataset
from ehdnas.core.images.split import balance
from ehdnas.core.images.unpickle import ArrayState, RefusedError, read_pickle

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32
_AGAIN = "get CIFAR-10 again from its own site"


def read_cifar10(path: Path, source: str) -> Dataset:
    """Return CIFAR-10 from a folder, a folder that holds its folder, or a .tar.gz, which is streamed.

    The test batch is required; training batches may be missing, which the notes then say.

    Raises:
        DataError: a file is missing, truncated, of the wrong shape, or wants to do more than hold data.
    """
    batches: dict[str, Split] = {}
    classes: tuple[str, ...] | None = None
    for name, where, data in read_members(path):
        if name.startswith("batches.meta"):
            classes = _parsed(_read_names if name.endswith(".txt") else _read_meta, data, where)
            continue
        stem = name.removesuffix(".bin")
        if stem in batches:
            raise DataError(f"{path} holds {stem} twice; {_AGAIN}")
        batches[stem] = _parsed(_read_binary if name.endswith(".bin") else _read_python, data, where)
    names = _check_complete(path, batches)
    train = _join([batches.pop(name) for name in names])
    notes = _notes(names, train, classes)
    split: dict[str, list[int] | list[str]] = {"train": names, "test": [TEST]}
    return make_dataset("cifar10", classes or _CLASSES, train, batches[TEST], notes, source, split)


def _check_complete(path: Path, batches: dict[str, Split]) -> list[str]:
    names = [name for name in TRAIN if name in batches]
    if TEST not in batches:
        raise DataError(f"{path} has no {TEST}; put CIFAR-10's test batch beside the training batches")
    if not names:
        raise DataError(f"{path} has no training batch; put one or more of {TRAIN[0]} to {TRAIN[-1]} there")
    return names


def _notes(names: list[str], train: Split, classes: tuple[str, ...] | None) -> list[str]:
    notes = [f"{len(train):,} training images from {', '.join(names)}"]
    if missing := [name for name in TRAIN if name not in names]:
        notes.append(f"training batches not there: {', '.join(missing)}")
    if classes is None:
        notes.append("no batches.meta: the usual class names are used")
    return [*notes, balance(train.labels, classes or _CLASSES)]


def _join(parts: list[Split]) -> Split:
    """Return the parts as one, letting go of each once copied, so that memory holds the images about once."""
    if len(parts) == 1:
        return parts[0]
    labels = np.concatenate([part.labels for part in parts])
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    start = 0
    while parts:
        part = parts.pop(0)
        images[start : start + len(part)] = part.images
        start += len(part)
    return Split(images, labels)


def _parsed(read: Callable[[bytes], Any], data: bytes, where: str) -> Any:
    try:
        return read(data)
    except RefusedError as error:
        raise DataError(
            f"{where} is refused: its pickle wants {error}, which CIFAR-10 does not; {_AGAIN}"
        ) from error
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}; {_AGAIN}") from error


def _read_python(data: bytes) -> Split:
    batch = read_pickle(data)
    rows, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(rows, ArrayState) or rows.rows is None or rows.rows.ndim != 2:
        raise ValueError("it has no array of images under 'data'")
    if type(labels) is not list or any(type(label) is not int for label in labels):
        raise ValueError("it has no list of numbers under 'labels'")
    if any(not 0 <= label < len(_CLASSES) for label in labels):
        raise ValueError("a label is outside 0..9")
    return _to_split(rows.rows, np.array(labels, np.int64))


def _read_binary(data: bytes) -> Split:
    if len(data) % (1 + _PIXELS):
        raise ValueError(f"its {len(data):,} bytes are not a whole number of {1 + _PIXELS:,}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return _to_split(records[:, 1:], records[:, 0].astype(np.int64))


def _to_split(rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    if rows.shape != (len(labels), _PIXELS) or not len(labels):
        raise ValueError(f"{len(labels):,} labels with images of shape {rows.shape}, not (n, {_PIXELS:,})")
    if labels.max() >= len(_CLASSES):
        raise ValueError("a label is outside 0..9")
    return Split(np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels)


def _read_meta(data: bytes) -> tuple[str, ...]:
    names = read_pickle(data).get(b"label_names")
    if type(names) is not list or any(type(name) not in (bytes, str) for name in names):
        raise ValueError("it has no list of names under 'label_names'")
    return _check_names([name.decode() if isinstance(name, bytes) else name for name in names])


def _read_names(data: bytes) -> tuple[str, ...]:
    return _check_names(data.decode().split())


def _check_names(names: list[str]) -> tuple[str, ...]:
    if len(set(names)) != len(_CLASSES) or not all(name.isprintable() and len(name) < 100 for name in names):
        raise ValueError(f"it has no {len(_CLASSES)} different class names")
    return tuple(names)
