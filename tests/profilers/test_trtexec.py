"""TensorRT's timer, by a stand-in that takes trtexec's flags and writes its times as the real one does."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, DeviceSetupError, EhdnasError, MeasurementError, UsageError
from ehdnas.core.remote import Completed
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.board.agent_timer import AgentTimer
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.board.trtexec import Trtexec
from ehdnas.profilers.protocol import STANDARD, Protocol

BRIEF = Protocol("brief", warmup_runs=1, warmup_s=0.1, runs=5, min_s=1, max_s=5, processes=2)
STATE = {"before": {"governor": "performance"}, "machine": {"model": "Jetson"}}
STAND_IN = """\
#!{python} -ISE
import json, os, sys

here = {here!r}
flags = dict(one.lstrip("-").partition("=")[::2] for one in sys.argv[1:])
with open(here + "/calls", "a") as log:
    log.write(json.dumps(flags) + "\\n")
print("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec")
print("[I] TensorRT version: 8.5.2")
if "onnx" in flags:
    if open(flags["onnx"], "rb").read(4) == b"evil":
        print("[W] something else")
        sys.stderr.write("[E] [TRT] ModelImporter.cpp:729: No importer registered for op: Evil\\n")
        print("[E] Failed to parse onnx file\\n&&&& FAILED TensorRT.trtexec")
        sys.exit(1)
    with open(flags["saveEngine"], "w") as engine:
        engine.write("an engine")
if "loadEngine" in flags:
    open(flags["loadEngine"]).close()
    print("[I] Engine loaded in 0.02 sec.")
    if os.path.exists(here + "/silent"):
        sys.exit(int(open(here + "/silent").read()))
    with open(flags["exportTimes"], "w") as times:
        times.write(open(here + "/times").read())
print("&&&& PASSED TensorRT.trtexec")
"""


def query(start_ms: float, compute_ms: float) -> dict:
    """One run: 0.2 ms there, the computing, 0.1 ms back."""
    there, back = start_ms + 0.2, start_ms + 0.2 + compute_ms
    return {
        "startEnqMs": start_ms, "endEnqMs": start_ms + 0.05, "startH2dMs": start_ms, "endH2dMs": there,
        "startComputeMs": there, "endComputeMs": back, "startD2hMs": back, "endD2hMs": back + 0.1,
        "h2dMs": 0.2, "computeMs": compute_ms, "d2hMs": 0.1, "latencyMs": compute_ms + 0.3,
    }  # fmt: skip


class StandIn:
    """The folder of a stand-in for trtexec: what it times, and how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder, folder / "trtexec"
        self.program.write_text(STAND_IN.format(python=sys.executable, here=str(folder)))
        self.program.chmod(0o755)
        self.times(json.dumps([query(float(n), 2.0) for n in range(20)]))

    def times(self, text: str) -> None:
        (self.folder / "times").write_text(text)

    def calls(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> StandIn:
    monkeypatch.setattr(AgentTimer, "probe", lambda _self: STATE)
    (tmp_path / "tool").mkdir()
    return StandIn(tmp_path / "tool")


def device(tool, **fields) -> Device:
    options = {"tool": str(tool)}
    return Device(name="jetson", kind="local", title="Jetson", runtime="tensorrt", options=options, **fields)


@pytest.fixture
def profiler(stand_in):
    with find_profiler(device(stand_in.program)) as it:
        yield it


@pytest.fixture
def relu(tmp_path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(smoke_model(".onnx"))
    return path


def test_the_gpus_time_is_told_apart_from_the_hosts(profiler, relu):
    measured = profiler.measure(relu, BRIEF)
    assert measured.metric("latency_ms") == pytest.approx(2.3)
    assert measured.metric("gpu_latency_ms") == 2.0
    assert measured.metric("load_ms") == pytest.approx(20)
    assert measured.passport["interpreter"] == "tensorrt 8.5.2"
    assert measured.passport["machine"] == STATE["machine"] and measured.flags == []
    assert [len(runs) for runs in measured.samples_ms] == [20, 20]


def test_the_engine_is_built_once_for_each_file_and_timed_in_fresh_processes(
    profiler, stand_in, relu, tmp_path
):
    def kinds() -> str:
        return "".join("b" if "onnx" in call else "t" for call in stand_in.calls())

    profiler.measure(relu, BRIEF)
    assert kinds() == "btt"
    profiler.measure(relu, BRIEF)
    assert kinds() == "btttt"
    other = tmp_path / "other" / relu.name
    other.parent.mkdir()
    other.write_bytes(relu.read_bytes() + b"\0")
    profiler.measure(other, BRIEF)
    assert kinds() == "bttttbtt", "another file of the same name is another network"


def test_the_protocol_and_the_precision_become_flags(stand_in, relu):
    for precision, wanted in (("fp32", set()), ("fp16", {"fp16"}), ("int8", {"int8", "fp16"})):
        with find_profiler(device(stand_in.program, precision=precision)) as profiler:
            profiler.measure(relu, replace(STANDARD, processes=1))
        build, timing = stand_in.calls()[-2:]
        assert build.keys() == {"onnx", "saveEngine", *wanted}
        assert timing["loadEngine"] == build["saveEngine"]
        assert (timing["warmUp"], timing["iterations"], timing["duration"]) == ("500", "50", "2")


def test_a_file_that_is_refused_names_the_first_error(profiler, relu, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"evil")
    with pytest.raises(MeasurementError, match=r"bad\.onnx: trtexec refused it: \[E\] .* for op: Evil$"):
        profiler.measure(bad, BRIEF)
    assert profiler.measure(relu, BRIEF).metric("latency_ms") > 0


def test_files_that_tensorrt_does_not_run_are_refused(profiler, tmp_path):
    path = tmp_path / "relu.tflite"
    path.write_bytes(smoke_model(".tflite"))
    with pytest.raises(UsageError, match=r"relu\.tflite: TensorRT runs \.onnx files"):
        profiler.measure(path, BRIEF)


def test_it_gives_times_and_no_outputs(profiler, relu):
    import numpy as np

    with pytest.raises(UsageError, match="gives times only"):
        profiler.outputs(relu, np.zeros((1, 8), np.float32))


def test_a_missing_tool_must_be_set_up_first(tmp_path, relu, stand_in):
    tool = tmp_path / "no" / "trtexec"
    with find_profiler(device(tool)) as profiler:
        with pytest.raises(DeviceSetupError, match=r"has no .*/no/trtexec; .*libnvinfer-bin.*options\.tool"):
            profiler.measure(relu, BRIEF)
        checks = {check.name: check for check in profiler.check()}
    assert not checks["tool"].passed and "libnvinfer-bin" in checks["tool"].mend
    assert "smoke test" not in checks
    stand_in.program.chmod(0o644)
    with find_profiler(device(stand_in.program)) as profiler, pytest.raises(DeviceSetupError):
        profiler.measure(relu, BRIEF)


def test_check_finds_the_tool_and_times_a_tiny_model(profiler, stand_in):
    checks = {check.name: check for check in profiler.check()}
    assert checks["tool"].detail == str(stand_in.program) and checks["interpreter"].detail == "tensorrt"
    assert checks["smoke test"].detail == "a tiny model ran in 2.300 ms"


def test_a_tool_in_the_home_folder_over_there_is_found(stand_in, relu, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with find_profiler(device("~/tool/trtexec")) as profiler:
        assert profiler.measure(relu, BRIEF).metric("latency_ms") > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[1]",
        "[{}]",
        '[{"latencyMs": 1.0}]',
        '[{"latencyMs": -1.0, "computeMs": 1.0}]',
        '[{"latencyMs": 0, "computeMs": 1.0}]',
        '[{"latencyMs": NaN, "computeMs": 1.0}]',
        '[{"latencyMs": 1e999, "computeMs": 1.0}]',
        '[{"latencyMs": "1 s", "computeMs": 1.0}]',
        '[{"latencyMs": 1.0, "computeMs": 1.0}',
        "[" * 100_000,
        "\0\xff",
    ],
)
def test_times_that_cannot_be_right_are_refused(profiler, stand_in, relu, text):
    stand_in.times(text)
    with pytest.raises(MeasurementError, match=r"relu\.onnx: trtexec('s times cannot| timed nothing)"):
        profiler.measure(relu, BRIEF)


def test_the_times_of_an_earlier_process_are_never_taken_again(profiler, stand_in, relu):
    profiler.measure(relu, BRIEF)
    (stand_in.folder / "silent").write_text("0")
    with pytest.raises(DeviceError, match=r"cannot read .*times\.json"):
        profiler.measure(relu, BRIEF)
    (stand_in.folder / "silent").write_text("1")
    with pytest.raises(MeasurementError, match="could not run its engine"):
        profiler.measure(relu, BRIEF)


def test_very_many_runs_are_thinned(profiler, stand_in, relu, monkeypatch):
    monkeypatch.setattr("ehdnas.profilers.board.trtexec._MOST_KEPT", 100)
    for runs, kept in ((99, 99), (250, 84), (1000, 91)):
        stand_in.times(json.dumps([query(0.0, 2.0)] * runs))
        measured = profiler.measure(relu, replace(BRIEF, processes=1))
        assert [len(samples) for samples in measured.samples_ms] == [kept]
    assert measured.metric("latency_ms") == pytest.approx(2.3)


class Said:
    """A transport to a machine on which every program prints the same, and every file is the same."""

    def __init__(self, output: bytes, times: bytes, code: int = 0) -> None:
        self.output, self.times, self.code = output, times, code

    def run(self, _arguments, _timeout_s) -> Completed:
        return Completed(self.code, self.output, self.output)

    def get(self, _name, target: Path) -> None:
        target.write_bytes(self.times)


class NoAgent:
    def __init__(self, answer: dict) -> None:
        self.answer = answer

    def probe(self) -> dict:
        return self.answer


_WORDS = [b"TensorRT version: 8", b"TensorRT v8", b".8" * 40, b"[I] Engine loaded in 9", b" sec.", b"9" * 40]
_OUTPUTS = st.lists(st.sampled_from(_WORDS) | st.binary(max_size=9), max_size=9).map(b"".join)
_TIMES = st.lists(st.sampled_from([b'[{"latencyMs": 1', b"e", b"0", b', "computeMs": 1', b"}]", b"{", b","]))
_STATES = st.sampled_from([{}, {"before": 1}, {"before": {}, "machine": {"model": "\ud800"}}, STATE])
_CODES = st.sampled_from([0, 0, 1, 139])


@settings(max_examples=200, deadline=None)
@given(_OUTPUTS, _TIMES.map(b"".join) | st.just(b'[{"latencyMs": 1, "computeMs": 1}]'), _STATES, _CODES)
def test_whatever_the_machine_says_is_a_reply_or_one_of_our_errors(output, times, state, code):
    timer = Trtexec(Said(output, times, code), device("trtexec"), NoAgent(state), "trtexec")
    try:
        assert timer.time("model.onnx", "relu.onnx", BRIEF).samples_ms
    except EhdnasError as error:
        assert str(error).isprintable()


@pytest.mark.skipif(shutil.which("trtexec") is None, reason="no TensorRT here")
def test_the_real_tool_times_a_tiny_model(relu):
    with find_profiler(device("trtexec")) as profiler:
        measured = profiler.measure(relu, BRIEF)
    assert 0 < measured.metric("gpu_latency_ms") <= measured.metric("latency_ms")
