"""What every test can ask for: real CIFAR-10, torch on one thread, and no haste."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says what else this machine is doing.
settings.register_profile("whatever else runs", deadline=None)
settings.load_profile("whatever else runs")

# One thread, here and in every process a test starts: tests run beside other work, and sums done in another
# order are other sums. It must be said before torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cifar_dir(tmp_path_factory) -> Path:
    """The folder `cifar-10-batches-py` with 10,000 real training images and the test batch."""
    data = Path(os.environ.get("EHDNAS_DATA", _ROOT.parent / "shared" / "data"))
    unpack = data / "cifar10" / "unpack.py"
    if not unpack.is_file():
        pytest.skip(f"no CIFAR-10 at {unpack}: set EHDNAS_DATA to the data folder")
    out = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(out), "--shards", "1"], check=True, capture_output=True)
    return out / "cifar-10-batches-py"
