"""`run` looks at the devices first, as `doctor` does."""

import pytest
from edgetpu_programs import COMPILER, install

from ehdnas.core.errors import DeviceError
from ehdnas.core.export_options import ExportOptions
from ehdnas.pipeline import health
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.health import compiler_checks, require_healthy
from ehdnas.pipeline.reporter import Silent
from ehdnas.profilers.base import Check
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace

HOT = Check("temperature", False, "81 °C", "let it cool", advice=True)
ABSENT = Check("interpreter", False, "none there", "ehdnas devices install local")
FINE = Check("python", True, "3.11")


class Told(Silent):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture
def looked_at(tmp_path, monkeypatch):
    """Return what is warned of where a device's checks are these."""

    def look(*checks, device="local"):
        class Stub:
            def __init__(self, board):
                self.board = board

            def check(self):
                return list(checks)

        monkeypatch.setattr(health, "find_profiler", Stub)
        told = Told()
        require_healthy(Context(Settings(device=device), Workspace(tmp_path), told))
        return told.warned

    return look


def test_what_makes_figures_worse_is_warned_of(looked_at):
    assert looked_at(FINE, HOT) == ["doctor: local: temperature: 81 °C; let it cool"]
    assert looked_at(FINE) == []


def test_what_stands_in_the_way_stops_with_what_mends_it(looked_at):
    with pytest.raises(DeviceError, match="local: interpreter: none there; ehdnas devices install local"):
        looked_at(HOT, ABSENT)


def test_a_simulated_device_has_nothing_to_look_at(looked_at):
    assert looked_at(ABSENT, device="ehdnas-generic") == []


def test_a_command_for_a_board_that_has_no_host_says_so_before_any_data_are_loaded(project, ehdnas):
    (project / "empty").mkdir()
    result = ehdnas("run", "--device", "pi4", "--data", "images:./empty")
    assert result.code == 4 and "has no host" in result.err


def test_the_compiler_of_an_edge_tpu_is_looked_for_where_the_settings_say(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    coral = find_device("coral")
    assert compiler_checks(find_device("pi4"), ExportOptions()) == []
    (none,) = compiler_checks(coral, ExportOptions())
    assert not none.passed and "no edgetpu_compiler on PATH" in none.detail and "docker:IMAGE" in none.mend
    (no_engine,) = compiler_checks(coral, ExportOptions(compiler="docker:coral"))
    assert not no_engine.passed and "neither docker nor podman" in no_engine.detail
    install(tmp_path, "edgetpu_compiler", COMPILER)
    (there,) = compiler_checks(coral, ExportOptions())
    assert there.passed and there.detail == "Edge TPU Compiler version 16.0.384591198"
