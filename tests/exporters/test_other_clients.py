"""Files in clients that nobody here wrote: tflite_runtime as boards have it, and OpenCV's dnn module."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ehdnas.exporters import find_exporter, run_artifact
from ehdnas.search.spaces.base import NetworkShape, find_space

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BOARD = Path(__file__).parents[2] / "requirements-board.txt"
OPENCV = """
import sys, cv2, numpy as np
network = cv2.dnn.readNetFromONNX(sys.argv[1])
outputs = []
for image in np.load(sys.argv[2]):
    network.setInput(np.ascontiguousarray(image[None]))
    outputs.append(network.forward().copy())
np.save(sys.argv[3], np.concatenate(outputs))
"""


def venv(folder, *packages):
    """Return the Python of a new venv with some packages; the test skips where they cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot install {' '.join(packages)}: {done.stderr.strip().splitlines()[-1]}")
    return str(python)


@pytest.fixture(scope="module")
def board_python(tmp_path_factory):
    return venv(tmp_path_factory.mktemp("board") / "venv", "-r", str(BOARD))


@pytest.fixture(scope="module", params=["opencv-python-headless<5", "opencv-python-headless>=5"])
def opencv_python(request, tmp_path_factory):
    return venv(tmp_path_factory.mktemp("opencv") / "venv", request.param)


@pytest.fixture(scope="module")
def darts():
    space = find_space("darts")
    torch.manual_seed(0)
    return space.network(space.parse("DARTS_V1"), NetworkShape(8, 5, (3, 16, 16), 10)).eval()


@pytest.fixture
def batch():
    return np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype(np.float32)


def in_both(exporter, network, batch, folder, python):
    path = folder / exporter.file_name()
    exporter.export(network, (3, 16, 16), path, {"genotype": "any"}, batch)
    here, there = run_artifact(path, batch), run_artifact(path, batch, python=python)
    assert here.interpreter.startswith("ai_edge_litert 2")
    assert there.interpreter.startswith("tflite_runtime 2.14")
    return here.outputs, there.outputs, path


@pytest.mark.parametrize("target", ["tflite", "tflite-fp16", "tflite-int8", "edgetpu"])
def test_the_older_runtime_agrees(target, network, batch, tmp_path, board_python):
    exporter = find_exporter(target)
    here, there, _ = in_both(exporter, network, batch, tmp_path, board_python)
    if exporter.precision != "int8":
        np.testing.assert_allclose(there, here, atol=1e-4)
        return
    # Their kernels round in other places: a level here and there, no more.
    assert np.sqrt(((there - here) ** 2).mean()) < 0.1 * here.std()


@pytest.mark.parametrize("target", ["tflite", "tflite-int8"])
def test_a_darts_network_agrees_in_the_older_runtime(target, darts, batch, tmp_path, board_python):
    here, there, _ = in_both(find_exporter(target), darts, batch, tmp_path, board_python)
    assert (here.argmax(1) == there.argmax(1)).mean() >= 0.98
    if target == "tflite":
        np.testing.assert_allclose(there, here, atol=1e-4)


def in_opencv(network, batch, folder, python):
    path = folder / "model.onnx"
    find_exporter("onnx").export(network, (3, 16, 16), path)
    np.save(folder / "images.npy", batch)
    command = [python, "-c", OPENCV, str(path), str(folder / "images.npy"), str(folder / "outputs.npy")]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(folder / "outputs.npy").reshape(len(batch), -1)


def test_opencv_agrees_with_torch(network, batch, tmp_path, opencv_python):
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(in_opencv(network, batch, tmp_path, opencv_python), expected, atol=1e-4)


def test_opencv_runs_a_darts_network(darts, batch, tmp_path, opencv_python):
    with torch.no_grad():
        expected = darts(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(in_opencv(darts, batch, tmp_path, opencv_python), expected, atol=1e-4)
