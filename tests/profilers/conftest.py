from pathlib import Path

import pytest

from ehdnas.core.device import Device, read_device
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.devices import builtin_devices
from ehdnas.profilers.protocol import Protocol


@pytest.fixture
def brief() -> Protocol:
    return Protocol("brief", warmup_runs=1, warmup_s=0, runs=5, min_s=0.01, max_s=5, processes=2)


@pytest.fixture
def local() -> Device:
    return read_device(builtin_devices()["local"])


@pytest.fixture(params=[".tflite", ".onnx"])
def model(request, tmp_path) -> Path:
    path = tmp_path / f"relu{request.param}"
    path.write_bytes(smoke_model(request.param))
    return path
