"""What every profiler must do: those of the simulated devices, and of each way to a device that is timed."""

import sys
from dataclasses import replace

import adb_stand_in
import pytest

from ehdnas.core.device import Device, read_device
from ehdnas.core.errors import DataError, DeviceError, EhdnasError, MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.base import Check, FileProfiler, TableProfiler, find_profiler
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.devices import builtin_devices
from ehdnas.profilers.protocol import Protocol

pytest_plugins = ("sshd_fixtures",)

BRIEF = Protocol("brief", warmup_runs=1, warmup_s=0, runs=5, min_s=0.01, max_s=5, processes=2)
ONCE = replace(BRIEF, processes=1)
CONV = Layer("conv", "conv", 16, 16, 32, 32, (3, 3), (1, 1), (1, 1))
SUFFIXES = {"litert": ".tflite", "onnxruntime": ".onnx"}
BUILT_IN = {name: read_device(path) for name, path in builtin_devices().items()}
SIMULATED = [device for device in BUILT_IN.values() if device.simulated]


def reached(name: str, host: str) -> Device:
    """A built-in device at the end of a loopback connection, with the Python of these tests."""
    return BUILT_IN[name].model_copy(update={"host": host, "options": {"python": sys.executable}})


TIMED = {
    "local": BUILT_IN["local"],
    "local-onnx": BUILT_IN["local-onnx"],
    "ssh": reached("linux", "board"),
    "adb": reached("android", "emulator-5554"),
}


@pytest.fixture(params=TIMED)
def timed(request, tmp_path_factory, monkeypatch):
    """The profiler of a device that is timed, and can be reached."""
    if request.param == "adb":
        adb_stand_in.install(tmp_path_factory.mktemp("adb"), monkeypatch)
    if request.param == "ssh":
        home = tmp_path_factory.mktemp("home")
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh" / "config").write_text(request.getfixturevalue("sshd").config.read_text())
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with find_profiler(TIMED[request.param]) as profiler:
        yield profiler


def by_name(devices) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("device", devices, ids=lambda device: device.name)


@by_name(BUILT_IN.values())
def test_every_built_in_device_has_a_profiler_once_it_has_a_host(device):
    if device.kind == "ssh":
        with pytest.raises(DeviceError, match=f"'{device.name}' has no host"):
            find_profiler(device)
        device = device.model_copy(update={"host": "me@board"})
    profiler = find_profiler(device)
    assert isinstance(profiler, FileProfiler) != isinstance(profiler, TableProfiler)
    assert isinstance(profiler, TableProfiler) == device.simulated
    assert profiler.device == device


def are_checks(checks) -> bool:
    assert checks and all(isinstance(check, Check) and check.name for check in checks)
    return all(check.passed or check.mend for check in checks)


@by_name(SIMULATED)
def test_check_returns_checks_and_never_raises(device):
    assert are_checks(find_profiler(device).check())


def test_check_of_what_is_timed_ends_with_a_run(timed):
    checks = timed.check()
    assert are_checks(checks)
    assert checks[0].name == "reachable" and checks[-1].name == "smoke test"
    assert checks[0].passed and checks[-1].passed


def test_check_of_what_cannot_be_reached_says_what_mends_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for device in (reached("linux", "127.0.0.1:1"), reached("android", "")):
        with find_profiler(device) as profiler:
            (check,) = profiler.check()
        assert are_checks([check]) and (check.name, check.passed) == ("reachable", False)


def well_formed(measured: Measurement, device) -> bool:
    assert measured.device == device.name
    assert measured.metric("latency_ms") > 0 and measured.metric("throughput_fps") > 0
    return Measurement.model_validate_json(measured.model_dump_json()) == measured


def test_a_file_is_measured(timed, tmp_path):
    path = tmp_path / f"relu{SUFFIXES[timed.device.runtime]}"
    path.write_bytes(smoke_model(path.suffix))
    measured = timed.measure(path, BRIEF)
    assert well_formed(measured, timed.device) and measured.basis == "measured"
    assert len(measured.samples_ms) == BRIEF.processes == measured.statistics.processes
    assert all(len(runs) >= BRIEF.runs for runs in measured.samples_ms)
    assert len(measured.passport["model_sha256"]) == 64
    assert measured.passport["kind"] == timed.device.kind


def test_a_bad_file_is_one_line(timed, tmp_path):
    suffix = SUFFIXES[timed.device.runtime]
    damaged, other = tmp_path / f"damaged{suffix}", tmp_path / "net.bin"
    damaged.write_bytes(b"no model")
    other.write_bytes(b"no model")
    for path, error in (
        (damaged, MeasurementError),
        (other, UsageError),
        (tmp_path / f"no{suffix}", DataError),
    ):
        with pytest.raises(error) as caught:
            timed.measure(path, BRIEF)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_what_was_closed_can_be_used_again(timed, tmp_path):
    path = tmp_path / f"relu{SUFFIXES[timed.device.runtime]}"
    path.write_bytes(smoke_model(path.suffix))
    for _ in range(2):
        assert timed.measure(path, ONCE).metric("latency_ms") > 0
        timed.close()
        timed.close()


@by_name(SIMULATED)
def test_a_table_is_simulated_and_the_same_each_time(device):
    profiler, table = find_profiler(device), LayerTable((CONV,))
    found = profiler.simulate(table)
    assert well_formed(found, device) and found.basis == "simulated"
    assert found.samples_ms == [] and found.statistics is None
    assert found == profiler.simulate(table)


@by_name(SIMULATED)
def test_more_work_takes_longer(device):
    profiler = find_profiler(device)
    one, two = (profiler.simulate(LayerTable((CONV,) * n)).metric("latency_ms") for n in (1, 2))
    assert two > one


@by_name(SIMULATED)
def test_what_is_not_modelled_is_named_and_never_free(device):
    profiler = find_profiler(device)
    for table in (
        LayerTable((CONV,), (("aten.gelu", "act"),)),
        LayerTable((Layer("x", "aten.gelu", 1, 1, 1, 1),)),
    ):
        with pytest.raises(EhdnasError, match=r"aten\.gelu"):
            profiler.simulate(table)
