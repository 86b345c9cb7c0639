"""What all boards have in common: one connection, kept and made anew, and what comes back over it."""

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, DeviceSetupError, UsageError
from ehdnas.profilers.board.agent_timer import AgentTimer
from ehdnas.profilers.board.options import BoardOptions, board_options
from ehdnas.profilers.local import LocalProfiler
from ehdnas.profilers.protocol import Protocol

# One process, and no second round: what is tested is the way there and back.
BRIEF = Protocol("brief", warmup_runs=1, warmup_s=0, runs=5, min_s=0.01, max_s=5, processes=1, window_s=10)


class Counted(LocalProfiler):
    """This machine, and the connections that were made to it."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.opened = []

    def open(self):
        self.opened.append(super().open())
        return self.opened[-1]


class Board(Counted):
    """This machine as if it were another, on which a Python must be found first."""

    def python(self):
        return ()


one_format = pytest.mark.parametrize("model", [".tflite"], indirect=True)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where temporary folders are made, over here and over there."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def ours(place: Path) -> list[str]:
    return [path.name for path in place.glob("ehdnas*")]


@pytest.fixture
def relu(model):
    """A model, eight images and what an interpreter of this process gives for them."""
    images = np.random.default_rng(3).standard_normal((8, 8)).astype(np.float32)
    return model, images, np.concatenate([interpret(model, one[None]) for one in images])


def interpret(model: Path, image):
    if model.suffix == ".onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(model).run(None, {"x": image})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def with_options(device: Device, **options) -> Device:
    return device.model_copy(update={"options": options})


@one_format
def test_it_connects_at_the_first_use_and_once(local, relu, place):
    model, images, _ = relu
    with Counted(local) as profiler:
        assert profiler.opened == [] and ours(place) == []
        profiler.measure(model, BRIEF)
        profiler.outputs(model, images)
        profiler.check()
        assert len(profiler.opened) == 1 and len(ours(place)) == 1
    assert ours(place) == []


@one_format
def test_nothing_is_left_after_an_error_or_an_interrupt(local, model, place, tmp_path):
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"no model")
    for error in (DeviceError, KeyboardInterrupt):
        with pytest.raises(error), Counted(local) as profiler:
            profiler.measure(model, BRIEF)
            assert ours(place)
            raise error("now")
        assert ours(place) == []


@one_format
@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_a_connection_that_was_lost_is_made_anew_at_the_next_use(local, model, place, name):
    with Counted(local) as profiler:
        profiler.measure(model, BRIEF)
        profiler.opened[0]._holder.send_signal(name)
        profiler.opened[0]._holder.wait(10)
        assert profiler.measure(model, BRIEF).metric("latency_ms") > 0
        assert len(profiler.opened) == 2
    assert len(ours(place)) == (1 if name == signal.SIGKILL else 0), "who is killed leaves its folder"


@one_format
def test_a_system_of_the_wrong_bits_is_refused_before_anything_is_timed(local, relu, monkeypatch):
    model, images, _ = relu
    right = with_options(local, system_bits=64)
    with Counted(right) as profiler:
        assert profiler.measure(model, BRIEF).metric("latency_ms") > 0

    def never(*_arguments):
        raise AssertionError("it was run")

    monkeypatch.setattr(AgentTimer, "time", never)
    monkeypatch.setattr(AgentTimer, "outputs", never)
    with Counted(with_options(local, system_bits=32)) as profiler:
        for use in (lambda: profiler.measure(model, BRIEF), lambda: profiler.outputs(model, images)):
            with pytest.raises(DeviceSetupError, match=r"'local' runs a 64-bit system, .*; put its 32-bit"):
                use()
        checks = {check.name: check for check in profiler.check()}
    assert checks["reachable"].passed and not checks["system"].passed
    assert "smoke test" not in checks


def test_outputs_are_those_of_the_interpreter_here(local, relu):
    model, images, wanted = relu
    with Counted(local) as profiler:
        assert np.array_equal(profiler.outputs(model, images), wanted)
        assert np.array_equal(profiler.outputs(model, images[:1]), wanted[:1])


@one_format
def test_images_that_do_not_fit_are_refused(local, relu):
    model, images, _ = relu
    with Counted(local) as profiler:
        for wrong in (images[:, :7], images.astype(np.int8), images[:0]):
            with pytest.raises(UsageError, match=r"relu\.\w+: (.*inputs\.npy is|no images)"):
                profiler.outputs(model, wrong)


def array_file(head: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body


@one_format
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04 and no more",
        b"\x80\x04N.",
        array_file(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"\x80\x04]\x94Na."),
        array_file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,)}\n", b"1234"),
        array_file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n", b"1234"),
        array_file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n", b"1234"),
        array_file(b"{'descr': [], 'fortran_order': 0, 'shape': ()}\n"),
        array_file(b"(((((\n"),
        array_file(b"L" * 60),
    ],
)
def test_outputs_that_come_back_damaged_are_an_error_of_the_device(local, relu, monkeypatch, data):
    def outputs(_self, model, _inputs, output, *_):
        (Path(model).parent / output).write_bytes(data)

    monkeypatch.setattr(AgentTimer, "outputs", outputs)
    with Counted(local) as profiler, pytest.raises(DeviceError, match=r"relu\.\w+: the outputs .* damaged"):
        profiler.outputs(*relu[:2])


@one_format
def test_the_passport_says_which_board_and_when(local, model):
    board = local.model_copy(update={"name": "shelf-3"})
    with Counted(board) as profiler:
        passport = profiler.measure(model, BRIEF).passport
    assert (passport["board"], passport["kind"]) == ("shelf-3", "local")
    age = datetime.now(UTC) - datetime.fromisoformat(passport["measured_at"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)


@one_format
def test_a_delegate_that_cannot_be_loaded_must_be_set_up_first(local, model):
    device = with_options(local, delegate="libnot-here.so.1")
    with Counted(device) as profiler:
        with pytest.raises(DeviceSetupError, match=r"cannot load delegate libnot-here.*; .*doctor") as caught:
            profiler.measure(model, BRIEF)
        assert "pip install" not in str(caught.value)
        assert not {check.name: check for check in profiler.check()}["delegate"].passed


@pytest.fixture
def wrapper(tmp_path) -> Path:
    """A Python over there that notes that it was run."""
    path = tmp_path / "home" / "python3"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho >>{tmp_path}/ran\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


@one_format
@pytest.mark.parametrize("how", ["named", "at home", "installed"])
def test_the_python_over_there_is_the_one_named_or_the_one_installed(
    local, model, wrapper, tmp_path, monkeypatch, how
):
    monkeypatch.setenv("HOME", str(wrapper.parent))
    options = {"named": {"python": str(wrapper)}, "at home": {"python": "~/python3"}, "installed": {}}[how]
    if how == "installed":
        installed = wrapper.parent / BoardOptions().folder / "bin" / "python"
        installed.parent.mkdir(parents=True)
        wrapper.rename(installed)
    with Board(with_options(local, **options)) as profiler:
        assert profiler.measure(model, BRIEF).metric("latency_ms") > 0
    assert (tmp_path / "ran").exists()


@one_format
def test_a_board_without_python_must_be_set_up_first(local, model):
    with Board(with_options(local, python="/no/python3")) as profiler:
        with pytest.raises(DeviceSetupError, match=r"'local' has no /no/python3; .*options\.python="):
            profiler.measure(model, BRIEF)
        reached, check = profiler.check()
    assert reached.passed and not check.passed and "sudo apt install python3" in check.mend


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("python", "sh -c x"),
        ("python", "/bin/sh"),
        ("python", "python3 -c x"),
        ("python", "python3\n"),
        ("python", "x\n/python3"),
        ("python", "$(reboot)/python3"),
        ("python", "python-evil"),
        ("tool", "/bin/rm"),
        ("tool", "trtexec; rm -rf /"),
        ("tool", "trtexec\n"),
        ("tool", "/x/trtexec-2"),
        ("tool", "benchmark_model x"),
        ("tool", "a b/benchmark_model"),
        ("delegate", "../x; rm -rf /"),
        ("delegate", "/etc/passwd"),
        ("delegate", "libx.so;"),
        ("delegate", "libx.so\n"),
        ("delegate_options", {"a b": "c"}),
        ("delegate_options", {"a": "b;c"}),
        ("delegate_options", {"a": "b\n"}),
        ("delegate_options", "device=usb"),
        ("folder", "x y"),
        ("folder", "x\n"),
        ("folder", "x" * 201),
        ("power_rail", "VDD IN"),
        ("cpus", [-1]),
        ("cpus", [1024]),
        ("cpus", "0-3"),
        ("system_bits", 16),
        ("clock", "fast"),
        ("hottest_c", float("nan")),
        ("hottest_c", 1e9),
        ("proxy_command", "yes please"),
        ("pyton", "python3"),
    ],
)
def test_options_that_cannot_be_right_are_refused_with_their_name(local, option, value):
    with pytest.raises(UsageError, match=f"device 'local': .*'{option}") as caught:
        Counted(with_options(local, **{option: value}))
    assert str(caught.value).isprintable()


def test_options_that_are_right_are_taken():
    given = {
        "python": "~/envs/a-b/bin/python3.11",
        "tool": "/data/local/tmp/benchmark_model_plus_flex",
        "delegate": "/usr/lib/aarch64-linux-gnu/libedgetpu.so.1",
        "delegate_options": {"device": "usb:0"},
        "cpus": [2, 3],
    }
    device = Device(name="a", kind="ssh", title="A", host="b", options=given)
    assert board_options(device).model_dump(include=set(given)) == {**given, "cpus": (2, 3)}
    assert os.path.basename(board_options(device).tool).startswith("benchmark_model")
