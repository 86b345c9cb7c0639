"""The benchmark for a GPU machine runs where few packages are, and where ehdnas is linked, not installed."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# Finders that know nothing of the packages such a machine lacks, put in before anything is imported.
BARE = """
import runpy, sys
ABSENT = {"typer", "rich", "paramiko", "onnx", "onnxruntime", "tensorflow", "ai_edge_litert", "jinja2",
          "matplotlib", "tomli_w"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def bench(tmp_path):
    """Call the script there; returns its exit status and what it printed."""
    package = tmp_path / "links" / "ehdnas"
    package.mkdir(parents=True)
    parts = [
        *(ROOT / "toolkit").iterdir(),
        *(ROOT / part for part in ("search", "exporters", "profilers", "core")),
    ]
    for part in parts:
        (package / part.name).symlink_to(part)

    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", BARE, str(ROOT / "bench" / "gpu_search.py"), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(package.parent)}, cwd=tmp_path, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return call


def write_shard(path, count, rng):
    files = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    png = np.frombuffer(b"".join(files), dtype=np.uint8)
    labels, classes = rng.integers(0, 10, count), np.array([str(number) for number in range(10)])
    np.savez(path, png=png, offsets=offsets, labels=labels, classes=classes)


def test_it_starts_without_the_packages_that_are_not_there(bench):
    code, text = bench("--help")
    assert code == 0, text
    assert "--epochs-search" in text


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_both_networks_are_trained(bench, tmp_path):
    rng, data, out = np.random.default_rng(0), tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in (*(f"train-{number}" for number in range(1, 6)), "test"):
        write_shard(data / f"{name}.npz", 16, rng)
    settings = ["--data", data, "--out", out, "--compute", "cpu", "--channels", 4, "--cells", 3, "--batch", 8]
    settings += ["--epochs-search", 3, "--epochs-tried", 1, "--epochs-train", 1]
    code, text = bench(*settings, "--stage", "search", "--seconds", 0)
    assert code == 75, text
    assert (out / "search.safetensors").stat().st_size < 16 * 2**20
    code, text = bench(*settings, "--stage", "all")
    assert code == 0, text
    results = json.loads((out / "results.json").read_text())
    for one in results["search"]["candidates"]:
        assert one["simulated_fps"] >= results["search"]["budget_fps"]
    assert len(results["search"]["history"]) == 3
    assert results["choose"]["genotype"] == results["choose"]["trials"][-1]["genotype"]
    assert {*results["train"]} >= {"found-0", "DARTS_V2-0", "machine", "date", "command"}
    assert 0 <= results["train"]["DARTS_V2-0"]["accuracy"] <= 1
