"""`ehdnas measurements`: what there is, and its way to another machine."""

import json
import shutil
import sys

import pytest
import typer

from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.store import Key, MeasurementStore

SUBJECT = "4434034004030011103103020300"
SHAPE = "c16x8-32x32-10-cifar"


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The command, also where the application does not list it yet."""
    from ehdnas.cli import app as application
    from ehdnas.cli.measurements import measurements_app

    if not any(one.name == "measurements" for one in application.app.registered_groups):
        fresh = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        fresh.add_typer(measurements_app, name="measurements")
        monkeypatch.setattr(application, "app", fresh)


@pytest.fixture
def add(project):
    def add(subject=SUBJECT, latency_ms=20.0, device="pi4", basis="measured", space="darts"):
        with MeasurementStore(project / ".ehdnas" / "measurements.db") as store:
            key = Key(device, space, SHAPE, subject, "int8", "0123456789abcdef-onnxruntime-t4")
            metrics = {"latency_ms": latency_ms}
            passport = {"host": "pi@secret"}
            store.add(key, Measurement(device=device, basis=basis, metrics=metrics, passport=passport))

    return add


def test_nothing_yet_is_said(project, ehdnas):
    result = ehdnas("measurements")
    assert result.code == 0 and "nothing has been measured here yet" in result.out
    assert json.loads(ehdnas("measurements", "--json").out)["groups"] == []
    assert "run `ehdnas profile` first" in ehdnas("measurements", "export", "x.csv").err
    assert not (project / ".ehdnas").exists()


def test_the_list_fits_a_terminal(add, ehdnas):
    add()
    add("5" * 28, 12.345)
    add(device="ehdnas-pipeline", basis="simulated", latency_ms=0.5)
    for name in ("measurements", "measurements list"):
        out = ehdnas(*name.split()).out
        assert max(map(len, out.splitlines())) <= 80
        assert "pi4, int8, protocol 0123456789abcdef-onnxruntime-t4" in out
        assert "12.3–20" in out and "0.5–0.5" in out
    groups = json.loads(ehdnas("measurements", "--json").out)["groups"]
    assert [(g["device"], g["networks"], g["measured"], g["imported"]) for g in groups] == [
        ("ehdnas-pipeline", 1, 0, 0),
        ("pi4", 2, 2, 0),
    ]


def test_measurements_go_to_another_machine_and_back(project, add, ehdnas):
    add()
    add(device="nano")
    assert json.loads(ehdnas("measurements", "export", "pi.csv", "--device", "pi4", "--json").out) == {
        "version": 1, "command": "measurements", "file": "pi.csv", "exported": 1,
    }  # fmt: skip
    assert "2 measurements" in ehdnas("measurements", "export", "all.csv").out
    assert "secret" not in (project / "all.csv").read_text()
    assert "did you mean 'nano'" in ehdnas("measurements", "export", "x.csv", "--device", "nanno").err
    assert "known before  2" in ehdnas("measurements", "import", "all.csv").out
    shutil.rmtree(project / ".ehdnas")
    result = json.loads(ehdnas("measurements", "import", "all.csv", "--origin", "lab", "--json").out)
    assert (result["added"], result["known"]) == (2, 0)
    assert [g["imported"] for g in json.loads(ehdnas("measurements", "--json").out)["groups"]] == [1, 1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SUBJECT, "9" * 28, "row 2, column 'subject'"),
        (SUBJECT, "DARTS_V2", "not the shortest form"),
        ("20.0", "-20.0", "row 2, column 'metric_latency_ms'"),
    ],
)
def test_a_hostile_file_is_one_line_and_adds_nothing(project, add, ehdnas, old, new, says):
    add()
    assert ehdnas("measurements", "export", "x.csv").code == 0
    shutil.rmtree(project / ".ehdnas")
    file = project / "x.csv"
    file.write_text(file.read_text().replace(old, new))
    result = ehdnas("measurements", "import", "x.csv")
    assert result.code == 1 and says in result.err
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert json.loads(ehdnas("measurements", "--json").out)["groups"] == []


def test_a_file_without_rows_is_refused(project, add, ehdnas):
    add()
    assert ehdnas("measurements", "export", "x.csv").code == 0
    file = project / "x.csv"
    for text in ("", file.read_text().splitlines()[0] + "\n"):
        file.write_text(text)
        result = ehdnas("measurements", "import", "x.csv")
        assert result.code == 1 and "holds no rows; nothing was imported" in result.err


def test_somebodys_own_table_is_told_how(project, ehdnas):
    (project / "x.csv").write_text("arch,ms\nRESNET,5\n")
    result = ehdnas("measurements", "import", "x.csv")
    assert result.code == 1 and "--column METRIC=COLUMN" in result.err


def test_networks_of_a_space_that_is_not_installed_are_kept(add, ehdnas):
    add("[/b]whatever", space="[red]theirs")
    assert ehdnas("measurements", "export", "x.csv").code == 0
    assert ehdnas("measurements", "import", "x.csv").code == 0
    assert "[red]theirs" in ehdnas("measurements").out


def test_listing_loads_nothing_heavy(project):
    import subprocess

    code = (
        "import sys; from ehdnas.pipeline.measurements import list_groups; "
        "from ehdnas.workspace import find_workspace; list_groups(find_workspace()); "
        "import ehdnas.cli.measurements; "
        "print(sorted({'torch', 'tensorflow', 'onnx', 'pyarrow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
