"""Real CIFAR-10 for the benchmarks, from $EHDNAS_DATA, by default ../shared/data."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ehdnas.core.images.dataset import Dataset, load_data

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("EHDNAS_DATA", ROOT.parent / "shared" / "data")) / "cifar10"


def unpack(folder: Path, shards: str) -> Path:
    """Return the folder of CIFAR-10's python layout, made in `folder` unless it is there."""
    made = folder / "cifar-10-batches-py"
    if not made.is_dir():
        script = DATA / "unpack.py"
        if not script.is_file():
            sys.exit(f"no CIFAR-10 at {script}: set EHDNAS_DATA to the data folder")
        subprocess.run([sys.executable, str(script), str(folder), "--shards", shards], check=True)
    return made.resolve()


def load(shards: str = "1,2,3,4,5") -> Dataset:
    """Return CIFAR-10 with some of its five training shards of 10,000 images, and all 10,000 test images."""
    with TemporaryDirectory() as folder:
        return load_data(f"cifar10:{unpack(Path(folder), shards)}", seed=0)
