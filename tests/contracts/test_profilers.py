"""What every profiler must do, asked of the profiler of every built-in device that can be reached."""

import pytest

from ehdnas.core.device import read_device
from ehdnas.core.errors import DataError, EhdnasError, MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.base import Check, FileProfiler, TableProfiler, find_profiler
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.devices import builtin_devices
from ehdnas.profilers.protocol import Protocol

BRIEF = Protocol("brief", warmup_runs=1, warmup_s=0, runs=5, min_s=0.01, max_s=5, processes=2)
CONV = Layer("conv", "conv", 16, 16, 32, 32, (3, 3), (1, 1), (1, 1))
SUFFIXES = {"litert": ".tflite", "onnxruntime": ".onnx"}


def reachable() -> list:
    devices = [read_device(path) for path in builtin_devices().values()]
    return [device for device in devices if device.kind != "ssh"]


DEVICES = reachable()
TIMED = [device for device in DEVICES if not device.simulated]
SIMULATED = [device for device in DEVICES if device.simulated]


def by_name(devices) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("device", devices, ids=lambda device: device.name)


@by_name(DEVICES)
def test_a_profiler_is_of_one_of_the_two_sorts(device):
    profiler = find_profiler(device)
    assert isinstance(profiler, FileProfiler) != isinstance(profiler, TableProfiler)
    assert isinstance(profiler, TableProfiler) == device.simulated
    assert profiler.device == device


@by_name(DEVICES)
def test_check_returns_checks_and_never_raises(device):
    checks = find_profiler(device).check()
    assert checks and all(isinstance(check, Check) and check.name for check in checks)
    assert all(check.passed or check.mend for check in checks)


def well_formed(measured: Measurement, device) -> bool:
    assert measured.device == device.name
    assert measured.metric("latency_ms") > 0 and measured.metric("throughput_fps") > 0
    return Measurement.model_validate_json(measured.model_dump_json()) == measured


@by_name(TIMED)
def test_a_file_is_measured(device, tmp_path):
    path = tmp_path / f"relu{SUFFIXES[device.runtime]}"
    path.write_bytes(smoke_model(path.suffix))
    measured = find_profiler(device).measure(path, BRIEF)
    assert well_formed(measured, device) and measured.basis == "measured"
    assert len(measured.samples_ms) == BRIEF.processes == measured.statistics.processes
    assert all(len(runs) >= BRIEF.runs for runs in measured.samples_ms)
    assert len(measured.passport["model_sha256"]) == 64


@by_name(TIMED)
def test_a_bad_file_is_one_line(device, tmp_path):
    profiler, suffix = find_profiler(device), SUFFIXES[device.runtime]
    damaged, other = tmp_path / f"damaged{suffix}", tmp_path / "net.bin"
    damaged.write_bytes(b"no model")
    other.write_bytes(b"no model")
    for path, error in (
        (damaged, MeasurementError),
        (other, UsageError),
        (tmp_path / f"no{suffix}", DataError),
    ):
        with pytest.raises(error) as caught:
            profiler.measure(path, BRIEF)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


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
