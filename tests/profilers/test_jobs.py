"""Jobs: each goes to one board at a time, and a result and the end of its job are stored together."""

import subprocess
import sys
import threading
import time

import pytest

from ehdnas.core.errors import DataError
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import Key, MeasurementStore

SCOPE = ("pi4", "darts", "s", "int8", "p")


def key(subject: str) -> Key:
    return Key("pi4", "darts", "s", subject, "int8", "p")


def figure(latency_ms: float = 1.0) -> Measurement:
    return Measurement(device="pi4", basis="measured", metrics={"latency_ms": latency_ms})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.db"


@pytest.fixture
def table(path):
    with MeasurementStore(path) as store:
        yield JobTable(store)


def test_jobs_are_added_once_and_claimed_oldest_first(table):
    assert table.add("b", map(key, "cab")) == 3
    assert table.add("b", map(key, "abcd")) == 1
    assert table.add("other", [key("a")]) == 1
    assert table.add("b", []) == 0
    claimed = [table.claim("b", "one", 60).key.subject for _ in range(4)]
    assert claimed == ["c", "a", "b", "d"]
    assert table.claim("b", "one", 60) is None
    assert table.counts("b") == {"pending": 0, "leased": 4, "done": 0, "failed": 0}
    assert not table.is_over("b") and table.is_over("nothing")


def test_a_result_ends_its_job(table):
    table.add("b", [key("a")])
    assert table.finish(table.claim("b", "one", 60), figure(7.0))
    assert table.store.find(key("a")) == figure(7.0)
    assert table.counts("b")["done"] == 1 and table.is_over("b")


def test_a_result_that_cannot_be_stored_does_not_end_its_job(table):
    table.add("b", [key("a")])
    job = table.claim("b", "one", 60)
    with pytest.raises(DataError, match="not finite"):
        table.finish(job, figure(float("nan")))
    assert table.counts("b")["leased"] == 1


def test_after_its_lease_a_job_goes_to_another_and_the_first_is_refused(table):
    table.add("b", [key("a")])
    late = table.claim("b", "slow", 0.01)
    time.sleep(0.05)
    second = table.claim("b", "other", 60)
    assert second.key == late.key and second.token != late.token
    assert not table.finish(late, figure(1.0))
    assert not table.renew(late, 60)
    assert not table.give_back(late, "gone") and not table.fail(late, "gone") and not table.release(late)
    assert table.store.find(key("a")) is None
    assert table.finish(second, figure(2.0))
    assert not table.finish(second, figure(3.0))
    assert [one.metric("latency_ms") for _, one in table.store.all(*SCOPE)] == [2.0]


def test_a_lease_that_ran_out_counts_while_nobody_else_has_the_job(table):
    table.add("b", [key("a")])
    job = table.claim("b", "slow", 0.01)
    time.sleep(0.05)
    assert table.renew(job, 60)
    assert table.claim("b", "other", 60) is None
    assert table.finish(job, figure())


def test_a_job_that_broke_three_boards_fails(table):
    table.add("b", [key("poison")])
    for board, last in (("one", False), ("one", False), ("two", False), ("three", True)):
        assert table.give_back(table.claim("b", board, 60), "no answer") is last
    assert table.claim("b", "four", 60) is None
    assert table.failed("b") == [("poison", "broke one, two, three 4 times: no answer")]


def test_the_only_board_gives_up_a_job_that_broke_it_three_times(table):
    table.add("b", [key("poison")])
    told = [table.give_back(table.claim("b", "one", 60), "no answer", most_boards=1) for _ in range(3)]
    assert told == [False, False, True]


def test_boards_that_were_broken_before_do_not_count(table):
    table.add("b", [key("a")])
    for board in "abcd":
        assert not table.give_back(table.claim("b", board, 60), "no answer", blame=False)
    assert table.claim("b", "e", 60).boards_broken == ()


def test_a_board_takes_last_what_it_gave_back_last(table):
    table.add("b", map(key, "ab"))
    table.give_back(table.claim("b", "one", 60), "no answer")
    assert table.claim("b", "one", 60).key.subject == "b"
    assert table.claim("b", "one", 60).key.subject == "a"


def test_a_model_that_cannot_be_measured_twice_fails(table):
    table.add("b", [key("a")])
    assert not table.fail(table.claim("b", "one", 60), "refused")
    assert table.fail(table.claim("b", "two", 60), "refused again")
    assert table.failed("b") == [("a", "refused again")]
    assert table.reopen("b") == 0
    assert table.reopen("b", failed=True) == 1
    assert table.claim("b", "one", 60).tries == 0


def test_a_successor_takes_over_what_was_leased(table):
    table.add("b", map(key, "ab"))
    old = table.claim("b", "one", 3600)
    assert table.reopen("b") == 1
    assert not table.finish(old, figure())
    assert table.claim("b", "one", 60).key == old.key


def test_what_is_released_is_as_before(table):
    table.add("b", map(key, "ab"))
    assert table.release(table.claim("b", "one", 60))
    again = table.claim("b", "one", 60)
    assert (again.key.subject, again.tries, again.boards_broken) == ("a", 0, ())


def test_threads_never_get_the_same_job(path, table):
    table.add("b", (key(str(number)) for number in range(80)))
    taken = []

    def take():
        with MeasurementStore(path) as store:
            own = JobTable(store)
            while job := own.claim("b", "one", 60):
                taken.append(job.key.subject)
                own.finish(job, figure())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, taken)) == list(range(80))
    assert table.counts("b")["done"] == 80 == len(table.store.all(*SCOPE))


KILLED = """
import os, signal, sys
from pathlib import Path
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import MeasurementStore, INSERT
class Dying:
    def __init__(self, connection): self.connection = connection
    def __getattr__(self, name): return getattr(self.connection, name)
    def execute(self, statement, *values):
        if statement == INSERT: os.kill(os.getpid(), signal.SIGKILL)
        return self.connection.execute(statement, *values)
store = MeasurementStore(Path(sys.argv[1]))
store._connection = Dying(store._connection)
table = JobTable(store)
figure = Measurement(device="pi4", basis="measured", metrics={"latency_ms": 1})
table.finish(table.claim("b", "one", 60), figure)
"""


def test_a_kill_between_a_result_and_the_end_of_its_job_leaves_neither(path, table):
    table.add("b", [key("a")])
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert table.counts("b")["leased"] == 1
    assert table.store.find(key("a")) is None
    assert table.reopen("b") == 1


def test_a_claim_stays_quick_when_most_jobs_are_done(table):
    table.add("b", (key(f"{number:028d}") for number in range(20_000)))
    with table.store.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'done' WHERE id < 19000")
    begin = time.process_time()
    for _ in range(100):
        table.release(table.claim("b", "one", 60))
    assert (time.process_time() - begin) / 100 < 0.005
