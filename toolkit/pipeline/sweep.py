"""A sweep: a search for each budget, device, seed and space, on as many workers as there are."""

from __future__ import annotations

import io
import re
import shutil
import socket
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ehdnas.core.errors import BudgetError, DataError, EhdnasError, UsageError
from ehdnas.core.files import read_json, write_json
from ehdnas.pipeline.cluster import Share, require_ray, started
from ehdnas.pipeline.constraints import device_budgets
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.reporter import Silent
from ehdnas.pipeline.search import search
from ehdnas.search.loop import require_same
from ehdnas.settings import Settings, absolute_data
from ehdnas.workspace import Run, Workspace

_LEFT_BEHIND = (".checkpoint.safetensors", "lock", "tensorboard")  # of a run, what nothing after it needs
_MOST_JOBS = 10_000


@dataclass(frozen=True)
class Axes:
    """What a sweep goes over; the jobs are all combinations."""

    budgets: tuple[str, ...]
    devices: tuple[str, ...]
    seeds: tuple[int, ...]
    spaces: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One search: its number in the sweep, and its settings as JSON-able data."""

    number: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.number:04}"


@dataclass(frozen=True)
class Sweep:
    """The folder of a sweep: `plan.json`, a result a job, and where local searches work."""

    folder: Path

    @property
    def name(self) -> str:
        """The sweep's id."""
        return self.folder.name

    def result(self, job: Job) -> Path:
        """Return where a job's result is written."""
        return self.folder / f"{job.name}.json"

    def finished(self, job: Job) -> dict[str, Any] | None:
        """Return a job's row, if it was finished; one that failed is to be run again."""
        try:
            row: dict[str, Any] = read_json(self.result(job))
        except DataError:
            return None
        return row if row.get("status") in ("found", "no network") else None


def jobs_of(context: Context, axes: Axes) -> list[Job]:
    """Return the searches of a sweep, in the order of its axes.

    Raises:
        UsageError: there are none, or far too many; a budget, device or space that cannot be.
    """
    values = product(axes.spaces, axes.devices, axes.budgets, axes.seeds)
    rows = [dict(zip(("space", "device", "budget", "seed"), one, strict=True)) for one in values]
    if not 0 < len(rows) <= _MOST_JOBS:
        raise UsageError(f"a sweep of {len(rows)} searches; it can have 1 to {_MOST_JOBS:,}")
    plain = context.settings.model_dump(mode="json") | {"data": absolute_data(context.settings.data)}
    return [Job(number, {**plain, **row}) for number, row in enumerate(rows, 1)]


def sweep(
    context: Context, axes: Axes, share: Share, workers: int | None, address: str | None, resume: bool
) -> tuple[Sweep, list[dict[str, Any]]]:
    """Run the searches of a sweep that are not done; return it, and a row a job.

    Each device is profiled here first, once a space; the searches begin with what is known then. What they
    find become runs of the workspace. Searches that fail cost the others nothing, and are run again by the
    next `resume`.

    Raises:
        UsageError: as `jobs_of`, `started`; resuming with another plan, and the message says what differs.
    """
    jobs = jobs_of(context, axes)
    place = _place(context.workspace, jobs, resume)
    left = [job for job in jobs if place.finished(job) is None]
    if left:
        require_ray()  # before hours of profiling
        for profiled in _profiles(context, left):
            device_budgets(profiled)
        shared = place.folder, _known(context.workspace)
        with started(address, workers, share, context.reporter) as cluster:
            context.reporter.say(f"sweep: {place.name}, {len(left)} of {len(jobs)} searches to do")
            for done, (job, found) in enumerate(cluster.map(_run_job, shared, left), 1):
                if isinstance(found, EhdnasError):
                    row = {**_asked(job), "status": "failed", "why": str(found)}
                else:
                    row, files = found
                    if files is not None:
                        row["run"] = _adopt(context.workspace, files)
                write_json(place.result(job), row)
                context.reporter.progress(done, len(left), f"{row['status']}: {_said(row)}")
    return place, [read_json(place.result(job)) for job in jobs]


def _run_job(shared: tuple[Path, bytes], job: Job) -> tuple[dict[str, Any], bytes | None]:
    """Search, on a worker; return the job's row and, if a network was found, the run's files."""
    folder, known = shared
    # A worker that shares no disk with the one who asked works in a folder of its own, and so does the next.
    base = folder if folder.is_dir() else Path(tempfile.gettempdir()) / f"ehdnas-sweep-{folder.name}"
    workspace = Workspace(base / "work" / job.name)
    if not workspace.folder.is_dir():
        _unpacked(known, workspace.folder)
    begin = time.monotonic()
    row = {**_asked(job), "host": socket.gethostname()}
    try:
        run = search(
            Context(Settings(**job.settings), workspace, _Log(workspace.project / "log.txt")), resume=True
        )
    except BudgetError as error:
        return {**row, "status": "no network", "why": str(error)}, None
    except EhdnasError as error:
        return {**row, "status": "failed", "why": str(error)}, None
    found = run.read("search")
    chosen = found["chosen"]
    row |= {"status": "found", "genotype": found["genotype"], "seconds": round(time.monotonic() - begin, 1)}
    row |= {"figures": chosen["figures"], "accuracy": _accuracy(found)}
    files = _packed(run.folder.parent, {run.name})
    shutil.rmtree(workspace.folder)  # its log stays
    return row, files


def _accuracy(found: dict[str, Any]) -> float | None:
    """Return what a search tells of its network: that of its last trial, else by the shared weights."""
    tried = [one["accuracy"] for one in found["trials"] if one["genotype"] == found["genotype"]]
    accuracy: float | None = tried[-1] if tried else found["chosen"]["supernet_accuracy"]
    return accuracy


def _profiles(context: Context, jobs: Sequence[Job]) -> list[Context]:
    """Return a context for each device and space, with the first budget that is asked there."""
    firsts = {(job.settings["space"], job.settings["device"]): job for job in reversed(jobs)}
    keys = ("space", "device", "budget", "seed")
    return [context.having(**{key: job.settings[key] for key in keys}) for job in firsts.values()]


def _place(workspace: Workspace, jobs: list[Job], resume: bool) -> Sweep:
    """Return the folder of the sweep: that of the latest where it goes on, else a new one."""
    root = workspace.folder / "sweeps"
    known = sorted(path.parent for path in root.glob("*/plan.json"))
    plan = [asdict(job) for job in jobs]
    if resume and known:
        before = read_json(known[-1] / "plan.json")
        for ours, theirs in zip(plan, before, strict=False):
            require_same(ours["settings"], theirs["settings"], f"sweep {known[-1].name}")
        if len(before) != len(plan):
            raise UsageError(f"sweep {known[-1].name} has {len(before)} searches, not {len(plan)}")
        return Sweep(known[-1])
    number = 1 + max((int(path.name) for path in known if path.name.isdecimal()), default=0)
    place = Sweep(root / f"{number:04}")
    write_json(place.folder / "plan.json", plan)
    return place


def _asked(job: Job) -> dict[str, Any]:
    """Return what tells a job's row from others."""
    keys = ("space", "device", "budget", "seed")
    return {"job": job.number, **{key: job.settings[key] for key in keys}}


def _said(row: dict[str, Any]) -> str:
    return f"{row['space']} for {row['budget']} on {row['device']}, seed {row['seed']}"


def _packed(folder: Path, names: set[str]) -> bytes:
    """Return files and folders of a folder as one archive, without what nobody needs again."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in sorted(names):
            if (folder / name).exists():
                archive.add(folder / name, name, filter=_wanted)
    return packed.getvalue()


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name.endswith(_LEFT_BEHIND) else member


def _known(workspace: Workspace) -> bytes:
    """Return what a search begins with: the measurements and the predictors, as one archive."""
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as temporary:
        folder = Path(temporary)
        if workspace.database.is_file():
            target = folder / workspace.database.name
            with (
                closing(sqlite3.connect(workspace.database)) as here,
                closing(sqlite3.connect(target)) as there,
            ):
                here.backup(there)  # also what the write-ahead log still holds
        if workspace.predictors.is_dir():
            shutil.copytree(workspace.predictors, folder / workspace.predictors.name)
        return _packed(folder, {path.name for path in folder.iterdir()})


def _unpacked(packed: bytes, folder: Path) -> None:
    """Lay an archive of our own out in a new folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking-"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(temporary, filter="data")
    temporary.rename(folder)


def _adopt(workspace: Workspace, files: bytes) -> str:
    """Make a worker's run one of the workspace, and return its name."""
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        name = archive.getnames()[0]
        if not re.fullmatch(r"[\w-]+", name):
            raise DataError(f"a worker sent a run called '{name[:60]}'")
        workspace.runs.mkdir(parents=True, exist_ok=True)
        archive.extractall(workspace.runs, filter="data")
    return Run(workspace.runs / name).name


class _Log(Silent):
    """A reporter that appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, text: str) -> None:
        """Append a line."""
        with self._path.open("a") as file:
            file.write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Append a line."""
        self.say(text)
