"""The store: what goes in comes out, whatever else writes, breaks or dies."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from ehdnas.core.errors import DataError, EhdnasError
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.profilers.store.mounts import network_file_system
from ehdnas.profilers.store.store import Key, MeasurementStore

KEY = Key("pi4", "darts", "c16x8-32x32-10", "4434034004030011103103020300", "int8", "0123456789abcdef")
SCOPE = ("pi4", "darts", "c16x8-32x32-10", "int8", "0123456789abcdef")


def measurement(latency_ms: float = 20.0, device: str = "pi4") -> Measurement:
    samples = [[latency_ms, latency_ms + 0.25], [latency_ms, latency_ms]]
    return Measurement(
        device=device,
        basis="measured",
        metrics={"latency_ms": latency_ms, "throughput_fps": 1000 / latency_ms},
        statistics=Statistics.over(samples),
        samples_ms=samples,
        passport={"model_sha256": "f00d", "governor": "performance", "temperature_c": {"0:cpu": 51.5}},
        flags=["spread 8 %"],
    )


def simulated(latency_ms: float) -> Measurement:
    return Measurement(device="pi4", basis="simulated", metrics={"latency_ms": latency_ms})


def key(subject: str, **changes: str) -> Key:
    return Key(**{**KEY.__dict__, "subject": subject, **changes})


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "deep" / "measurements.db"


@pytest.fixture
def store(path):
    with MeasurementStore(path) as opened:
        yield opened


def test_what_is_added_is_found_again_whole(store, path):
    assert store.find(KEY) is None
    store.add(KEY, measurement())
    assert store.find(KEY) == measurement()
    with MeasurementStore(path) as other:
        assert other.find(KEY) == measurement()


@pytest.mark.parametrize("field", list(Key.__dataclass_fields__))
def test_every_part_of_the_key_counts(store, field):
    store.add(KEY, measurement())
    assert store.find(Key(**{**KEY.__dict__, field: "other"})) is None


def test_the_latest_wins_and_the_earlier_stays(store, path):
    for latency_ms in (20.0, 30.0):
        store.add(KEY, measurement(latency_ms))
    assert store.find(KEY).metric("latency_ms") == 30.0
    rows = (
        sqlite3.connect(path).execute("SELECT model_sha256, created_at, basis FROM measurements").fetchall()
    )
    assert [(digest, basis) for digest, _, basis in rows] == [("f00d", "measured")] * 2
    assert all(datetime.fromisoformat(created).utcoffset().total_seconds() == 0 for _, created, _ in rows)


def test_all_gives_the_latest_of_each_subject_in_the_order_of_adding(store):
    store.add_many([(key(name), simulated(i + 1.0)) for i, name in enumerate("cab")])
    store.add(key("c"), simulated(9.0))
    store.add(key("d", precision="fp32"), simulated(5.0))
    found = [(subject, one.metric("latency_ms")) for subject, one in store.all(*SCOPE)]
    assert found == [("a", 2.0), ("b", 3.0), ("c", 9.0)]
    assert store.all("nano", *SCOPE[1:]) == []


def test_devices_are_listed(store):
    store.add(KEY, measurement())
    store.add(key("x", device="local"), measurement(device="local"))
    assert store.devices() == ["local", "pi4"]


def test_tens_of_thousands_of_labels_a_second(store):
    pairs = [(key(f"{i:028d}"), simulated(1.0 + i)) for i in range(20_000)]
    begin = time.process_time()
    store.add_many(pairs)
    assert time.process_time() - begin < 2.0
    assert len(store.all(*SCOPE)) == 20_000


def test_many_are_added_together_or_not_at_all(store):
    bad = Measurement(device="pi4", basis="simulated", metrics={"latency_ms": float("inf")})
    with pytest.raises(DataError, match="'b' holds a number that is not finite"):
        store.add_many([(key("a"), simulated(1.0)), (key("b"), bad)])
    assert store.all(*SCOPE) == []


def test_nothing_is_ever_changed_or_deleted(store, path):
    store.add(KEY, measurement())
    connection = sqlite3.connect(path)
    for statement in ("UPDATE measurements SET device = 'x'", "DELETE FROM measurements"):
        with pytest.raises(sqlite3.IntegrityError, match="measurements are never"):
            connection.execute(statement)


WRITER = """
import sys
from pathlib import Path
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.store import Key, MeasurementStore
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with MeasurementStore(path) as store:
    for index in range(count):
        key = Key("pi4", "darts", "s", f"{name}-{index}", "int8", "p")
        store.add(key, Measurement(device="pi4", basis="simulated", metrics={"latency_ms": 1.0 + index}))
        print(index, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_lose_nothing(path):
    # They also create the file at once: none of them finds it there.
    writers = [writer(path, name, 40) for name in "abcd"]
    for one in writers:
        one.communicate(timeout=120)
    assert [one.returncode for one in writers] == [0] * 4
    with MeasurementStore(path) as store:
        subjects = [subject for subject, _ in store.all("pi4", "darts", "s", "int8", "p")]
    assert sorted(subjects) == sorted(f"{name}-{index}" for name in "abcd" for index in range(40))


def test_a_kill_in_the_middle_loses_nothing_that_was_finished(path):
    with writer(path, "k", 1_000_000) as process:
        said = [process.stdout.readline() for _ in range(30)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    finished = [int(line) for line in said if line.endswith("\n")]
    with MeasurementStore(path) as store:
        subjects = [subject for subject, _ in store.all("pi4", "darts", "s", "int8", "p")]
        store.add(KEY, measurement())
    assert subjects[: len(finished)] == [f"k-{index}" for index in finished]
    assert len(subjects) - len(finished) in (0, 1)  # the last may have been written and not yet announced


def test_a_database_of_a_newer_version_says_to_upgrade(store, path):
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(DataError, match=r"measurements\.db was written by a newer version .* upgrade with"):
        MeasurementStore(path)


SCHEMA_1 = (
    """CREATE TABLE measurements (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL, space TEXT NOT NULL, shape TEXT NOT NULL, subject TEXT NOT NULL,
        precision TEXT NOT NULL, protocol TEXT NOT NULL,
        model_sha256 TEXT NOT NULL, created_at TEXT NOT NULL, basis TEXT NOT NULL,
        metrics TEXT NOT NULL, statistics TEXT NOT NULL, samples_ms TEXT NOT NULL,
        passport TEXT NOT NULL, flags TEXT NOT NULL)""",
    "CREATE INDEX by_key ON measurements (device, space, shape, precision, protocol, subject, id)",
    """CREATE TRIGGER no_update BEFORE UPDATE ON measurements
        BEGIN SELECT RAISE(ABORT, 'measurements are never changed'); END""",
    """CREATE TRIGGER no_delete BEFORE DELETE ON measurements
        BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END""",
    "PRAGMA user_version = 1",
)


@pytest.fixture
def schema_1(path) -> Path:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        for statement in SCHEMA_1:
            connection.execute(statement)
        for subject in "ab":
            values = (*SCOPE[:3], subject, *SCOPE[3:], "f00d", "2025-01-01T00:00:00+00:00", "measured")
            values += ('{"latency_ms": 7.0}', "null", "[]", "{}", "[]")
            connection.execute(f"INSERT INTO measurements VALUES (NULL, {', '.join('?' * 14)})", values)
    connection.close()
    return path


def layout(path: Path) -> set[tuple[str, str]]:
    rows = sqlite3.connect(path).execute("SELECT name, type FROM sqlite_master WHERE sql IS NOT NULL")
    return set(rows.fetchall())


def test_a_database_of_schema_1_is_brought_up_to_date(schema_1, tmp_path):
    with MeasurementStore(schema_1) as store, MeasurementStore(tmp_path / "new.db"):
        assert store.find(key("a")).metric("latency_ms") == 7.0
        store.add(KEY, measurement())
    connection = sqlite3.connect(schema_1)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    rows = connection.execute("SELECT uid, origin FROM measurements").fetchall()
    assert len({uid for uid, _ in rows}) == 3 and {len(uid) for uid, _ in rows} == {32}
    assert {origin for _, origin in rows} == {""}
    with pytest.raises(sqlite3.IntegrityError, match="measurements are never changed"):
        connection.execute("UPDATE measurements SET uid = 'x'")
    assert layout(schema_1) == layout(tmp_path / "new.db")


def test_a_migration_that_breaks_off_changes_nothing(schema_1, monkeypatch):
    from ehdnas.profilers.store import schema

    before = layout(schema_1)
    monkeypatch.setattr(schema, "_FROM_1", (*schema._FROM_1[:5], "SELECT no_such_function()"))
    with pytest.raises(EhdnasError, match="no such function"):
        MeasurementStore(schema_1)
    assert layout(schema_1) == before
    monkeypatch.undo()
    with MeasurementStore(schema_1) as store:
        assert len(store.all(*SCOPE)) == 2


def test_processes_that_migrate_at_once_agree(schema_1):
    writers = [writer(schema_1, name, 5) for name in "abc"]
    for one in writers:
        one.communicate(timeout=120)
    assert [one.returncode for one in writers] == [0] * 3


def test_a_damaged_database_says_so(store, path):
    store.add_many([(key(f"{i:028d}"), measurement(i + 1.0)) for i in range(200)])
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with (
        pytest.raises(DataError, match=r"measurements\.db is damaged .* restore a copy"),
        MeasurementStore(path) as bad,
    ):
        bad.all(*SCOPE)


def test_what_is_no_database_is_not_touched(path):
    path.parent.mkdir()
    path.write_bytes(b"my notes, at least a hundred bytes of them " * 5)
    with pytest.raises(DataError, match="is damaged"):
        MeasurementStore(path)
    assert path.read_bytes().startswith(b"my notes")


def test_another_programs_database_is_not_touched(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(DataError, match="some other program's database"):
        MeasurementStore(path)


@pytest.mark.parametrize(
    "metrics", ['{"latency_ms": "soon"}', "{", "[[1]]", '{"latency_ms": null}', "[" * 100_000]
)
def test_a_hostile_row_is_one_line(store, path, metrics):
    store.close()
    with sqlite3.connect(path) as connection:
        values = (*SCOPE[:3], "evil", *SCOPE[3:], "", "", "measured", metrics, "null", "[]", "{}", "[]")
        connection.execute(f"INSERT INTO measurements VALUES (NULL, {', '.join('?' * 14)}, '', NULL)", values)
    with MeasurementStore(path) as opened, pytest.raises(DataError, match="measurement of 'evil' is damaged"):
        opened.all(*SCOPE)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EhdnasError, match=r"cannot write .*choose a writable folder"):
        MeasurementStore(tmp_path / "file" / "measurements.db")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /home nfs4 rw 0 0
/dev/sdb1 /home/me/fast xfs rw 0 0
me@host: /mnt/my\\040board fuse.sshfs rw 0 0
//nas/share /mnt/nas cifs rw 0 0
portal /run/portal fuse.portal rw 0 0
short
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv", None),
        ("/home/me/work", "nfs4"),
        ("/home/me/fast/work", None),
        ("/home/me/faster", "nfs4"),
        ("/mnt/my board/work", "fuse.sshfs"),
        ("/mnt/nas", "cifs"),
        ("/run/portal/doc", None),
    ],
)
def test_network_file_systems_are_recognised(tmp_path, folder, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert network_file_system(Path(folder), mounts) == kind


def test_a_store_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs rw 0 0\n")
    real = network_file_system
    monkeypatch.setattr(
        "ehdnas.profilers.store.connection.network_file_system", lambda folder: real(folder, mounts)
    )
    with pytest.raises(EhdnasError, match=r"network file system \(nfs\).* put the workspace on a local disk"):
        MeasurementStore(tmp_path / "measurements.db")
    assert not (tmp_path / "measurements.db").exists()
