"""From a user's own network to what is shipped: file, manifest, labels, model card, and what goes wrong."""

import json
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ehdnas.core.artifact import read_artifact
from ehdnas.core.errors import EhdnasError, NotCompiledError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.files import sha256
from ehdnas.exporters import export_network, require_parity, run_artifact
from ehdnas.exporters.base import network_graph, parameters_sha256
from ehdnas.exporters.card import model_card
from ehdnas.exporters.tflite.metadata import read_metadata

SHAPE = (3, 8, 8)
IMAGES = np.random.default_rng(0).standard_normal((32, *SHAPE)).astype(np.float32)
QUICK = ExportOptions(calibration="minmax", bias_correction=False)
METADATA = {
    "classes": ["cat", "<script>alert(1)</script>", "two\nlines", "a|b*c"],
    "mean": [0.5, 0.25, 0.125],
    "std": [0.2, 0.2, 0.2],
    "genotype": {"normal": [["sep_conv_3x3", 0]], "reduce": []},
    "space": "darts\n# Not a heading",
    "seed": 3,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 4)).eval()


def large():
    """A network whose file has 300 kB of weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 5), nn.Conv2d(64, 128, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def export(model, target, folder, **more):
    given = {"calibration": IMAGES, "metadata": METADATA, "options": QUICK, **more}
    return export_network(model, target, folder, IMAGES, **given)


def embedded(path):
    """Return the facts that a file carries, read back by the format's own means."""
    if path.suffix == ".tflite":
        return json.loads(read_metadata(path)["ehdnas"])
    texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return {key: json.loads(text) if text[0] in '[{"0123456789' and key != "parameters_sha256" else text
            for key, text in texts.items()}  # fmt: skip


def beside(name):
    """Return the names of what belongs to an exported file, itself among it."""
    endings = (".json", ".md", ".py", *([".cc"] if name.endswith(".tflite") else []))
    return {name, *(f"{name}{ending}" for ending in endings)}


@pytest.mark.parametrize("target", ["onnx", "tflite", "onnx-int8", "tflite-int8", "tflite-fp16"])
def test_a_network_of_ones_own(target, model, tmp_path):
    with torch.no_grad():
        labels = model(torch.from_numpy(IMAGES)).argmax(1).numpy()
    model.train()
    folder = tmp_path / "made" / "here"
    artifact = export(model, target, folder, labels=labels)
    assert all(module.training for module in model.modules())
    stored = read_artifact(artifact.path)
    assert stored == artifact and stored.manifest.sha256 == sha256(artifact.path)
    require_parity(stored)
    parity = stored.manifest.parity
    assert (parity.images, parity.accuracy_images, parity.accuracy_before) == (32, 32, 1.0)
    made = run_artifact(artifact.path, IMAGES).outputs
    assert parity.accuracy_after == (made.argmax(1) == labels).mean()
    # One line a class, whatever a class is called.
    assert (folder / "labels.txt").read_text().splitlines() == [
        "cat", "<script>alert(1)</script>", "two lines", "a|b*c",
    ]  # fmt: skip
    name = artifact.path.name
    assert {path.name for path in folder.iterdir()} == {*beside(name), "labels.txt"}

    facts = embedded(artifact.path)
    assert facts.items() >= METADATA.items()
    assert facts["target"] == target and facts["precision"] == stored.manifest.precision
    assert facts["versions"] == stored.manifest.versions and "ehdnas" in facts["versions"]
    assert facts["parameters_sha256"] == stored.manifest.parameters_sha256
    assert facts["parameters_sha256"] == parameters_sha256(network_graph(model, SHAPE))
    assert stored.manifest.metadata == METADATA


def test_parameters_have_a_hash_of_their_own(model, tmp_path):
    hashes = {
        export(model, target, tmp_path).manifest.parameters_sha256 for target in ("onnx", "tflite-int8")
    }
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-3
    assert len(hashes) == 1
    assert export(model, "onnx", tmp_path).manifest.parameters_sha256 not in hashes


def test_the_card_says_what_one_needs_and_escapes_the_rest(model, tmp_path):
    artifact = export(model, "tflite-int8", tmp_path, labels=np.zeros(32, np.int64))
    card = (tmp_path / f"{artifact.path.name}.md").read_text()
    assert card == model_card(artifact.manifest)
    manifest = artifact.manifest
    for fact in (
        manifest.sha256,
        manifest.parameters_sha256,
        f"{manifest.parity.accuracy_after:.2%} of 32 test images",
        "int8 NHWC [1, 8, 8, 3]",
        f"holds round(x / {manifest.inputs[0].scale:.9g}) + {manifest.inputs[0].zero_point}",
        r"pixels / 255, minus \[0.5, 0.25, 0.125\]",
        "classes (4): cat, ",
        "two lines",
        r"a\|b\*c",
        "ai\\_edge\\_litert",
        "Activation ranges by minmax over 32 inputs",
        "passed. 32 images",
    ):
        assert fact in card, fact
    assert r"\<script\>alert(1)\</script\>" in card and not re.search(r"(?<!\\)[<>]", card)
    # A newline begins no heading of somebody else's.
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# model\\_int8.tflite", "## Use", "## Accuracy",
        "## Agreement with the network it was exported from", "## Quantisation", "## Network",
        "## Provenance",
    ]  # fmt: skip
    assert "- space: darts \\# Not a heading" in card.splitlines()


def test_a_card_without_labels_claims_no_accuracy(model, tmp_path):
    export(model, "onnx", tmp_path, metadata=None)
    card = (tmp_path / "model.onnx.md").read_text()
    assert "Not measured" in card and "test images, measured" not in card and "classes (" not in card
    assert not (tmp_path / "labels.txt").exists()


def test_what_is_not_compiled_is_there_all_the_same(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotCompiledError, match="no edgetpu_compiler on PATH") as caught:
        export(model, "edgetpu", tmp_path)
    assert caught.value.exit_code == 6
    artifact = read_artifact(tmp_path / "model_tpu_int8.tflite")
    require_parity(artifact)
    assert "Not compiled" in (tmp_path / "model_tpu_int8.tflite.md").read_text()
    assert (tmp_path / "labels.txt").is_file()


def test_a_folder_that_cannot_be_written_is_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EhdnasError, match="choose a writable folder") as caught:
        export(model, "onnx", tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    if os.geteuid():
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_full_disk_leaves_no_half_a_file(target, small_disk):
    with pytest.raises(EhdnasError, match="No space left on device; free some space") as caught:
        export(large(), target, small_disk, metadata=None)
    assert "\n" not in str(caught.value)
    assert not list(small_disk.iterdir())


def test_a_disk_full_after_the_file_leaves_it_whole(model, small_disk):
    """There is room for the file and for the manifest, and none for the card."""
    taken = export(model, "onnx", small_disk, metadata=None)
    needed = sum(-(-path.stat().st_size // 4096) for path in (taken.path, small_disk / "model.onnx.json"))
    for path in small_disk.iterdir():
        path.unlink()
    (small_disk / "other").write_bytes(b"x" * 4096 * (64 - needed))
    with pytest.raises(EhdnasError, match=r"model\.onnx\.\w+: No space left on device"):
        export(model, "onnx", small_disk, metadata=None)
    left = {path.name for path in small_disk.iterdir()}
    assert "model.onnx" in left <= {"other", "model.onnx", "model.onnx.json"}
    assert sha256(small_disk / "model.onnx") == taken.manifest.sha256


def test_no_room_for_temporary_files_is_one_line(model, tmp_path, small_disk, monkeypatch):
    (small_disk / "other").write_bytes(b"x" * (63 * 4096))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(EhdnasError, match="free some space or set TMPDIR"):
        export(model, "onnx", tmp_path)


def test_two_exports_at_once_into_one_folder(model, tmp_path):
    targets = ["onnx", "tflite-int8", "onnx", "tflite-int8"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda target: export(model, target, tmp_path), targets))
    names = {"model.onnx", "model_int8.tflite"}
    written = {one for name in names for one in beside(name)} | {"labels.txt"}
    assert {path.name for path in tmp_path.iterdir()} == written
    for name in names:
        artifact = read_artifact(tmp_path / name)
        assert artifact.manifest.sha256 == sha256(tmp_path / name)
        require_parity(artifact)
    assert len((tmp_path / "labels.txt").read_text().splitlines()) == 4


def test_tensors_and_doubles_are_taken_and_plain_values_made_of_arrays(model, tmp_path):
    artifact = export_network(
        model, "onnx", tmp_path, torch.from_numpy(IMAGES.astype(np.float64)), metadata={"mean": np.zeros(3)}
    )
    assert artifact.manifest.metadata["mean"] == [0, 0, 0]


WRONG = {
    "pixels": ({"images": np.zeros((4, 3, 16, 16), np.uint8)}, "images is of uint8; normalise it"),
    "a list": ({"images": [[1.0]]}, "images is a list; give a numpy array"),
    "no calibration": ({"target": "tflite-int8"}, "needs training images to calibrate on"),
    "a label too far": ({"labels": np.full(len(IMAGES), 77)}, "labels must be whole numbers from 0 to"),
    "labels in words": ({"labels": np.array(["a"] * len(IMAGES))}, "labels must be whole numbers"),
    "too few names": ({"metadata": {"classes": ["a"]}}, "1 class names for a network of"),
    "no module": ({"model": lambda x: x}, "the network is a function; give a torch nn.Module"),
    "halves": ({"model": nn.Sequential(nn.Conv2d(3, 4, 3)).half()}, r"export it as float32: network\.float"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_right_is_said_before_anything_is_written(name, model, tmp_path):
    given, says = WRONG[name]
    arguments = {"model": model, "target": "onnx", "folder": tmp_path / "out", "images": IMAGES, **given}
    with pytest.raises(EhdnasError, match=says) as caught:
        export_network(**arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_returns_a_dictionary_is_refused_before_anything_is_written(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return {"logits": self.body(x).mean((2, 3))}

    with pytest.raises(EhdnasError, match="returns a dict; it must return the logits alone"):
        export_network(Named(), "onnx", tmp_path / "out", IMAGES)
    assert not (tmp_path / "out").exists()
