"""Images in folders, one folder a class; also with train/ and val/ or test/ above, as ImageNet has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError
from ehdnas.core.images.dataset import Dataset, Split, make_dataset
from ehdnas.core.images.decode import decode, image_size, quiet_decoding
from ehdnas.core.images.folder_scan import ClassFiles, Scan
from ehdnas.core.images.split import TEST_SHARE, balance, stratified_split

_SAMPLED = 500
_SLAB = 32


def read_folder(path: Path, seed: int, size: int | None, source: str) -> Dataset:
    """Return the images below `path` as squares of `size` pixels (default: by the median shorter side).

    Raises:
        DataError: too few classes or images, an image that does not decode or is gigantic, or more
            images than half of the machine's memory holds.
    """
    scan = Scan(path)
    notes: list[str] = []
    parts, classes = _own_parts(scan, notes) or _cut_parts(scan, seed, notes)
    files = [file for part in parts for file, _ in part]
    with quiet_decoding():
        size = size or _default_size(files, notes)
        _check_memory(source, len(files), size)
        images = _decode_all(files, size)
    labels = [np.array([label for _, label in part], np.int64) for part in parts]
    train, test = Split(images[: len(parts[0])], labels[0]), Split(images[len(parts[0]) :], labels[1])
    notes += [f"shorter side resized to {size} pixels, then the centre {size}x{size} cropped"]
    notes += [balance(train.labels, classes), *scan.notes()]
    split: dict[str, list[int] | list[str]] = {
        key: [file.relative_to(scan.root).as_posix() for file, _ in part]
        for key, part in zip(("train", "test"), parts, strict=True)
    }
    return make_dataset(scan.root.name, classes, train, test, notes, source, split)


_Part = list[tuple[Path, int]]
_Parts = tuple[tuple[_Part, _Part], list[str]]


def _own_parts(scan: Scan, notes: list[str]) -> _Parts | None:
    train, held_out = scan.root / "train", [scan.root / name for name in ("val", "test")]
    tests = [folder for folder in held_out if folder.is_dir()]
    if not train.is_dir() or not tests:
        return None
    # Where both are there, val/ is the one with labels in ImageNet's layout.
    train_files, test_files = scan.classes(train, least=2), scan.classes(tests[0], least=1)
    if odd := sorted(train_files.keys() ^ test_files.keys()):
        raise DataError(
            f"class '{odd[0]}' is in only one of {train} and {tests[0]}; give both the same class folders"
        )
    notes.append(f"training images from train/, test images from {tests[0].name}/")
    if len(tests) > 1:
        notes.append(f"{tests[1].name}/ was left unread")
    return (_flat(train_files), _flat(test_files)), list(train_files)


def _cut_parts(scan: Scan, seed: int, notes: list[str]) -> _Parts:
    files = scan.classes(scan.root, least=2)
    every = _flat(files)
    train, test = stratified_split(np.array([label for _, label in every], np.int64), TEST_SHARE, seed)
    notes.append(f"{len(test):,} test images, a fifth of each class, chosen by seed {seed}")
    return ([every[i] for i in train], [every[i] for i in test]), list(files)


def _flat(files: ClassFiles) -> _Part:
    return [(file, label) for label, members in enumerate(files.values()) for file in members]


def _default_size(files: Sequence[Path], notes: list[str]) -> int:
    sample = files[:: max(1, len(files) // _SAMPLED)]
    median = float(np.median([min(image_size(file)) for file in sample]))
    size = 224 if median >= 160 else 64 if median >= 48 else 32
    notes.append(f"size {size} chosen by the median shorter side of {median:.0f} pixels")
    return size


def _check_memory(source: str, count: int, size: int) -> None:
    needed, machine = count * size * size * 3, _machine_bytes()
    if needed > machine // 2:
        raise DataError(
            f"{source}: {count:,} images at {size}x{size} need {needed / 1e9:.1f} GB, over half of "
            f"this machine's {machine / 1e9:.1f} GB; choose a smaller image size or fewer images"
        )


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _decode_all(files: Sequence[Path], size: int) -> NDArray[np.uint8]:
    images = np.empty((len(files), size, size, 3), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + _SLAB, len(files))):
            images[index] = decode(files[index], size)

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for _ in pool.map(fill, range(0, len(files), _SLAB)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images
