"""Exchange: what is exported is imported whole and once; what cannot be right is refused, row and column."""

import csv
import importlib.util
import json
import time

import pytest

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.profilers.store.exchange import export, import_
from ehdnas.profilers.store.store import Key, MeasurementStore

PARQUET = importlib.util.find_spec("pyarrow") is not None
SCOPE = ("pi4", "darts", "s", "int8", "p")
PASSPORT = {
    "model_sha256": "f00d", "governor": "performance", "host": "pi@10.0.0.7",
    "before": [{"load": 0.25, "hostname": "bench-3", "serial": "abc"}], "via": "pi@10.0.0.7",
    "seen": ["bench-3", "ok"],
}  # fmt: skip


def key(subject: str, **changes: str) -> Key:
    usual = {"device": "pi4", "space": "darts", "shape": "s", "precision": "int8", "protocol": "p"}
    return Key(subject=subject, **{**usual, **changes})


def measured(latency_ms: float = 20.1, **changes) -> Measurement:
    samples = [[latency_ms, latency_ms / 3], [latency_ms, latency_ms]]
    usual = {
        "device": "pi4", "basis": "measured", "metrics": {"latency_ms": latency_ms, "load_ms": 0.1 + 0.2},
        "statistics": Statistics.over(samples), "samples_ms": samples,
        "passport": {"governor": "performance"}, "flags": ["spread 8 %", 'a "quote", a comma'],
    }  # fmt: skip
    return Measurement(**{**usual, **changes})


def simulated(latency_ms: float = 1.0) -> Measurement:
    return Measurement(device="pi4", basis="simulated", metrics={"latency_ms": latency_ms})


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def open_store(name):
        opened.append(MeasurementStore(tmp_path / name / "m.db"))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def here(open_store):
    store = open_store("here")
    store.add_many([(key("a"), measured()), (key("b"), simulated()), (key("a"), measured(30.5))])
    return store


@pytest.fixture
def there(open_store):
    return open_store("there")


@pytest.fixture(
    params=[".csv", pytest.param(".parquet", marks=pytest.mark.skipif(not PARQUET, reason="no pyarrow"))]
)
def file(request, tmp_path):
    return tmp_path / f"board-three{request.param}"


@pytest.fixture
def sheet(here, tmp_path):
    """An exported CSV file, as rows to change and write back."""
    path = tmp_path / "sheet.csv"
    export(here, path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    def write(number=None, column=None, value=None, columns=None):
        if column is not None:
            rows[number][column] = value
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns or list(rows[0]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    write.rows = rows
    return write


def origins(store):
    return [origin for (origin,) in store.select("SELECT DISTINCT origin FROM measurements ORDER BY origin")]


def test_what_is_exported_is_imported_whole_and_only_once(here, there, file):
    assert export(here, file) == 3
    assert import_(there, file) == (3, 0)
    assert import_(there, file, "again") == (0, 3)
    assert import_(here, file) == (0, 3)
    assert there.all(*SCOPE) == here.all(*SCOPE)
    assert there.find(key("a")) == measured(30.5)
    columns = "uid, created_at, model_sha256, basis, samples_ms, statistics"
    rows = [list(store.select(f"SELECT {columns} FROM measurements")) for store in (here, there)]
    assert rows[0] == rows[1]
    assert origins(there) == ["board-three"]


def test_the_files_of_two_machines_merge(here, there, file, open_store, tmp_path):
    there.add(key("c"), measured(5.0))
    both = open_store("both")
    other = tmp_path / "other.csv"
    export(here, file)
    export(there, other)
    import_(both, file)
    import_(both, other)
    merged = tmp_path / "merged.csv"
    export(both, merged)
    assert import_(here, merged) == (1, 3)
    assert origins(both) == ["board-three", "other"]


def test_what_was_measured_here_goes_before_what_was_imported(here, there, file):
    export(here, file)
    there.add(key("a"), measured(7.0))
    import_(there, file)
    assert there.find(key("a")).metric("latency_ms") == 7.0
    assert there.find(key("b")) == simulated()
    found = {subject: one.metric("latency_ms") for subject, one in there.all(*SCOPE)}
    assert found == {"a": 7.0, "b": 1.0}
    (group,) = there.groups()
    assert (group.networks, group.measured, group.imported) == (2, 1, 2)
    assert (group.fastest_ms, group.slowest_ms) == (1.0, 30.5)


def test_a_device_can_be_exported_alone(here, file, there):
    here.add(key("z", device="nano"), measured(device="nano"))
    assert export(here, file, "nano") == 1
    import_(there, file)
    assert there.devices() == ["nano"]


def test_an_empty_store_makes_an_empty_file(there, file, here):
    assert export(there, file) == 0
    assert import_(here, file) == (0, 0)


def test_passports_leave_out_who_and_where(there, tmp_path, open_store):
    there.add(key("a"), measured(passport=PASSPORT))
    path, whole = tmp_path / "shared.csv", tmp_path / "whole.csv"
    export(there, path)
    text = path.read_text()
    assert not [word for word in ("10.0.0.7", "bench-3", "abc", "hostname") if word in text]
    left = {
        "model_sha256": "f00d", "governor": "performance", "before": [{"load": 0.25}], "seen": ["ok"],
    }  # fmt: skip
    other = open_store("other")
    import_(other, path)
    assert other.find(key("a")).passport == left
    export(there, whole, raw=True)
    assert "10.0.0.7" in whole.read_text()


def test_no_cell_is_a_formula_to_a_spreadsheet(there, here, tmp_path):
    for name in ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "'quoted"):
        there.add(key(name), simulated())
    path = tmp_path / "x.csv"
    export(there, path)
    with path.open(newline="") as stream:
        assert all(row["subject"].startswith("'") for row in csv.DictReader(stream))
    assert import_(here, path) == (5, 0)
    assert here.find(key("=cmd|' /C calc'!A0")) == simulated()


BAD = [
    ("uid", "", "is empty"),
    ("uid", "F" * 32, "is not 32 hex digits"),
    ("device", "", "is empty"),
    ("device", "pi\x1b[2J", "printable"),
    ("subject", "x" * 501, "longer than 500"),
    ("basis", "guessed", "neither measured nor simulated"),
    ("created_at", "yesterday", "no ISO date"),
    ("metric_latency_ms", "", "is not above 0"),
    ("metric_latency_ms", "-1", "is not above 0"),
    ("metric_latency_ms", "nan", "is not finite"),
    ("metric_latency_ms", "1e999", "is not finite"),
    ("metric_latency_ms", "soon", "'soon' is no number"),
    ("metric_load_ms", "inf", "is not finite"),
    ("median_ms", "0", "is wrong"),
    ("runs", "1.5", "is wrong"),
    ("spread", "", "is wrong"),
    ("flags", "{}", "is not a list of texts"),
    ("flags", "", "is empty"),
    ("flags", '["\\u001b[2J"]', "is not a list of texts"),
    ("passport", "[1]", "is not an object"),
    ("passport", '{"a": NaN}', "not valid JSON"),
    ("passport", '{"a": 1e999}', "not valid JSON"),
    ("passport", "[" * 100_000, "not valid JSON"),
    ("passport", '{"a": "' + "x" * 1_000_000 + '"}', "longer than 1000000"),
    ("samples_ms", "[[1], 2]", "list of lists"),
    ("samples_ms", "[[-1]]", "list of lists"),
    ("samples_ms", "[[true]]", "list of lists"),
    ("samples_ms", "[[" + "1," * 1_000_000 + "1]]", "1000000 at most"),
]


@pytest.mark.parametrize(("column", "value", "says"), BAD, ids=range(len(BAD)))
def test_a_row_that_cannot_be_right_is_named_and_nothing_is_imported(sheet, there, column, value, says):
    path = sheet(2, column, value)
    with pytest.raises(DataError) as caught:
        import_(there, path)
    assert f"sheet.csv, row 4, column '{column}': " in str(caught.value)
    assert says in str(caught.value) and len(str(caught.value)) < 400
    assert there.groups() == []


def test_columns_that_are_missing_unknown_or_double_are_refused(sheet, there, tmp_path):
    columns = list(sheet.rows[0])
    with pytest.raises(DataError, match=r"row 1: no column precision, passport"):
        import_(there, sheet(columns=[one for one in columns if one not in ("precision", "passport")]))
    for row in sheet.rows:
        row["command"] = "x"
    with pytest.raises(DataError, match="unknown column 'command'"):
        import_(there, sheet(columns=[*columns, "command"]))
    path = sheet(columns=columns)
    path.write_text("uid," + path.read_text())
    with pytest.raises(DataError, match="two columns 'uid'"):
        import_(there, path)


def test_files_that_are_no_table_are_one_line(there, tmp_path):
    for name, data, says in (
        ("a.csv", b"\xff\xfe\x00", "no CSV file"),
        ("b.csv", b"uid,device\n1\n", "row 2: 1 cells where there are 2 columns"),
        ("c.csv", b'uid\n"1', "no CSV file"),
        ("d.xlsx", b"", "handed on as .csv or .parquet"),
        *([("e.parquet", b"PAR1 no", "no Parquet file")] if PARQUET else []),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(EhdnasError, match=says):
            import_(there, tmp_path / name)
    with pytest.raises(DataError, match="is not a file"):
        import_(there, tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="the origin"):
        import_(there, tmp_path / "a.csv", "x\n")
    assert there.groups() == []


def test_without_pyarrow_it_says_what_to_install(here, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'ehdnas\[parquet\]'"):
        export(here, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_a_subject_that_the_caller_refuses_is_named(sheet, there):
    def check(space, subject):
        if subject == "b":
            raise UsageError("no genotype")

    with pytest.raises(DataError, match="row 3, column 'subject': no genotype; nothing was imported"):
        import_(there, sheet(), check=check)
    assert there.groups() == []


def test_a_damaged_store_leaves_no_file(here, tmp_path):
    with here.transaction() as connection:
        connection.execute(
            "INSERT INTO measurements SELECT NULL, device, space, shape, 'evil', precision, protocol, "
            "model_sha256, created_at, basis, '{', statistics, samples_ms, passport, flags, '', 'u' "
            "FROM measurements LIMIT 1"
        )
    with pytest.raises(DataError, match="a measurement is damaged"):
        export(here, tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    assert len(here.groups()) == 1


def test_thousands_of_rows_take_seconds(there, here, file):
    many = measured(passport={**PASSPORT, "before": [json.loads(json.dumps(PASSPORT))] * 3})
    there.add_many([(key(f"{number:028d}"), many) for number in range(4_000)])
    begin = time.process_time()
    assert export(there, file) == 4_000
    assert import_(here, file) == (4_000, 0)
    assert time.process_time() - begin < 5
