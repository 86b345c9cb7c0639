"""The examples beside an exported file: run as they are, by interpreters that know nothing of ehdnas."""

import shutil
import subprocess
import sys
import tarfile
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ehdnas.exporters import export_network

CLASSES = [f"class {number}" for number in range(5)]
MEAN, STD = [0.4, 0.5, 0.3], [0.2, 0.25, 0.3]
SIDE = 16
TFLITE_C = "tfjs-tflite-node@0.0.2"  # TensorFlow Lite's C library and its headers, as npm has them


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    net = nn.Sequential(*layers, nn.Linear(8, len(CLASSES))).eval()
    with torch.no_grad():  # what it sees is to depend on the image
        net[-1].bias -= net(torch.randn(64, 3, SIDE, SIDE)).mean(0)
    return net


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images that the network sees several classes in, as files and as bytes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for number, tint in enumerate(product((0.0, 1.0), repeat=3)):
        pixels = (255 * rng.uniform(0, 1, (SIDE, SIDE, 3)) * tint).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        pixels.tofile(folder / f"{number}.rgb")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    made = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 1, (64, SIDE, SIDE, 3)) * rng.integers(0, 2, (64, 1, 1, 3))
    images = ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    metadata = {"classes": CLASSES, "mean": MEAN, "std": STD}
    for target in ("tflite", "tflite-int8", "onnx"):
        export_network(network, target, made, images, calibration=images, metadata=metadata)
    return made


@pytest.fixture(scope="module")
def wanted(network, pictures):
    """What the network itself sees, and by how much it prefers that."""
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in pictures])
    x = torch.tensor((pixels / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        best = network(x).topk(2, dim=1)
    return best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist()


def agree(said, wanted, margin):
    classes, ahead = wanted
    sure = [number for number, by in enumerate(ahead) if by > margin]
    assert len(sure) >= 5 and len({classes[number] for number in sure}) > 1
    assert [said[number] for number in sure] == [classes[number] for number in sure]


@pytest.mark.parametrize(
    ("file", "margin"), [("model.tflite", 1e-4), ("model_int8.tflite", 0.05), ("model.onnx", 1e-4)]
)
def test_the_python_example_names_the_class(folder, pictures, wanted, tmp_path, file, margin):
    said = []
    for path in pictures:
        # From another folder, and isolated: nothing of the project's is on the path.
        command = [sys.executable, "-I", folder / f"{file}.py", path]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        said.append(CLASSES.index(done.stdout.splitlines()[-1]))
    agree(said, wanted, margin)


@pytest.fixture(scope="module")
def c_library(tmp_path_factory):
    """Where TensorFlow Lite's C library and headers are."""
    if shutil.which("npm") is None or shutil.which("g++") is None:
        pytest.skip("npm, which has the library, and g++ are not both here")
    home = tmp_path_factory.mktemp("tflite-c")
    packed = subprocess.run(["npm", "pack", TFLITE_C], cwd=home, capture_output=True, text=True, timeout=120)
    if packed.returncode:
        pytest.skip(f"npm cannot fetch {TFLITE_C}: {packed.stderr.strip().splitlines()[-1]}")
    with tarfile.open(next(home.glob("*.tgz"))) as archive:
        archive.extractall(home, filter="data")
    return home / "package" / "cc_deps"


@pytest.mark.parametrize(("file", "margin"), [("model.tflite", 1e-4), ("model_int8.tflite", 0.05)])
def test_the_c_example_prints_the_number_of_the_class(
    folder, pictures, wanted, c_library, tmp_path, file, margin
):
    libraries = c_library / "linux_amd64"
    build = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", c_library / "include"]
    link = ["-L", libraries, "-ltensorflowlite_c", f"-Wl,-rpath,{libraries}", "-o", tmp_path / "example"]
    subprocess.run([*build, folder / f"{file}.cc", *link], check=True)
    said = []
    for path in pictures:
        with path.with_suffix(".rgb").open("rb") as pixels:
            done = subprocess.run(
                [tmp_path / "example"], stdin=pixels, cwd=folder, capture_output=True, text=True, check=True
            )
        said.append(int(done.stdout.splitlines()[-1]))
    agree(said, wanted, margin)


def test_a_short_image_is_refused_by_the_c_example(folder, c_library, tmp_path):
    libraries = c_library / "linux_amd64"
    build = ["g++", "-std=c++17", "-I", c_library / "include", folder / "model.tflite.cc", "-L", libraries]
    subprocess.run(
        [*build, "-ltensorflowlite_c", f"-Wl,-rpath,{libraries}", "-o", tmp_path / "example"], check=True
    )
    assert subprocess.run([tmp_path / "example"], input=b"\0" * 10, cwd=folder).returncode == 1


def test_there_is_none_for_a_file_that_does_not_say_how_images_are_normalised(network, tmp_path):
    images = np.zeros((4, 3, SIDE, SIDE), np.float32)
    export_network(network, "tflite", tmp_path, images, metadata={"classes": CLASSES})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.txt", "model.tflite", "model.tflite.json", "model.tflite.md",
    ]  # fmt: skip
