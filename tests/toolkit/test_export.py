"""The trained run exported to every target, and what is left when something is missing or in the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgetpu_programs import COMPILER, install

from ehdnas.core.artifact import read_artifact
from ehdnas.core.files import sha256
from ehdnas.core.plugins import plugin_names
from ehdnas.exporters import run_artifact
from ehdnas.search.checkpoint import load_checkpoint, save_checkpoint
from ehdnas.workspace import find_workspace

TARGETS = plugin_names("ehdnas.exporters")
INT8 = "model_tpu_int8.tflite"
COMPILED = "model_tpu_int8_edgetpu.tflite"


@pytest.fixture(autouse=True)
def path(tmp_path_factory, monkeypatch):
    """Return a folder that is all of PATH, and empty: no compiler is found, whatever is installed here."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, profiled):
    """The workspace of a run that is trained, its network one with dilated convolutions: made once."""
    from ehdnas.cli import main

    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    shutil.copy(profiled.parent / "ehdnas.toml", folder)
    shutil.copytree(profiled, folder / ".ehdnas")
    os.chdir(folder)
    try:
        only = "max_pool_3x3,avg_pool_3x3,sep_conv_3x3,sep_conv_5x5"
        assert main(["search", "--budget", "5x", "--exclude", only]) == 0
        assert main(["train"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def trained(project, workspace):
    """A project with that run."""
    shutil.copytree(workspace, project, symlinks=True, dirs_exist_ok=True)
    return project


def failed(result, code, says):
    """The command failed with this code and one line that says so."""
    assert result.code == code, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ") and says in last, last
    assert "Traceback" not in result.err and result.err.count("error: ") == 1
    return last


def records(run):
    return {Path(one["file"]).name: one for one in run.read("export")["artifacts"]}


def whole(folder):
    """Every file has the manifest that is its own, and nothing half-written lies about."""
    found = {}
    for manifest in folder.glob("model*.json"):
        found[manifest.stem] = read_artifact(manifest.with_suffix("")).manifest
        assert found[manifest.stem].sha256 == sha256(manifest.with_suffix(""))
        assert manifest.with_suffix(".md").is_file()
    assert not [file.name for file in folder.iterdir() if file.name.startswith(".")]
    return found


def test_every_target_in_one_go_and_exit_6_for_what_no_compiler_finished(trained, ehdnas):
    result = ehdnas("export", "--target", ",".join(TARGETS), "--json")
    last = failed(result, 6, INT8)
    shown = json.loads(result.out)
    assert (shown["version"], shown["command"]) == (1, "export")
    assert {one["target"] for one in shown["artifacts"]} == set(TARGETS)
    assert len(shown["not_compiled"]) == 2 and "; ".join(shown["not_compiled"]) in last
    assert any("trtexec --onnx=model_tensorrt.onnx" in line for line in shown["not_compiled"])
    run = find_workspace().latest()
    folder = run.folder / "export"
    assert {one["file"] for one in shown["artifacts"]} == {str(folder / name) for name in whole(folder)}
    assert run.read("export")["artifacts"] == shown["artifacts"]
    accuracy = run.read("train")["test_accuracy"]
    test = np.load(folder / "test_images.npz")
    for one in shown["artifacts"]:
        assert one["parity"]["passed"] and one["network_accuracy"] == pytest.approx(accuracy, abs=0.003)
        # The figure is the file's own: taken again, from the file and what lies beside it alone.
        meta = read_artifact(Path(one["file"])).manifest.metadata
        images = (test["images"].transpose(0, 3, 1, 2) / 255 - meta["mean"]) / meta["std"]
        answers = run_artifact(Path(one["file"]), images.astype(np.float32)).outputs.argmax(1)
        assert (answers == test["labels"]).mean() == pytest.approx(one["file_accuracy"], abs=0.003)
        assert meta["genotype"] == run.genotype
    assert (folder / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    assert (folder / "split.json").is_file()


def test_what_is_shown_says_what_would_map_and_what_is_left_to_do(trained, ehdnas):
    result = ehdnas("export", "--target", "edgetpu")
    failed(result, 6, "is not compiled: no edgetpu_compiler on PATH")
    assert "Mapped to Edge TPU" in result.out and "0 stay on the CPU" in result.out
    assert "file accuracy" in result.out and "(network " in result.out


def test_a_compiler_is_found_and_its_account_shown(trained, ehdnas, path):
    install(path, "edgetpu_compiler", COMPILER)
    result = ehdnas("export", "--target", "edgetpu")
    assert result.code == 0, result.err
    assert "12 operators mapped, 1 on the CPU, by compiler 16.0.384591198" in result.out
    assert "None" not in result.out
    run = find_workspace().latest()
    assert list(records(run)) == [INT8, COMPILED] and set(whole(run.folder / "export")) == {INT8, COMPILED}
    assert records(run)[COMPILED]["details"]["compiled_from"]["sha256"] == records(run)[INT8]["sha256"]


def test_a_compiler_that_refuses_leaves_the_file_it_was_given(trained, ehdnas, path, monkeypatch):
    install(path, "edgetpu_compiler", COMPILER)
    monkeypatch.setenv("STAND_IN", "fail")
    result = ehdnas("export", "--target", "edgetpu,onnx")
    failed(result, 1, "cannot compile model_tpu_int8.tflite: Didn't find op")
    assert "file accuracy" in result.out
    folder = find_workspace().latest().folder / "export"
    assert set(whole(folder)) == {INT8, "model.onnx"} and (folder / "labels.txt").is_file()


def test_settings_of_the_project_are_heeded_though_the_run_was_before_them(trained, ehdnas, path):
    kept = (trained / "ehdnas.toml").read_text()
    assert ehdnas("export", "--target", "edgetpu").code == 6
    run = find_workspace().latest()
    assert "dil_conv" in json.dumps(run.read("search")["cells"])
    assert records(run)[INT8]["details"]["edgetpu"]["on_cpu"] == 0
    (trained / "ehdnas.toml").write_text(
        kept + 'dilated = "keep"\ncompiler = "docker:coral"\nint8_io = "uint8"\ncalibration = "minmax"\n'
    )
    failed(ehdnas("export", "--target", "edgetpu"), 6, "neither docker nor podman is on PATH")
    record = records(run)[INT8]
    assert record["details"]["edgetpu"]["on_cpu"] > 0
    assert record["details"]["quantisation"]["calibration"] == "minmax"
    manifest = read_artifact(Path(record["file"])).manifest
    assert manifest.inputs[0].dtype == manifest.outputs[0].dtype == "uint8"
    # A flag is nearer than the file.
    install(path, "edgetpu_compiler", COMPILER)
    flags = ["--compiler", "path", "--dilated", "expand", "--segments", 2]
    assert ehdnas("export", "--target", "edgetpu", *flags).code == 0
    parts = [f"model_tpu_int8_segment_{index}_of_2_edgetpu.tflite" for index in (0, 1)]
    assert list(records(run)) == [INT8, *parts]
    assert records(run)[INT8]["details"]["edgetpu"]["on_cpu"] == 0


def test_a_later_export_keeps_the_earlier_targets_and_not_what_it_replaced(trained, ehdnas, path):
    install(path, "edgetpu_compiler", COMPILER)
    run = find_workspace().latest()
    assert ehdnas("export", "--target", "onnx,edgetpu").code == 0
    first = records(run)
    assert list(first) == ["model.onnx", INT8, COMPILED]
    (path / "edgetpu_compiler").unlink()
    assert ehdnas("export", "--target", "edgetpu", "--int8-io", "uint8").code == 6
    # What was compiled before came from another file: it is not this export's any more.
    assert list(records(run)) == ["model.onnx", INT8]
    assert records(run)["model.onnx"] == first["model.onnx"]
    assert records(run)[INT8]["sha256"] != first[INT8]["sha256"]
    (run.folder / "export" / "model.onnx").unlink()
    assert ehdnas("export", "--target", "tflite").code == 0
    assert list(records(run)) == [INT8, "model.tflite"]


def test_files_put_elsewhere_are_found_from_any_folder(trained, ehdnas, monkeypatch):
    assert ehdnas("export", "--target", "onnx", "--out", "here").code == 0
    (trained / "below").mkdir()
    monkeypatch.chdir(trained / "below")
    assert ehdnas("export", "--target", "tflite").code == 0
    run = find_workspace().latest()
    assert [Path(one["file"]) for one in run.read("export")["artifacts"]] == [
        trained / "here" / "model.onnx",
        run.folder / "export" / "model.tflite",
    ]


def test_a_run_at_work_is_left_alone(trained, ehdnas):
    with find_workspace().latest().working():
        failed(ehdnas("export", "--target", "onnx"), 2, "another ehdnas is working on run")


def test_a_folder_that_cannot_be_written_is_one_line(trained, ehdnas):
    (trained / "file").write_text("in the way")
    failed(ehdnas("export", "--target", "onnx", "--out", "file"), 1, "choose a writable folder")
    failed(ehdnas("export", "--target", "onnx", "--out", "file/below"), 1, "choose a writable folder")
    assert not find_workspace().latest().has("export")


def test_two_exports_at_once_into_one_folder_leave_whole_files(project):
    (project / "ehdnas.toml").write_text("channels = 4\ncells = 3\n")
    words = ["export", "DARTS_V2", "--untrained", "--target", "onnx,onnx-int8", "--out", "shared"]
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "ehdnas", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for command in commands:
        out, err = command.communicate(timeout=200)
        assert (command.returncode, "Traceback" in err) == (0, False), err
        assert out.count("parity") == 2
    assert set(whole(project / "shared")) == {"model.onnx", "model_int8.onnx"}
    assert len(np.load(project / "shared" / "test_images.npz")["labels"]) == 355


@pytest.fixture
def weights(trained):
    """A copy of the trained weights, outside of any run."""
    return Path(shutil.copy(find_workspace().latest().weights, trained / "weights.safetensors"))


def opened(path):
    """The tensors and the facts in a weights file that will change: in memory of their own."""
    tensors, meta = load_checkpoint(path)
    return {name: tensor.clone() for name, tensor in tensors.items()}, meta


def test_trained_weights_are_exported_from_their_file_alone(trained, ehdnas, weights):
    run = find_workspace().latest()
    genotype, accuracy = run.genotype, run.read("train")["test_accuracy"]
    shutil.rmtree(trained / ".ehdnas")
    (trained / "ehdnas.toml").unlink()  # sizes are in the file too
    result = ehdnas("export", weights, "--target", "onnx", "--out", "here", "--json")
    assert result.code == 0, result.err
    (record,) = json.loads(result.out)["artifacts"]
    assert record["file_accuracy"] == pytest.approx(accuracy, abs=0.003)
    metadata = whole(trained / "here")["model.onnx"].metadata
    assert metadata["genotype"] == genotype and metadata["test_accuracy"] == accuracy
    failed(ehdnas("export", weights, "--target", "onnx"), 2, "say where to: --out DIR")


def test_weights_that_are_not_whole_or_not_ours_are_one_line(trained, ehdnas, weights):
    from safetensors.numpy import save_file

    good = weights.read_bytes()
    tensors, meta = opened(weights)
    no_genotype = {key: value for key, value in meta.items() if key != "genotype"}
    no_mean = {key: value for key, value in meta.items() if key != "mean"}
    other = meta["shape"] | {"channels": 8}
    cases = [
        (lambda: weights.write_bytes(good[:-100]), "is not a whole checkpoint of ehdnas"),
        (lambda: weights.write_bytes(good[:7]), "is not a whole checkpoint of ehdnas"),
        (lambda: weights.write_bytes(b"\xff" * 64 + good), "is not a whole checkpoint of ehdnas"),
        (lambda: weights.write_bytes(b""), "is not a whole checkpoint of ehdnas"),
        (lambda: save_file({"a": np.zeros(3)}, weights), "is not a whole checkpoint of ehdnas"),
        (lambda: save_checkpoint(weights, tensors, no_genotype), "does not say which network"),
        (lambda: save_checkpoint(weights, tensors, no_mean), "does not say the mean of what"),
        (lambda: save_checkpoint(weights, tensors, meta | {"classes": ["a"]}), "does not say the classes"),
        (lambda: save_checkpoint(weights, tensors, meta | {"shape": other}), "weights of another network"),
        (weights.unlink, "no checkpoint at"),
    ]
    for spoil, says in cases:
        spoil()
        failed(ehdnas("export", weights, "--target", "onnx", "--out", "here"), 1, says)
        assert not (trained / "here").exists()


def test_data_that_are_not_the_networks_own_are_refused(trained, ehdnas, weights, photos):
    where = ["--target", "onnx", "--out", "here"]
    says = "takes images of 1x8x8 and 'images:photos' has 3x32x32; give its own data with --data"
    failed(ehdnas("export", weights, *where, "--data", "images:photos"), 2, says)
    tensors, meta = opened(weights)
    save_checkpoint(weights, tensors, meta | {"classes": list("abcdefghij")})
    failed(ehdnas("export", weights, *where), 2, "tells other classes apart than 'digits' has")
    # Nor can the run itself be exported on other data than it was trained on.
    failed(ehdnas("export", "--target", "onnx", "--data", "images:photos"), 2, "takes images of 1x8x8")
    assert not (trained / "here").exists()


@pytest.fixture
def photos(project):
    """Images of two classes, of 32x32 pixels in colour."""
    from PIL import Image

    for name, shade in (("dark", 40), ("light", 200)):
        (project / "photos" / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (32, 32), (shade, shade + index, shade)).save(
                project / "photos" / name / f"{index}.png"
            )
    return project / "photos"
