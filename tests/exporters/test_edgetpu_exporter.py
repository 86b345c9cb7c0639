"""The Edge TPU target from a network to a compiled file, and what is left where there is no compiler.

The compiler is closed and is not here: the stand-in of `edgetpu_programs` takes its place.
"""

import json
from collections import Counter

import numpy as np
import pytest
from edgetpu_programs import COMPILER, install
from torch import nn

from ehdnas.core.artifact import read_artifact
from ehdnas.core.errors import ExportError, NotCompiledError, UsageError
from ehdnas.core.files import sha256
from ehdnas.exporters import ExportOptions, export_network, find_exporter, run_artifact
from ehdnas.exporters.tflite.file import read_tflite

CALIBRATION = np.random.default_rng(1).standard_normal((32, 3, 16, 16)).astype(np.float32)
METADATA = {"classes": [f"class {index}" for index in range(10)], "mean": [0.5] * 3, "std": [0.25] * 3}
# What maps does not depend on how well scales are chosen.
QUICK = {"calibration": "minmax", "bias_correction": False}
INT8 = "model_tpu_int8.tflite"
COMPILED = "model_tpu_int8_edgetpu.tflite"
BESIDE = ("", ".cc", ".json", ".md", ".py")


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Return a folder that is all of PATH, and empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def stand_in(path):
    install(path, "edgetpu_compiler", COMPILER)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def export(model, out, images, **options):
    return export_network(
        model, "edgetpu", out, images, calibration=CALIBRATION, metadata=METADATA,
        options=ExportOptions(**{**QUICK, **options}),
    )  # fmt: skip


def static_report(model, folder, **options):
    exporter = find_exporter("edgetpu", ExportOptions(**{**QUICK, **options}))
    artifact = exporter.export(model, (3, 16, 16), folder / exporter.file_name(), {}, CALIBRATION)
    return artifact.manifest.details["edgetpu"]


def on_cpu(report):
    return [(one["operator"], one["reason"]) for one in report["operators"] if not one["maps"]]


def depthwise(folder):
    """How many depthwise convolutions there are of each (kernel, dilation); scales of 1x1 left out."""
    file = read_tflite(folder / INT8)
    found = [one for one in file.operators if one.name == "DEPTHWISE_CONV_2D"]
    windows = [(file.tensors[one.inputs[1]].shape[1], one.options["dilation_w_factor"]) for one in found]
    return Counter(window for window in windows if window[0] > 1)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_without_a_compiler_all_is_written_and_it_is_said_that_nothing_was_compiled(darts_like, images, out):
    with pytest.raises(NotCompiledError) as caught:
        export(darts_like, out, images)
    message = str(caught.value)
    assert str(out / INT8) in message and "--compiler docker:IMAGE or ssh:USER@HOST" in message
    assert "\n" not in message and caught.value.exit_code == 6
    assert names(out) == ["labels.txt", *(f"{INT8}{ending}" for ending in BESIDE)]
    manifest = read_artifact(out / INT8).manifest
    assert (manifest.target, manifest.precision) == ("edgetpu", "int8")
    assert manifest.sha256 == sha256(out / INT8) and manifest.parity.passed
    report = manifest.details["edgetpu"]
    assert (report["on_tpu"], report["on_cpu"]) == (len(report["operators"]), 0)
    assert report["parameters_bytes"] > 0 and report["streamed_bytes"] == 0
    assert "compilation" not in manifest.details and "edgetpu_compiler" not in manifest.versions
    card = (out / f"{INT8}.md").read_text()
    assert f"{report['on_tpu']} operators map and 0 stay on the CPU" in card
    assert "Not compiled: this file runs on a CPU" in card
    assert manifest.inputs[0].dtype == manifest.outputs[0].dtype == "int8"


@pytest.mark.usefixtures("stand_in")
def test_a_compiler_on_path_finishes_the_job(darts_like, images, out):
    artifact = export(darts_like, out, images)
    assert artifact.path == out / COMPILED
    assert names(out) == sorted(
        ["labels.txt", *(f"{name}{end}" for name in (INT8, COMPILED) for end in BESIDE)]
    )
    assert read_artifact(artifact.path) == artifact
    manifest, source = artifact.manifest, read_artifact(out / INT8).manifest
    assert (manifest.file, manifest.size_bytes) == (COMPILED, artifact.path.stat().st_size)
    assert manifest.sha256 == sha256(artifact.path) != source.sha256
    assert manifest.versions == {**source.versions, "edgetpu_compiler": "16.0.384591198"}
    assert manifest.details["compiled_from"] == {"file": INT8, "sha256": source.sha256}
    compilation = manifest.details["compilation"]
    assert (compilation["on_tpu"], compilation["on_cpu"], compilation["succeeded"]) == (12, 1, True)
    assert (compilation["input_model"], compilation["output_model"]) == (INT8, COMPILED)
    # The file that went in still says of itself what is true of it.
    assert "compilation" not in source.details and source.sha256 == sha256(out / INT8)
    assert manifest.metadata == source.metadata and manifest.inputs == source.inputs
    assert manifest.parameters_sha256 == source.parameters_sha256
    card = (out / f"{COMPILED}.md").read_text()
    assert "By the compiler (16.0.384591198), 12 run on the Edge TPU and 1 on the CPU." in card
    assert "Not compiled" not in card and "Not compiled" in (out / f"{INT8}.md").read_text()


@pytest.mark.usefixtures("stand_in")
def test_segments_are_artifacts_of_their_own(darts_like, images, out):
    last = export(darts_like, out, images, segments=3)
    files = [out / f"model_tpu_int8_segment_{index}_of_3_edgetpu.tflite" for index in range(3)]
    assert last.path == files[-1]
    found = [read_artifact(file) for file in files]
    assert [one.manifest.sha256 for one in found] == [sha256(file) for file in files]
    assert len({one.manifest.sha256 for one in found}) == 3
    assert [one.manifest.details["compilation"]["output_model"] for one in found] == [f.name for f in files]
    assert all((out / f"{file.name}.md").is_file() for file in files)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("wish", "says"),
    [("fail", "Didn't find op for builtin opcode"), ("crash", "exit code 134"), ("garbage", "no TensorFlow")],
)
def test_a_compiler_that_fails_leaves_the_int8_file_and_its_manifest(
    darts_like, images, out, monkeypatch, wish, says
):
    monkeypatch.setenv("STAND_IN", wish)
    with pytest.raises(ExportError, match=says) as caught:
        export(darts_like, out, images)
    assert "\n" not in str(caught.value)
    assert [name for name in names(out) if "labels" not in name] == [f"{INT8}{ending}" for ending in BESIDE]
    artifact = read_artifact(out / INT8)
    assert artifact.manifest.sha256 == sha256(out / INT8) and artifact.manifest.parity.passed
    assert run_artifact(out / INT8, images).outputs.shape == (5, 10)


@pytest.mark.usefixtures("stand_in")
def test_a_success_with_nothing_on_the_tpu_is_not_hidden(darts_like, images, out, monkeypatch):
    monkeypatch.setenv("STAND_IN", "cpu")
    compilation = export(darts_like, out, images).manifest.details["compilation"]
    assert (compilation["on_tpu"], compilation["on_cpu"]) == (0, 13)
    assert "0 run on the Edge TPU and 13 on the CPU" in (out / f"{COMPILED}.md").read_text()


def test_a_compiler_that_was_named_and_is_not_there_is_no_loss_either(darts_like, images, out):
    with pytest.raises(NotCompiledError, match="neither docker nor podman is on PATH"):
        export(darts_like, out, images, compiler="docker:coral")
    assert json.loads((out / f"{INT8}.json").read_text())["parity"]["passed"]


def test_a_compiler_that_cannot_be_is_a_usage_error(darts_like, images, out):
    with pytest.raises(UsageError, match="is no back end"):
        export(darts_like, out, images, compiler="dokcer:coral")


def test_dilated_kernels_map_expanded_and_are_not_certain_to_when_kept(darts_like, tmp_path):
    expanded = static_report(darts_like, tmp_path / "expanded", dilated="expand")
    kept = static_report(darts_like, tmp_path / "kept", dilated="keep")
    assert not on_cpu(expanded)
    own = [operator for operator, reason in on_cpu(kept) if "dilated depthwise" in reason]
    assert own == ["DEPTHWISE_CONV_2D"] * 2
    # The first that is not certain takes all after it along: one partition is all that the Edge TPU has.
    assert ("FULLY_CONNECTED", "More than one subgraph is not supported") in on_cpu(kept)
    assert kept["on_tpu"] > 0 and kept["on_tpu"] + kept["on_cpu"] == len(kept["operators"])
    # Zeros between the weights: the 5x5 of the network becomes 9x9, its dilated 3x3 another 5x5.
    assert depthwise(tmp_path / "expanded") == {(3, 1): 1, (9, 1): 1, (5, 1): 2}
    assert depthwise(tmp_path / "kept") == {(3, 1): 1, (5, 2): 1, (5, 1): 1, (3, 2): 1}


def test_kept_or_expanded_the_network_is_the_same(darts_like, images, tmp_path):
    outputs = {}
    for dilated in ("expand", "keep"):
        exporter = find_exporter("edgetpu", ExportOptions(**QUICK, dilated=dilated))
        file = tmp_path / f"{dilated}.tflite"
        exporter.export(darts_like, (3, 16, 16), file, {}, CALIBRATION)
        outputs[dilated] = run_artifact(file, images).outputs
    assert np.abs(outputs["expand"] - outputs["keep"]).max() < 0.05 * np.abs(outputs["keep"]).max()


def test_networks_people_deploy_stay_off_the_cpu(network, tmp_path, operators_of):
    """Those with hard swish and squeeze-and-excite included; grouped convolutions have no form that maps."""
    report = static_report(network, tmp_path)
    operators = operators_of(tmp_path / INT8)
    assert "HARD_SWISH" not in operators and "CONV_2D" in operators
    if type(network).__name__ == "Oddments":
        assert on_cpu(report)
    else:
        assert not on_cpu(report), on_cpu(report)


def test_hard_swish_is_written_out_for_this_target_alone(tmp_path, operators_of):
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8, 10)).eval()
    exporter = find_exporter("tflite-int8", ExportOptions(**QUICK))
    exporter.export(model, (3, 16, 16), tmp_path / "plain.tflite", {}, CALIBRATION)
    report = static_report(model, tmp_path)
    assert "HARD_SWISH" in operators_of(tmp_path / "plain.tflite")
    assert "HARD_SWISH" not in operators_of(tmp_path / INT8)
    assert not on_cpu(report)
