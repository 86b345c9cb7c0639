"""Finds CIFAR-10's files in a folder or streams them out of a .tar.gz, without unpacking it."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ehdnas.core.errors import DataError
from ehdnas.core.images.unpickle import MAX_BYTES

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
_PYTHON = (*TRAIN, TEST, "batches.meta")
_BINARY = (*(f"{name}.bin" for name in (*TRAIN, TEST)), "batches.meta.txt")
_WANTED = frozenset(_PYTHON + _BINARY)
_MAX_UNPACKED = 7 * MAX_BYTES


def read_members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, where it lies for messages, content) of each of CIFAR-10's files at `path`.

    Raises:
        DataError: there are none, one cannot be read, or one is far larger than CIFAR-10's.
    """
    return _from_tar(path) if path.is_file() else _from_folder(path)


def _from_folder(path: Path) -> Iterator[tuple[str, str, bytes]]:
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        for layout in (_PYTHON, _BINARY):
            if found := [folder / name for name in layout if (folder / name).is_file()]:
                yield from ((file.name, str(file), _read(file)) for file in found)
                return
    raise DataError(
        f"no CIFAR-10 in {path}; give the folder that holds cifar-10-batches-py or cifar-10-batches-bin, "
        "or the .tar.gz"
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return _read_whole(stream, str(file))
    except OSError as error:
        raise DataError(
            f"cannot read {file}: {error.strerror}; check its permissions and the disk"
        ) from error


def _read_whole(stream: IO[bytes], where: str) -> bytes:
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{where} is over {MAX_BYTES // 10**6} MB, too large for 10,000 images; is it CIFAR-10?"
        )
    return data


def _from_tar(path: Path) -> Iterator[tuple[str, str, bytes]]:
    found = False
    try:
        with _Capped(path) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if member.isreg() and name in _WANTED else None
                if stream is not None:
                    found = True
                    where = f"{name} in {path}"
                    yield name, where, _read_whole(stream, where)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise DataError(
            f"{path} is not a whole .tar.gz ({error}); get CIFAR-10 again from its own site"
        ) from error
    if not found:
        raise DataError(f"no CIFAR-10 in {path}; give cifar-10-python.tar.gz or cifar-10-binary.tar.gz")


class _Capped(gzip.GzipFile):
    """A .gz that ends with an error after more than CIFAR-10 unpacks to, so that no archive is a bomb."""

    _unpacked = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._unpacked += len(data)
        if self._unpacked > _MAX_UNPACKED:
            raise DataError(f"{self.name!s} unpacks to over {_MAX_UNPACKED // 10**6} MB; is it CIFAR-10?")
        return data
