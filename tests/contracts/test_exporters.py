"""What every exporter promises, whoever wrote it: one suite over all that are registered."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from ehdnas.core.artifact import read_artifact
from ehdnas.core.errors import EhdnasError, UnsupportedOperatorError, UsageError
from ehdnas.core.files import sha256
from ehdnas.core.plugins import plugin_names
from ehdnas.exporters import Exporter, Reference, check_parity, find_exporter, require_parity

SHAPE = (3, 8, 12)
IMAGES = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)


@pytest.fixture(params=plugin_names("ehdnas.exporters"))
def exporter(request):
    return find_exporter(request.param)


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def export(exporter, model, folder, name="net", metadata=None):
    return exporter.export(model, SHAPE, folder / f"{name}{exporter.suffix}", metadata, IMAGES)


def test_it_says_what_it_makes(exporter):
    assert isinstance(exporter, Exporter)
    assert exporter.target in plugin_names("ehdnas.exporters")
    assert re.fullmatch(r"\.[a-z]+", exporter.suffix)
    assert exporter.layout in ("NCHW", "NHWC")
    assert exporter.precision and exporter.file_name("net").startswith("net")
    assert exporter.file_name().endswith(exporter.suffix)
    assert any(bound is not None for bound in exporter.tolerance.model_dump().values())


def test_manifest_describes_the_file(exporter, model, tmp_path):
    metadata = {"genotype": {"normal": [["skip_connect", 0]]}, "seed": 3}
    artifact = export(exporter, model, tmp_path, metadata=metadata)
    manifest = artifact.manifest
    assert (manifest.target, manifest.precision) == (exporter.target, exporter.precision)
    assert manifest.file == artifact.path.name
    assert manifest.sha256 == sha256(artifact.path)
    assert manifest.size_bytes == artifact.path.stat().st_size
    assert {"ehdnas", "torch"} < set(manifest.versions)
    image = [1, 8, 12, 3] if exporter.layout == "NHWC" else [1, 3, 8, 12]
    assert [(i.name, i.shape, i.layout) for i in manifest.inputs] == [("input", image, exporter.layout)]
    assert [(o.name, o.shape) for o in manifest.outputs] == [("logits", [1, 5])]
    assert manifest.metadata == metadata and manifest.parity is None
    artifact.save()
    assert read_artifact(artifact.path) == artifact


def test_file_agrees_with_the_network(exporter, model, tmp_path):
    model.eval()
    artifact = export(exporter, model, tmp_path)
    artifact.manifest.parity = check_parity(artifact, Reference(model, IMAGES), exporter.tolerance)
    require_parity(artifact)


def test_network_is_left_as_it_was(exporter, model, tmp_path):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(exporter, model, tmp_path)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_is_replaced_whole_and_nothing_else_is_left(exporter, model, tmp_path):
    path = tmp_path / f"net{exporter.suffix}"
    path.write_bytes(b"older")
    export(exporter, model, tmp_path)
    assert path.read_bytes() != b"older"
    assert list(tmp_path.iterdir()) == [path]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"rnn": nn.LSTM(8, 4)})

    def forward(self, x):
        return self.encoder["rnn"](x.mean((2, 3)).repeat(1, 3)[:, :8])[0]


def test_an_unsupported_operator_is_named_and_leaves_nothing(exporter, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.lstm at encoder\.rnn") as caught:
        export(exporter, Recurrent(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(exporter, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EhdnasError, match="choose a writable folder") as caught:
        export(exporter, model, tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


def test_another_suffix_is_refused(exporter, model, tmp_path):
    with pytest.raises(UsageError, match=f"must end in \\{exporter.suffix}"):
        exporter.export(model, SHAPE, tmp_path / "net.bin", calibration=IMAGES)


def test_two_at_once_into_one_folder(exporter, tmp_path):
    models = [nn.Sequential(nn.Conv2d(3, 5, size), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for size in (1, 3)]
    with ThreadPoolExecutor(2) as pool:
        artifacts = list(pool.map(lambda i: export(exporter, models[i], tmp_path, f"net{i}"), (0, 1)))
    for artifact, model in zip(artifacts, models, strict=True):
        assert artifact.manifest.sha256 == sha256(artifact.path)
        assert check_parity(artifact, Reference(model, IMAGES), exporter.tolerance).passed


def test_a_near_miss_is_named():
    with pytest.raises(UsageError, match="did you mean 'tflite'"):
        find_exporter("tflit")
