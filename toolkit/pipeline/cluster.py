"""Many tasks on Ray: on the cores of this machine, or on a cluster that was started elsewhere."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.pipeline.reporter import Reporter

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_TRIES = 4  # times that a task is run again whose worker was lost
_ANSWERS_IN_S = 10.0
_AHEAD = 2  # tasks handed out for each that can run, so that no worker waits and memory stays flat


@dataclass(frozen=True)
class Share:
    """What a task takes of a machine: cores, and of a GPU a part or several."""

    cpus: float = 1.0
    gpus: float = 0.0


class Cluster:
    """What runs tasks, some at once; made by `started`."""

    def __init__(self, ray: Any, share: Share) -> None:
        self._ray, self._share = ray, share

    def map(
        self, function: Callable[[S, T], R], shared: S, tasks: Iterable[T]
    ) -> Iterator[tuple[T, R | EhdnasError]]:
        """Yield each task with what `function(shared, task)` gives, in the order they are done.

        A task whose worker is lost is run again elsewhere, so that running it twice must do no harm. What it
        holds and gives must pickle: they go between processes of one user, and come from no file. An error
        is given, not raised, where the function raised or its workers were lost too often: it is one task's.
        """
        remote = self._ray.remote(function).options(
            num_cpus=self._share.cpus, num_gpus=self._share.gpus, max_retries=_TRIES
        )
        waiting: dict[Any, T] = {}
        left, common = iter(tasks), self._ray.put(shared)
        while True:
            for task in islice(left, max(self._room - len(waiting), 0)):
                waiting[remote.remote(common, task)] = task
            if not waiting:
                return
            for done in self._ray.wait(list(waiting), num_returns=1)[0]:
                yield waiting.pop(done), self._result(done)

    @property
    def _room(self) -> int:
        """How many tasks are handed out at once; workers may come and go."""
        there = self._ray.cluster_resources()
        rooms = [there.get("CPU", 0) / self._share.cpus] if self._share.cpus else []
        rooms += [there.get("GPU", 0) / self._share.gpus] if self._share.gpus else []
        return max(1, _AHEAD * int(min(rooms, default=1)))

    def _result(self, done: Any) -> Any:
        try:
            return self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EhdnasError):
                return cause
            return EhdnasError(f"a task failed: {type(cause).__name__}: {cause}")
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            return EhdnasError(f"its workers were lost {_TRIES + 1} times: {first}")


@contextmanager
def started(address: str | None, workers: int | None, share: Share, reporter: Reporter) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at an address, for as long as the block lasts.

    On this machine a new token, which is kept nowhere, lets nobody else in.

    Args:
        address: of a cluster, HOST:PORT or ray://HOST:PORT; None for this machine.
        workers: processes on this machine; as many as cores by default.

    Raises:
        UsageError: Ray is not installed, or no cluster answers; a machine here has too little for a task.
    """
    if address is None and "ray" not in sys.modules:  # Ray reads them once, when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = require_ray()
    if address is None:
        where: dict[str, Any] = {"num_cpus": (workers or os.cpu_count() or 1) * max(share.cpus, 1)}
        where |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        _require_answer(address)
        where = {"address": address}
        reporter.warn(
            f"cluster {address}: whoever reaches its ports can run code as its user, unless all of its "
            "machines were started with RAY_AUTH_MODE=token; keep it in a network of its own"
        )
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds, with no base of their own
        ray.shutdown()
        what = f"no cluster at {address} answers" if address else "Ray does not start here"
        raise UsageError(f"{what} ({str(error).strip().partition(chr(10))[0]})") from error
    try:
        _require_room(ray.cluster_resources(), share)
        # What Ray says of lost workers it prints where a command's result is to stand alone.
        with redirect_stdout(sys.stderr):
            yield Cluster(ray, share)
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise UsageError where nobody listens at an address: Ray itself would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^:/\s]+):(\d{1,5})", address)
    if match is None:
        raise UsageError(f"--address {address[:60]}: give HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_ANSWERS_IN_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no cluster at {address} answers ({error})") from error


def _require_room(there: dict[str, float], share: Share) -> None:
    for name, wanted in (("CPU", share.cpus), ("GPU", share.gpus)):
        if wanted > there.get(name, 0.0):
            raise UsageError(f"a task wants {wanted:g} {name}, and there is {there.get(name, 0.0):g}")


def require_ray() -> Any:
    """Return the module; UsageError where it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError("this needs Ray; install it with `pip install 'ray>=2.52'`") from error
    return ray
