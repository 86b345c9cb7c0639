"""Labels by the million: networks of a space simulated on an accelerator, shard by shard, on many workers."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ehdnas.core.device import Device
from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.core.files import atomic_path, read_json, write_json
from ehdnas.pipeline.cluster import Share, started
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.costed import costed
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.loop import require_same, step_seed
from ehdnas.search.spaces.base import NetworkShape, Space, find_space

SHARD = 100_000
"""Networks in a file."""


@dataclass(frozen=True)
class Labelling:
    """What shards are made of; sent to each worker once."""

    space: str
    exclude: frozenset[str]
    shape: NetworkShape
    device: Device
    seed: int


@dataclass(frozen=True)
class Shard:
    """Some of the networks: which, from 0, and how many."""

    number: int
    networks: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"labels-{self.number:05}.npz"


def label(
    context: Context, count: int, out: Path, workers: int | None, address: str | None
) -> dict[str, Any]:
    """Label `count` random networks into files of a folder; those that are there already are kept.

    A file holds `choices` [n, slots], uint8, and `latency_ms` and `throughput_fps` [n], float64, NaN for a
    network that does not fit the accelerator. Networks follow from the seed and the number of the file alone.

    Raises:
        UsageError: the device is real, or the folder holds labels made otherwise; `started`.
    """
    task = Labelling(
        context.settings.space,
        frozenset(name.strip() for name in context.settings.exclude.split(",")) - {""},
        context.shape,
        _simulated(context.device),
        context.settings.seed,
    )
    _claim(task, out)
    shards = [Shard(at, min(SHARD, count - at * SHARD)) for at in range(-(-count // SHARD))]
    left = [shard for shard in shards if _networks(out / shard.file) != shard.networks]
    begin, done = time.monotonic(), 0
    with _mapped(context, task, left, workers, address) as labelled:
        for shard, file in labelled:
            if isinstance(file, EhdnasError):
                raise file
            with atomic_path(out / shard.file) as temporary:
                temporary.write_bytes(file)
            done += shard.networks
            context.reporter.progress(done, sum(one.networks for one in left), "networks labelled")
    seconds = time.monotonic() - begin
    return {
        "device": task.device.name,
        "networks": count,
        "labelled_now": done,
        "seconds": round(seconds, 1),
        "per_second": round(done / seconds) if done else None,
        "folder": str(out),
    }


@contextmanager
def _mapped(
    context: Context, task: Labelling, shards: Iterable[Shard], workers: int | None, address: str | None
) -> Iterator[Iterator[tuple[Shard, bytes | EhdnasError]]]:
    """Give the shards with their files as they are done: here, unless several workers are asked for."""
    if address is None and (workers or 1) == 1:
        yield ((shard, _label(task, shard)) for shard in shards)
        return
    with started(address, workers, Share(), context.reporter) as cluster:
        yield cluster.map(_label, task, shards)


def _label(task: Labelling, shard: Shard) -> bytes:
    """Return the file of a shard, on a worker."""
    space = _space(task.space, task.exclude)
    profiler = find_profiler(task.device)
    assert isinstance(profiler, TableProfiler)
    rng = np.random.default_rng(step_seed(task.seed, "labels", shard.number))
    choices = space.sample_many(rng, shard.networks)
    figures = profiler.figures(costed(space, task.shape).workload_of(choices))
    file = io.BytesIO()
    np.savez_compressed(
        file,
        choices=choices.astype(np.uint8),
        latency_ms=figures["latency_ms"],
        throughput_fps=figures["throughput_fps"],
    )
    return file.getvalue()


@lru_cache(maxsize=2)
def _space(name: str, exclude: frozenset[str]) -> Space:
    return find_space(name).without(exclude)  # the same object, so that its parts are traced once


def _simulated(device: Device) -> Device:
    if not device.simulated:
        raise UsageError(
            f"device '{device.name}' is real, and measured by `ehdnas profile`; labels are of simulated ones"
        )
    return device


def _claim(task: Labelling, out: Path) -> None:
    """Write down what a folder's labels are of, or see that they are of this."""
    made = {
        "space": task.space, "exclude": ",".join(sorted(task.exclude)), "shape": str(task.shape),
        "seed": task.seed, "shard": SHARD, "device": task.device.model_dump(mode="json"),
    }  # fmt: skip
    path = out / "labels.json"
    if path.is_file():
        require_same(made, read_json(path), f"{out}")
    write_json(path, made)


def _networks(path: Path) -> int:
    """Return how many networks a file has; 0 where it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return len(file["latency_ms"])
    except (OSError, ValueError, KeyError, BadZipFile, zlib.error):
        return 0
