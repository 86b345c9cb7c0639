"""Four boards whose sessions, sshds and controller are killed at random: every result is there, once."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import farm_program
import pytest
from farm_program import BATCH, LightWorker, key
from sshd import running_with, several_sshds, until

from ehdnas.profilers.farm import run_jobs
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import MeasurementStore

pytest_plugins = ("sshd_fixtures",)


def stored(path):
    with sqlite3.connect(path) as database:
        return Counter(subject for (subject,) in database.execute("SELECT subject FROM measurements"))


class Havoc:
    """Kills sessions, an sshd or the controller, and later brings back what does not come back by itself."""

    def __init__(self, chance, sshds, command, folder):
        self.controller = None
        self._environment = {**os.environ, "TMPDIR": str(folder)}
        self._chance, self._sshds, self._command = chance, sshds, command
        self._log = folder / "controller.log"
        self._down = []

    def begin(self):
        command, environment = self._command, self._environment
        with self._log.open("ab") as log:
            self.controller = subprocess.Popen(command, stderr=log, env=environment)

    def strike(self, what):
        if what == "controller":
            self.end()
            self.begin()
            return
        self.relent()
        sshd = self._chance.choice(self._sshds)
        if what == "sessions":
            sshd.kill_sessions()
        else:
            sshd.stop()
            self._down.append(sshd)

    def relent(self):
        while self._down:
            self._down.pop().start()

    def end(self):
        self.controller.kill()
        self.controller.wait()

    def said(self):
        """What the controllers said last, for a failure to tell."""
        return self._log.read_text(errors="replace")[-4000:]


def left_on(sshd):
    """What runs or lies about there after a while."""
    there = sshd.folder / "tmp"
    until(lambda: not running_with(f"TMPDIR={there}"), 8)
    return [*running_with(f"TMPDIR={there}").values(), *there.iterdir()]


def with_jobs(tmp_path, number):
    database, subjects = tmp_path / "m.db", [f"{one:03}" for one in range(number)]
    with MeasurementStore(database) as store:
        JobTable(store).add(BATCH, map(key, subjects))
    return database, subjects


def worked_through(tmp_path, kind, jobs, strikes, every_s):
    """Have so many jobs done while so many strikes fall; return how many fell before the end."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}", file=sys.stderr)
    deck = (["sessions", "sessions", "sshd", "controller"] * strikes)[:strikes]
    chance.shuffle(deck)
    database, subjects = with_jobs(tmp_path, jobs)
    with several_sshds(tmp_path, 4) as sshds:
        configs = [one.config for one in sshds]
        command = [sys.executable, farm_program.__file__, database, kind, *configs]
        havoc = Havoc(chance, sshds, command, tmp_path)
        havoc.begin()
        try:
            assert until(lambda: stored(database), 60)
            while deck and havoc.controller.poll() is None:
                time.sleep(chance.uniform(0.5, 1.5) * every_s)
                havoc.strike(deck.pop())
            havoc.relent()
            assert havoc.controller.wait(120) == 0, havoc.said()
        finally:
            havoc.end()
        assert stored(database) == Counter(subjects)
        assert [left_on(sshd) for sshd in sshds] == [[]] * 4
    with MeasurementStore(database) as store:
        assert JobTable(store).counts(BATCH)["done"] == jobs
    return strikes - len(deck)


def test_two_hundred_jobs_survive_what_is_killed(tmp_path):
    assert worked_through(tmp_path, "light", 200, 12, 0.15) >= 6


def test_a_clock_that_jumps_here_loses_and_doubles_nothing(tmp_path, monkeypatch):
    chance = random.Random(5)
    jumpy = SimpleNamespace(time=lambda: time.time() + chance.choice((-7200, 0, 7200)))
    monkeypatch.setattr("ehdnas.profilers.store.jobs.time", jumpy)
    database, subjects = with_jobs(tmp_path, 40)
    with several_sshds(tmp_path, 2) as sshds:
        workers = [LightWorker(f"board-{one.port}", one.config) for one in sshds]
        done = []
        while sum(stored(database).values()) < 40:
            nothing = {"until": lambda: False, "say": lambda _: None}
            run_jobs(database, BATCH, workers, on_done=lambda key, _: done.append(key.subject), **nothing)
    assert Counter(done) == stored(database) == Counter(subjects)


@pytest.mark.slow
def test_two_hundred_measurements_survive_what_is_killed(tmp_path):
    assert worked_through(tmp_path, "real", 200, 32, 1) >= 16
