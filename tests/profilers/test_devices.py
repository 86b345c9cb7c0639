"""The built-in devices, and what importing them costs."""

import subprocess
import sys

import pytest

from ehdnas.core.device import read_device
from ehdnas.profilers.devices import builtin_devices


@pytest.mark.parametrize("name", sorted(builtin_devices()))
def test_every_description_can_be_read_and_names_itself(name):
    device = read_device(builtin_devices()[name])
    assert device.name == name and device.title and device.description


def test_the_built_in_devices_are_these():
    assert {"ehdnas-generic", "local", "local-onnx", "pi4"} <= set(builtin_devices())


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
