"""The local device: real processes, and what becomes of them when something goes wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ehdnas.core.device import Device, parse_device
from ehdnas.core.errors import DataError, DeviceError, DeviceSetupError, MeasurementError, UsageError
from ehdnas.core.files import sha256
from ehdnas.profilers import agent
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.local import LocalProfiler
from ehdnas.profilers.protocol import Protocol


def test_both_formats_are_measured_whatever_the_runtime(local, model, brief):
    measured = LocalProfiler(local).measure(model, brief)
    assert measured.basis == "measured" and measured.device == "local"
    assert measured.statistics.processes == 2 == len(measured.samples_ms)
    assert measured.metric("latency_ms") == measured.statistics.median_ms > 0
    assert measured.metric("throughput_fps") == pytest.approx(1000 / measured.metric("latency_ms"))
    assert measured.passport["model_sha256"] == sha256(model)
    assert measured.passport["protocol"]["processes"] == 2
    assert measured.passport["rounds"] in (1, 2)


def test_threads_come_from_the_device(local, model, brief):
    two = local.model_copy(update={"threads": 2})
    assert LocalProfiler(two).measure(model, brief).passport["threads"] == 2


def test_an_unknown_suffix_and_a_missing_file_are_one_line(local, tmp_path, brief):
    profiler = LocalProfiler(local)
    with pytest.raises(UsageError, match=r"net\.pt: this machine runs \.onnx and \.tflite files"):
        profiler.measure(tmp_path / "net.pt", brief)
    with pytest.raises(DataError, match=r"cannot read .*net\.onnx: No such file"):
        profiler.measure(tmp_path / "net.onnx", brief)


def test_a_damaged_file_is_a_measurement_error(local, tmp_path, brief):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"not a flatbuffer")
    with pytest.raises(MeasurementError, match=r"net\.tflite: ai-edge-litert .* refused it"):
        LocalProfiler(local).measure(path, brief)


def test_an_unknown_runtime_names_the_nearest(local):
    with pytest.raises(UsageError, match="unknown runtime 'onnxruntim'; did you mean 'onnxruntime'"):
        LocalProfiler(local.model_copy(update={"runtime": "onnxruntim"}))


def agent_that(source: str, monkeypatch, tmp_path) -> None:
    stand_in = tmp_path / "agent.py"
    stand_in.write_text(source)
    monkeypatch.setattr(agent, "__file__", str(stand_in))


def test_a_process_that_aborts_names_the_signal(local, model, brief, monkeypatch, tmp_path):
    agent_that(
        "import os, sys; sys.stderr.write('scale 1e36'); sys.stderr.flush(); os.abort()",
        monkeypatch,
        tmp_path,
    )
    with pytest.raises(MeasurementError, match=r"relu.* ended by SIGABRT .*\(scale 1e36\)"):
        LocalProfiler(local).measure(model, brief)


def test_a_process_that_hangs_is_stopped(local, model, brief, monkeypatch, tmp_path):
    agent_that("import time; time.sleep(600)", monkeypatch, tmp_path)
    monkeypatch.setattr("ehdnas.profilers.board.timer.SLACK_S", -9.0)
    begin = time.monotonic()
    with pytest.raises(MeasurementError, match="not done after 1 s"):
        LocalProfiler(local).measure(model, brief)
    assert time.monotonic() - begin < 30


def test_a_missing_interpreter_is_a_device_error(local, model, brief, monkeypatch, tmp_path):
    source = Path(agent.__file__).read_text()
    agent_that(source.replace("import_module(name)", "import_module('no_' + name)"), monkeypatch, tmp_path)
    package = "ai-edge-litert" if model.suffix == ".tflite" else "onnxruntime"
    with pytest.raises(DeviceSetupError, match=rf"no interpreter for .*; pip install {package}$"):
        LocalProfiler(local).measure(model, brief)
    checks = LocalProfiler(local).check()
    (failed,) = (check for check in checks if not (check.passed or check.advice))
    assert failed.name == "interpreter" and failed.mend == "pip install ai-edge-litert"


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGKILL])
def test_no_agent_outlives_an_interrupted_measurement(model, name, tmp_path):
    code = f"""
from pathlib import Path
from ehdnas.core.device import Device
from ehdnas.profilers.local import LocalProfiler
from ehdnas.profilers.protocol import Protocol
LocalProfiler(Device(name="local", kind="local", title="t")).measure(
    Path({str(model)!r}), Protocol("long", 1, 60.0, 1, 60.0, 60.0, 1))
"""
    place = tmp_path / "place"
    place.mkdir()
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=environment) as parent:
        wait_for(lambda: agents_in(place))
        assert list(place.glob("ehdnas.*/agent.py")) and parent.poll() is None
        os.kill(parent.pid, name)
        parent.wait(timeout=20)
    wait_for(lambda: not agents_in(place) and not list(place.glob("ehdnas*")), limit_s=10)


def agents_in(place: Path) -> list[str]:
    """The processes that run an agent that was copied to a folder of `place`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.startswith(bytes(place)) and word.endswith(b"/agent.py") for word in words):
                found.append(entry.name)
    return found


def wait_for(condition, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.05)


def test_check_runs_the_smoke_test(local):
    first, *others = LocalProfiler(local).check()
    assert (first.name, first.detail, first.passed) == ("reachable", "this machine", True)
    checks = {check.name: check for check in others}
    assert checks["interpreter"].detail.startswith("ai-edge-litert ") and checks["interpreter"].passed
    assert checks["smoke test"].passed and "ms" in checks["smoke test"].detail
    assert {"memory", "disk", "governor", "load"} <= set(checks)
    onnx = LocalProfiler(local.model_copy(update={"runtime": "onnxruntime"})).check()
    (interpreter,) = (check for check in onnx if check.name == "interpreter")
    assert interpreter.detail.startswith("onnxruntime ") and onnx[-1].name == "smoke test" and onnx[-1].passed


def test_a_device_without_a_host_says_how_to_give_it_one(local):
    bare = parse_device({"name": "pi4", "kind": "ssh", "title": "Pi"}, "test")
    with pytest.raises(DeviceError) as caught:
        find_profiler(bare)
    assert str(caught.value).startswith(
        "device 'pi4' has no host; set one with `ehdnas devices set pi4 host=USER@ADDRESS`"
    )
    assert caught.value.exit_code == 4


def test_a_kind_that_nothing_reaches_is_a_device_error():
    with pytest.raises(
        DeviceError, match="device 'coral': nothing installed reaches kind 'lcal'; did you mean 'local'"
    ):
        find_profiler(Device(name="coral", kind="lcal", title="c"))


def test_the_hash_of_a_protocol_follows_its_settings_and_not_its_name():
    one = Protocol("a", 5, 0.5, 50, 2.0, 60.0, 3)
    assert one.settings_hash == Protocol("b", 5, 0.5, 50, 2.0, 60.0, 3).settings_hash
    assert one.settings_hash != Protocol("a", 5, 0.5, 51, 2.0, 60.0, 3).settings_hash
