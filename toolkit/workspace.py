"""The workspace: `.ehdnas/` in a project folder, where commands find what the last one left.

.ehdnas/measurements.db   every measurement, raw samples included
.ehdnas/predictors/       fitted predictors
.ehdnas/runs/<id>/        one search and all that followed from it
.ehdnas/runs/<id>/baseline/   another network, trained and judged beside the one found
.ehdnas/runs/latest       a link to the newest of them
.ehdnas/settings.json     data, space and size of the last profile or search, for the next one
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import read_json, write_json
from ehdnas.settings import PROJECT_FILE

FOLDER = ".ehdnas"


class Run:
    """A folder of one search and what followed. A stage is done when its JSON file is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def genotype(self) -> str:
        """The text form of the architecture that the search chose.

        Raises:
            UsageError: nothing has been searched in this run, or it holds a front of several networks.
        """
        if not self.has("search"):
            raise UsageError(f"run {self.name} holds no finished search; run `ehdnas search --resume`")
        search = self.read("search")
        if "front" in search:
            names = [str(row["run"]) for row in search["front"]]
            raise UsageError(
                f"run {self.name} holds {len(names)} networks, each a run of its own; say which, "
                f"--run {names[0]} to {names[-1]}"
            )
        return str(search["genotype"])

    @property
    def module(self) -> str:
        """The reference of the user's own network that this run is about, empty for a genotype's."""
        return str(self.read("search").get("module", "")) if self.has("search") else ""

    @property
    def beside(self) -> Run:
        """The run, in a folder of this one, of the network that this one's is compared with."""
        return Run(self.folder / "baseline")

    def has(self, stage: str) -> bool:
        """Return whether a stage (`search`, `train`, `export`, `verify`) is done."""
        return self.stage_file(stage).is_file()

    def read(self, stage: str) -> Any:
        """Return what a stage wrote, or the run's own settings for `run`."""
        try:
            return read_json(self.stage_file(stage))
        except DataError as error:
            raise DataError(f"{error}; start another run with `ehdnas search`") from error

    def write(self, stage: str, value: Any) -> None:
        """Write a stage's result, which marks it done."""
        write_json(self.stage_file(stage), value)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the run while a stage changes it; the system lets go of it even when the process is killed.

        Raises:
            UsageError: another process is changing it.
        """
        with _held(self.folder / "lock", f"working on run {self.name}"):
            yield

    def forget(self, *stages: str) -> None:
        """Mark stages as not done, because one before them is done again."""
        for stage in stages:
            self.stage_file(stage).unlink(missing_ok=True)

    def stage_file(self, stage: str) -> Path:
        """Return where a stage's result is written."""
        return self.folder / f"{stage}.json"

    def checkpoint(self, stage: str) -> Path:
        """Return where a stage keeps what it needs to resume."""
        return self.folder / f"{stage}.checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """Where the trained network's weights are."""
        return self.folder / "weights.safetensors"


class Workspace:
    """The `.ehdnas` folder of a project."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.folder = project / FOLDER

    @property
    def database(self) -> Path:
        """The measurements database."""
        return self.folder / "measurements.db"

    @property
    def predictors(self) -> Path:
        """The folder of fitted predictors."""
        return self.folder / "predictors"

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.folder / "runs"

    def new_run(self, settings: dict[str, Any]) -> Run:
        """Make a run folder, write down its settings, and make it the latest."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        run = Run(self.runs / f"{stamp}-{secrets.token_hex(2)}")
        run.write("run", settings)
        self._set_latest(run)
        return run

    def remember(self, settings: dict[str, Any]) -> None:
        """Keep settings for the next command in this project, which `remembered` gives."""
        if settings != self.remembered():
            write_json(self._settings, settings)

    def remembered(self) -> dict[str, Any] | None:
        """Return what the last command kept; None where there was none, or it cannot be read."""
        try:
            found = read_json(self._settings) if self._settings.is_file() else None
        except DataError:
            return None  # a convenience: nothing is lost but some typing
        return found if isinstance(found, dict) else None

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def part_of(self, run: Run, number: int, settings: dict[str, Any]) -> Run:
        """Make a run of one of several networks that a run found, named by its number; not the latest."""
        part = Run(self.runs / f"{run.name}-{number}")
        part.write("run", settings)
        return part

    def latest(self) -> Run | None:
        """Return the newest run, or None."""
        link = self.runs / "latest"
        return Run(self.runs / os.readlink(link)) if link.is_symlink() and link.exists() else None

    def run(self, name: str | None, needed: str) -> Run:
        """Return a run by name, or the latest.

        Args:
            needed: what to run first when there is none, for the error.

        Raises:
            UsageError: there is no such run.
        """
        found = self.latest() if name is None else Run(self.runs / name)
        if name is not None and not re.fullmatch(r"[\w-]+", name):
            raise UsageError(f"'{name}' is no run; runs are folders of {self.runs}")
        if found is None:
            raise UsageError(f"nothing has been searched in {self.project} yet; {needed}")
        if not found.has("run"):
            raise UsageError(f"no run '{found.name}' in {self.runs}; {needed}")
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace's lock; it is released by the system even when the process is killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def alone(self, name: str, doing: str) -> Iterator[None]:
        """Hold the lock `name` of the workspace, which the system lets go of even after a kill.

        Raises:
            UsageError: another process holds it; `doing` says what it does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _held(self.folder / f"{name}.lock", f"{doing} in {self.project}"):
            yield

    def _set_latest(self, run: Run) -> None:
        with self.locked():
            temporary = self.runs / f".latest-{secrets.token_hex(4)}"
            temporary.symlink_to(run.name)
            os.replace(temporary, self.runs / "latest")


@contextmanager
def _held(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock file; UsageError, with what is being done, where another process does."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another ehdnas is {doing}; wait until it is done") from error
        yield


def find_workspace(start: Path | None = None) -> Workspace:
    """Return the workspace of the nearest folder upwards that has one, else a new one here."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir() or (folder / PROJECT_FILE).is_file():
            return Workspace(folder)
    return Workspace(here)
