"""The parity check: what it reports, and that a bad file or interpreter is reported rather than suffered."""

import numpy as np
import pytest
import torch
from torch import nn

from ehdnas.core.artifact import read_artifact
from ehdnas.core.errors import DataError, ExportError, ParityError
from ehdnas.exporters import Reference, check_parity, find_exporter, require_parity, run_artifact
from ehdnas.exporters.base import FLOAT32
from ehdnas.exporters.parity import run as parity

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(params=["onnx", "tflite"])
def artifact(request, model, tmp_path):
    exporter = find_exporter(request.param)
    return exporter.export(model, (3, 8, 8), tmp_path / f"net{exporter.suffix}")


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Return a function that puts another program in the runner's place."""

    def replace(program):
        (tmp_path / "runner.py").write_text(program)
        monkeypatch.setattr(parity, "_RUNNER", tmp_path / "runner.py")

    return replace


def test_figures_are_those_of_the_logits(artifact, model):
    expected = model(torch.from_numpy(IMAGES)).detach().numpy()
    outcome = run_artifact(artifact.path, IMAGES)
    np.testing.assert_allclose(outcome.outputs, expected, atol=1e-6)
    assert outcome.interpreter.split()[0] in ("ai_edge_litert", "onnxruntime")
    # A bias moved by 0.5 in one of four classes: the largest difference is 0.5, the mean an eighth.
    model[0].bias.data[1] += 0.5
    found = check_parity(artifact, Reference(model, IMAGES), FLOAT32)
    assert found.images == 4 and not found.passed
    assert found.max_difference == pytest.approx(0.5, abs=1e-5)
    assert found.mean_difference == pytest.approx(0.125, abs=1e-5)
    moved = expected + np.array([0, 0.5, 0, 0])
    assert found.top1_agreement == (moved.argmax(1) == expected.argmax(1)).mean() < 1


def test_a_pass_is_kept_with_the_artifact(artifact, model):
    with pytest.raises(ParityError, match="never compared"):
        require_parity(artifact)
    artifact.manifest.parity = check_parity(artifact, Reference(model, IMAGES), FLOAT32)
    artifact.save()
    require_parity(read_artifact(artifact.path))


def test_a_failure_is_one_line_with_figures(artifact, model):
    model[0].weight.data += 1
    artifact.manifest.parity = check_parity(artifact, Reference(model, IMAGES), FLOAT32)
    with pytest.raises(ParityError) as caught:
        require_parity(artifact)
    message = str(caught.value)
    assert "\n" not in message and "allowed" in message and "on 4 images" in message


def test_a_logit_that_is_no_number_fails_and_can_be_saved(artifact, model):
    model[0].bias.data[0] = float("nan")
    artifact.manifest.parity = check_parity(artifact, Reference(model, IMAGES), FLOAT32)
    assert not artifact.manifest.parity.passed
    assert read_artifact(artifact.save().with_suffix("")).manifest.parity == artifact.manifest.parity


def test_the_network_is_left_as_it_was(artifact, model):
    model.train()
    model[1].eval()
    check_parity(artifact, Reference(model, IMAGES), FLOAT32)
    assert [module.training for module in model] == [True, False, True]


def test_an_interpreter_that_aborts_is_reported(artifact, runner):
    runner("import os\nos.abort()\n")
    with pytest.raises(ExportError, match="ended its interpreter with SIGABRT"):
        run_artifact(artifact.path, IMAGES)


def test_an_interpreter_that_hangs_is_ended(artifact, runner):
    runner("import time\ntime.sleep(60)\n")
    with pytest.raises(ExportError, match=r"did not finish within 0\.5 s"):
        run_artifact(artifact.path, IMAGES, timeout_s=0.5)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_a_damaged_file_is_one_line(suffix, tmp_path):
    (tmp_path / f"net{suffix}").write_bytes(b"not a model")
    with pytest.raises(ExportError, match="does not run in its interpreter") as caught:
        run_artifact(tmp_path / f"net{suffix}", IMAGES)
    assert "\n" not in str(caught.value)


def test_absent_files_and_images_are_named(artifact, tmp_path):
    with pytest.raises(DataError, match=r"gone\.onnx does not exist"):
        run_artifact(tmp_path / "gone.onnx", IMAGES)
    with pytest.raises(DataError, match="no images"):
        run_artifact(artifact.path, IMAGES[:0])
