"""The built-in devices, and what importing them costs."""

import subprocess
import sys

import pytest

from ehdnas.core.device import read_device
from ehdnas.profilers.board.options import board_options
from ehdnas.profilers.devices import builtin_devices


@pytest.mark.parametrize("name", sorted(builtin_devices()))
def test_every_description_can_be_read_and_names_itself(name):
    device = read_device(builtin_devices()[name])
    assert device.name == name and device.title and device.description


def test_the_built_in_devices_are_these():
    found = [read_device(path) for path in builtin_devices().values()]
    assert {device.name for device in found if not device.simulated} == {
        "android", "android-termux", "coral", "coral-dev-board", "coral-usb", "jetson-nano",
        "jetson-orin-nano", "jetson-tx2", "linux", "local", "local-onnx", "pi-zero-2w", "pi4", "pi5",
    }  # fmt: skip


@pytest.mark.parametrize("path", builtin_devices().values(), ids=lambda path: path.stem)
def test_every_board_suits_a_narrow_table_and_names_its_source(path):
    device = read_device(path)
    if not device.simulated:
        assert len(device.title) <= 38 and len(device.name) <= 16
        assert device.source or device.kind == "local"
        board_options(device)
        if device.runtime == "edgetpu":
            assert device.precision == "int8" and device.options["delegate"] == "libedgetpu.so.1"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("ehdnas.profilers.devices", {"numpy", "pydantic", "torch", "tensorflow", "onnx", "onnxruntime"}),
        ("ehdnas.profilers.local", {"torch", "tensorflow", "onnx", "onnxruntime", "ai_edge_litert"}),
        ("ehdnas.profilers.store.store", {"torch", "tensorflow", "onnx", "onnxruntime"}),
        ("ehdnas.profilers.e2e_perf.profiler", {"torch", "tensorflow", "onnx", "onnxruntime"}),
    ],
)
def test_importing_loads_nothing_heavy(module, banned):
    code = f"import sys, {module}; print(*{banned!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
