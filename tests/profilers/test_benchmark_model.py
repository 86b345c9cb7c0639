"""TensorFlow Lite's timer, by a stand-in that prints what the real one is known to print, old and new."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceSetupError, EhdnasError, MeasurementError, UsageError
from ehdnas.core.remote import Completed, LocalTransport
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.board.benchmark_model import BenchmarkModel
from ehdnas.profilers.board.options import board_options
from ehdnas.profilers.board.shell_state import shell_state
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.protocol import STANDARD, Protocol

BRIEF = Protocol("brief", warmup_runs=1, warmup_s=0.1, runs=5, min_s=1, max_s=5, processes=1)
TIMINGS = (
    "Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, "
    "Inference (avg): 249684\n"
)
OLD = f"""\
STARTING!
Loaded model model.tflite
Running benchmark for at least 1 iterations and at least 0.5 seconds.
count=1 curr=360262

Running benchmark for at least 50 iterations and at least 1 seconds.
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

{TIMINGS}"""
NEW = f"""\
INFO: STARTING!
INFO: Loaded model model.tflite
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 s.
INFO: count=2 first=1351093 curr=1250110 min=1250110 max=1351093 avg=1.3006e+06 std=50491 p5=1 median=1351093
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 s.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 \
median=1239807 p95=1247415
INFO: {TIMINGS}\
INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.3
INFO: Memory status at the end of exeution:
"""


class StandIn:
    """A stand-in for benchmark_model: what it prints, and how it was called."""

    def __init__(self, folder: Path) -> None:
        self.program, self.calls = folder / "benchmark_model", folder / "calls"
        self.says(OLD)

    def says(self, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        folder = self.program.parent
        (folder / "out").write_text(stdout)
        (folder / "err").write_text(stderr)
        self.program.write_text(
            f'#!/bin/sh\necho "$*" >>{folder}/calls\ncat {folder}/out\ncat {folder}/err >&2\nexit {code}\n'
        )
        self.program.chmod(0o755)


@pytest.fixture
def stand_in(tmp_path) -> StandIn:
    (tmp_path / "tool").mkdir()
    return StandIn(tmp_path / "tool")


def device(tool, **options) -> Device:
    options = {"tool": str(tool), **options}
    return Device(name="phone", kind="local", title="Phone", runtime="litert", threads=2, options=options)


@pytest.fixture
def profiler(stand_in):
    with find_profiler(device(stand_in.program)) as it:
        yield it


@pytest.fixture
def relu(tmp_path) -> Path:
    path = tmp_path / "relu.tflite"
    path.write_bytes(smoke_model(".tflite"))
    return path


def test_an_old_version_gives_the_average_and_says_so(profiler, relu):
    measured = profiler.measure(relu, BRIEF)
    assert measured.metric("latency_ms") == 249.684
    assert (measured.metric("load_ms"), measured.metric("first_run_ms")) == (16.242, 360.262)
    assert measured.passport["interpreter"] == "benchmark_model (average of 50 runs)"
    assert "peak_memory_mb" not in measured.metrics


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_new_version_gives_the_median_on_either_stream(profiler, stand_in, relu, stream):
    stand_in.says(**{stream: NEW})
    measured = profiler.measure(relu, BRIEF)
    assert measured.metric("latency_ms") == 1239.807
    assert measured.metric("peak_memory_mb") == 12.3
    assert measured.passport["interpreter"] == "benchmark_model (median of 50 runs)"


def test_each_process_is_one_sample_and_the_machine_is_told(profiler, relu):
    measured = profiler.measure(relu, STANDARD)
    assert measured.samples_ms == [[249.684]] * 3
    machine, (before, *_) = measured.passport["machine"], measured.passport["before"]
    assert machine["machine"] == os.uname().machine and machine["cores"] == os.cpu_count()
    assert before["load"] >= 0 and before["free_memory_mb"] > 0


def test_protocol_threads_and_cores_reach_the_tool(stand_in, relu):
    with find_profiler(device(stand_in.program, cpus=[0])) as profiler:
        profiler.measure(relu, BRIEF)
    flags = dict(flag[2:].split("=", 1) for flag in stand_in.calls.read_text().split())
    assert flags.pop("graph").endswith("/model.tflite")
    assert flags == {
        "num_threads": "2",
        "warmup_runs": "1",
        "warmup_min_secs": "0.1",
        "num_runs": "5",
        "min_secs": "1",
        "max_secs": "5",
        "report_peak_memory_footprint": "true",
    }


def test_the_cores_are_those_of_the_device(stand_in, relu):
    core = max(os.sched_getaffinity(0))
    text = stand_in.program.read_text().replace('echo "$*"', "grep Cpus_allowed_list /proc/self/status")
    stand_in.program.write_text(text)
    with find_profiler(device(stand_in.program, cpus=[core])) as profiler:
        profiler.measure(relu, BRIEF)
    assert stand_in.calls.read_text().split() == ["Cpus_allowed_list:", str(core)]


def test_a_delegate_is_given_with_its_options(stand_in, relu):
    options = {"delegate": "/x/libvx.so", "delegate_options": {"device": "npu0", "cache": "no"}}
    with find_profiler(device(stand_in.program, **options)) as profiler:
        profiler.measure(relu, BRIEF)
    words = stand_in.calls.read_text().split()
    assert "--external_delegate_path=/x/libvx.so" in words
    assert "--external_delegate_options=device:npu0;cache:no" in words


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        ("ERROR: Didn't find op for builtin opcode 'EVIL'\nBenchmarking failed.\n", 1, "opcode 'EVIL'"),
        ("INFO: STARTING!\nFailed to mmap model\n", 1, "Failed to mmap model"),
        (OLD, 1, "Inference timings"),
        ("", 0, "exit code 0, and no word"),
        (OLD.replace("avg", "mean"), 0, "no timing"),
        (OLD.replace("249684", "0"), 0, "no usable 'samples_ms.0'"),
        (OLD.replace("avg=249684", "avg=1e99"), 0, "no usable 'samples_ms.0'"),
        (OLD.replace("16242", "1e99"), 0, "no usable 'load_ms'"),
    ],
)
def test_what_gives_no_figure_is_refused_with_the_reason(profiler, stand_in, relu, output, code, says):
    stand_in.says(output, code=code)
    with pytest.raises(MeasurementError, match=rf"relu\.tflite: benchmark_model gave .*{re.escape(says)}"):
        profiler.measure(relu, BRIEF)


def test_files_that_it_does_not_run_are_refused_and_outputs_too(profiler, relu, tmp_path):
    path = tmp_path / "relu.onnx"
    path.write_bytes(smoke_model(".onnx"))
    with pytest.raises(UsageError, match=r"relu\.onnx: benchmark_model runs \.tflite files"):
        profiler.measure(path, BRIEF)
    with pytest.raises(UsageError, match="gives times only"):
        profiler.outputs(relu, np.zeros((1, 8), np.float32))


@pytest.mark.parametrize("folder", ["/no", "~nobody-at-all", "~"])
def test_a_missing_tool_must_be_set_up_first(relu, folder):
    with find_profiler(device(f"{folder}/benchmark_model")) as profiler:
        with pytest.raises(DeviceSetupError, match=r"'phone' has no .*benchmark_model; .*options\.tool=PATH"):
            profiler.measure(relu, BRIEF)
        checks = {check.name: check for check in profiler.check()}
    assert not checks["tool"].passed and "smoke test" not in checks


def test_check_finds_the_tool_and_times_a_tiny_model(profiler):
    checks = {check.name: check for check in profiler.check()}
    assert checks["tool"].passed and checks["interpreter"].detail == "benchmark_model"
    assert checks["smoke test"].detail == "a tiny model ran in 249.684 ms"
    assert {"memory", "disk", "load"} <= checks.keys()


def test_one_that_hangs_is_stopped(profiler, stand_in, relu, monkeypatch):
    monkeypatch.setattr("ehdnas.profilers.board.timer.SLACK_S", -9.1)
    stand_in.program.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(MeasurementError, match="was not done after 1 s and was stopped"):
        profiler.measure(relu, BRIEF)


def test_what_the_shell_says_of_this_machine_is_what_python_says():
    with LocalTransport() as there:
        machine, state = shell_state(there)
    assert machine["system"] == f"Linux {os.uname().release}"
    assert machine["free_disk_mb"] > 0
    assert abs(state["load"] - os.getloadavg()[0]) < 2
    for zone, degrees in state.get("temperature_c", {}).items():
        assert ":" in zone and -60 < degrees < 150


class Said:
    """A transport to a machine on which every program prints the same."""

    def __init__(self, output: bytes, code: int = 0) -> None:
        self.output, self.code = output, code

    def run(self, _arguments, _timeout_s) -> Completed:
        return Completed(self.code, self.output, b"")


def test_figures_that_are_none_are_left_out():
    text = "governor schedutil\nload 1.5.2\nmax_freq_khz 2²\nfreq_khz 1800000\nmemory_kb -\nzone --5 0:cpu\n"
    machine, state = shell_state(Said(f"{text}zone 48686 1:gpu\nzone  2:\ncores many\ndisk_kb\n".encode()))
    assert state == {"governor": "schedutil", "freq_mhz": 1800.0, "temperature_c": {"1:gpu": 48.686}}
    assert "free_disk_mb" not in machine


_STATE_LINES = ["zone ", "load ", "freq_khz ", "memory_kb ", "cores ", "disk_kb ", "-", ".", "²", "9" * 400]
_SPLINTERS = st.sampled_from(["", "9" * 30, "e", "e99", "-", "²", "\0", "\n", "\x1b[2J"])
_LINES = st.sampled_from([*OLD.splitlines(True), *NEW.splitlines(True), *_STATE_LINES])


@st.composite
def outputs(draw) -> bytes:
    """What the tool prints, with lines and bytes of it changed, repeated and left out."""
    lines = draw(st.sampled_from([OLD, NEW])).splitlines(True)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines)))
        lines[at : at + draw(st.integers(0, 2))] = draw(st.lists(_LINES, max_size=2))
    text = "".join(lines)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(_SPLINTERS) + text[at + 1 :]
    return text.encode() + draw(st.binary(max_size=5))


@settings(max_examples=300, deadline=None)
@given(outputs(), st.sampled_from([0, 0, 1, 139]))
def test_whatever_is_printed_is_a_reply_or_one_of_our_errors(output, code):
    tool = device("/there/benchmark_model")
    timer = BenchmarkModel(Said(output, code), tool, board_options(tool))
    try:
        assert timer.time("model.tflite", "relu.tflite", BRIEF).samples_ms
    except EhdnasError as error:
        assert str(error).isprintable()
