"""The farm: boards (fakes, that break on order) come and go; every job ends, no figure is stored twice."""

import random
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from ehdnas.core.errors import DataError, DeviceError, DeviceSetupError, ExportError, MeasurementError
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.farm import Worker, run_jobs
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import Key, MeasurementStore


def key(subject: str) -> Key:
    return Key("pi4", "darts", "s", subject, "int8", "p")


def figure(board: str = "fake") -> Measurement:
    return Measurement(device="pi4", basis="measured", metrics={"latency_ms": 1.0}, passport={"board": board})


class FakeBoard(Worker):
    """A board that answers after `takes_s`, or does what `behave(key, how many before)` does."""

    def __init__(self, name, behave=None, takes_s=0.002):
        self.name, self.behave, self.takes_s = name, behave, takes_s
        self.asked, self.closes = [], 0
        self.released = threading.Event()

    def measure(self, key):
        self.asked.append(key.subject)
        if self.behave is not None:
            self.behave(key, len(self.asked) - 1)
        if self.released.wait(self.takes_s):
            raise DeviceError("closed")
        return figure(self.name)

    def close(self):
        self.closes += 1
        self.released.set()


def dead(_key, _count):
    raise DeviceError("board: no route to host")


def blocked(board):
    def behave(_key, _count):
        board.released.wait(60)

    return behave


class Heard:
    """What the farm told, and on which thread."""

    def __init__(self):
        self.ended, self.said, self.threads = {}, [], set()

    def on_done(self, key, measurement):
        assert key.subject not in self.ended
        self.ended[key.subject] = measurement
        self.threads.add(threading.current_thread())

    def say(self, text):
        self.said.append(text)
        self.threads.add(threading.current_thread())


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.db"


@pytest.fixture
def add(path):
    def add(subjects):
        with MeasurementStore(path) as store:
            JobTable(store).add("b", map(key, subjects))

    return add


@pytest.fixture
def farm(path, heard):
    def run(workers, **changes):
        usual = {"until": lambda: False, "on_done": heard.on_done, "say": heard.say, "back_off_s": 0.01}
        return run_jobs(path, "b", workers, **{**usual, **changes})

    return run


def stored(path):
    rows = sqlite3.connect(path).execute("SELECT subject, count(*) FROM measurements GROUP BY subject")
    return dict(rows.fetchall())


def names(count):
    return [str(number) for number in range(count)]


def counts(path):
    with MeasurementStore(path) as store:
        return JobTable(store).counts("b")


def test_all_boards_share_the_work(path, add, farm, heard):
    add(names(40))
    boards = [FakeBoard(name, takes_s=0.03) for name in "abcd"]
    outcome = farm(boards)
    assert (outcome.done, outcome.failed, outcome.set_aside, outcome.left) == (40, [], {}, 0)
    assert stored(path) == dict.fromkeys(names(40), 1)
    assert set(heard.ended) == set(names(40)) and all(heard.ended.values())
    assert heard.threads == {threading.current_thread()}
    assert all(board.asked and board.closes for board in boards)


def test_a_board_that_dies_midway_is_set_aside_and_its_jobs_go_to_the_others(path, add, farm, heard):
    add(names(40))
    dying = FakeBoard("dying", lambda k, count: dead(k, count) if count >= 5 else None)

    def leave_it_some(_key, count):
        wait_for(lambda: count < 20 or len(dying.asked) >= 11)

    outcome = farm([dying, FakeBoard("well", leave_it_some)])
    assert outcome.done == 40 and outcome.failed == []
    assert outcome.set_aside == {"dying": "board: no route to host"}
    assert stored(path) == dict.fromkeys(names(40), 1)
    assert [said for said in heard.said if "set aside after 6 failures in a row" in said]


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.002)


def test_a_board_that_must_be_set_up_first_is_set_aside_at_once(path, add, farm, heard):
    add(names(20))

    def untrusted(_key, _count):
        raise DeviceSetupError("board: its host key is not known; run ssh once")

    bare = FakeBoard("bare", untrusted)
    outcome = farm([bare, FakeBoard("well", lambda _key, count: wait_for(lambda: count < 5 or bare.asked))])
    assert outcome.done == 20 and outcome.failed == [] and len(bare.asked) == 1
    assert outcome.set_aside == {"bare": "board: its host key is not known; run ssh once"}
    assert stored(path) == dict.fromkeys(names(20), 1)


def test_a_board_that_comes_back_goes_on(add, farm, heard):
    add(names(10))
    board = FakeBoard("shaky", lambda k, count: dead(k, count) if count in (2, 3, 6, 7) else None)
    assert farm([board]).done == 10
    assert sum("it is tried again" in said for said in heard.said) == 4


def test_a_poisonous_model_fails_and_sets_no_board_aside(path, add, farm, heard):
    add(names(30))

    def poisoned(k, count):
        if k.subject == "7":
            dead(k, count)

    outcome = farm([FakeBoard(name, poisoned, takes_s=0.03) for name in "abcd"], back_off_s=0.5)
    assert outcome.done == 29 and outcome.set_aside == {}
    ((subject, error),) = outcome.failed
    assert subject == "7" and error.startswith("broke ") and "no route to host" in error
    assert heard.ended["7"] is None and "7" not in stored(path)


def test_of_two_boards_a_poisonous_model_breaks_both(add, farm):
    add(names(10))
    boards = [FakeBoard(name, lambda k, n: k.subject == "3" and dead(k, n), 0.03) for name in "ab"]
    outcome = farm(boards, back_off_s=0.5)
    assert outcome.done == 9 and [subject for subject, _ in outcome.failed] == ["3"]


@pytest.mark.parametrize("kind", [MeasurementError, ExportError])
def test_a_model_that_cannot_be_measured_is_the_models_fault(add, farm, heard, kind):
    add(names(10))

    def refusing(k, _count):
        if k.subject in "25":
            raise kind("operator not supported")

    board = FakeBoard("a", refusing)
    outcome = farm([board])
    assert outcome.failed == [("2", "operator not supported"), ("5", "operator not supported")]
    assert outcome.set_aside == {} and outcome.done == 8
    assert board.asked.count("2") == 2
    assert heard.ended["2"] is None and heard.ended["3"] is not None


def test_a_board_on_which_every_model_fails_is_warned_of(add, farm, heard):
    add(names(30))

    def refusing(_key, _count):
        time.sleep(0.005)
        raise MeasurementError("illegal instruction")

    farm([FakeBoard("old", refusing), FakeBoard("new")])
    warned = [said for said in heard.said if "while others measure theirs" in said]
    assert len(warned) == 1 and "board old failed at each of its first" in warned[0]


def test_when_all_boards_die_the_error_says_which_and_why_and_what_was_done_is_kept(path, add, farm):
    add(names(20))
    both_at_work = threading.Barrier(2)

    def switched_off(k, count):
        if count == 4:
            both_at_work.wait(30)
        if count >= 4:
            dead(k, count)

    boards = [FakeBoard(name, switched_off) for name in ("pi-a", "pi-b")]
    with pytest.raises(DeviceError, match=r"12 networks left .*pi-a: board: no route.*pi-b: board: no"):
        farm(boards)
    assert len(stored(path)) == 8 and counts(path) == {"pending": 12, "leased": 0, "done": 8, "failed": 0}
    assert farm([FakeBoard("pi-c")]).done == 12


def test_it_stops_when_told_and_keeps_what_was_begun(path, add, farm, heard):
    add(names(100))
    outcome = farm([FakeBoard("a"), FakeBoard("b")], until=lambda: len(heard.ended) >= 10)
    assert 10 <= outcome.done == len(stored(path)) == len(heard.ended) < 40
    assert outcome.left == 100 - outcome.done
    assert counts(path)["leased"] == 0


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupt_closes_the_boards_and_gives_back_their_jobs(path, add, farm):
    add(names(9))
    boards = [FakeBoard(name, takes_s=60) for name in "ab"]
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        farm(boards, until=lambda: all(board.asked for board in boards) and interrupt())
    assert time.monotonic() - begin < 3
    assert counts(path) == {"pending": 9, "leased": 0, "done": 0, "failed": 0}
    with MeasurementStore(path) as store:
        assert JobTable(store).claim("b", "x", 60).boards_broken == ()


def test_an_interrupt_does_not_wait_for_a_board_that_does_not_let_go(path, add, farm, monkeypatch):
    monkeypatch.setattr("ehdnas.profilers.farm._CLOSE_S", 0.5)
    add(names(3))
    deaf = FakeBoard("deaf")
    let_go = threading.Event()
    deaf.behave = lambda _key, _count: let_go.wait(30)
    with pytest.raises(KeyboardInterrupt):
        farm([deaf], until=lambda: deaf.asked and interrupt())
    assert counts(path) == {"pending": 3, "leased": 0, "done": 0, "failed": 0}
    deaf.released.clear()
    let_go.set()
    time.sleep(0.2)
    assert stored(path) == {}, "it answered after its job was given back"


def test_an_error_in_the_caller_or_in_a_worker_ends_it(path, add, farm):
    add(names(5))

    def broken(_key, _measurement):
        raise RuntimeError("the caller's")

    with pytest.raises(RuntimeError, match="the caller's"):
        farm([FakeBoard("a")], on_done=broken)

    def damaged(_key, _count):
        raise DataError("the model file is damaged")

    with pytest.raises(DataError, match="the model file is damaged"):
        farm([FakeBoard("a", damaged)])
    assert counts(path)["leased"] == 0


def test_a_stalled_board_loses_its_job_and_its_late_answer_is_refused(path, add, farm, heard):
    add(names(2))
    taken_over = threading.Event()
    stalled = FakeBoard("stalled", lambda _key, _count: taken_over.wait(30))

    def take_over(_key, count):
        if count == 0:
            while not stalled.asked:
                time.sleep(0.01)
        else:
            taken_over.set()
            time.sleep(0.4)

    second = FakeBoard("second", take_over)
    outcome = farm([stalled, second], lease_s=0.2)
    assert outcome.done == 2 and list(outcome.set_aside) == ["stalled"]
    assert stored(path) == {"0": 1, "1": 1}
    assert set(second.asked) == {"0", "1"}
    assert any("answered too late" in said for said in heard.said)


def test_a_slow_board_keeps_its_job_beyond_one_lease(path, add, farm):
    add(["slow"])
    boards = [FakeBoard(name, takes_s=0.5) for name in "ab"]
    farm(boards, lease_s=0.2)
    assert sum(len(board.asked) for board in boards) == 1
    assert stored(path) == {"slow": 1}


CONTROLLER = """
import random, sys, time
from pathlib import Path
from ehdnas.core.measurement import Measurement
from ehdnas.core.errors import DeviceError
from ehdnas.profilers.farm import Worker, run_jobs
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import MeasurementStore
class FakeBoard(Worker):
    def __init__(self, name): self.name = name
    def measure(self, key):
        time.sleep(random.uniform(0.005, 0.03))
        if random.random() < 0.02: raise DeviceError("connection lost")
        return Measurement(device="pi4", basis="measured", metrics={"latency_ms": 1.0})
    def close(self): pass
path = Path(sys.argv[1])
with MeasurementStore(path) as store:
    JobTable(store).reopen("b")
print("ready", flush=True)
outcome = run_jobs(path, "b", [FakeBoard(name) for name in "abcd"], until=lambda: False,
    on_done=lambda key, measurement: None, say=lambda text: None, back_off_s=0.01)
assert not outcome.left and not outcome.failed
"""


def test_a_controller_killed_again_and_again_ends_with_every_result_once(path, add):
    add(names(150))
    chance, kills = random.Random(7), 0
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(60 if kills >= 4 else chance.uniform(0.05, 0.25))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        finally:
            process.stdout.close()
    assert process.returncode == 0 and kills >= 3
    assert stored(path) == dict.fromkeys(names(150), 1)
    assert counts(path) == {"pending": 0, "leased": 0, "done": 150, "failed": 0}
