"""Exports of what no run has trained, and what an Edge TPU takes: export, check, compile, search."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from edgetpu_programs import COMPILER, install
from torch import nn

from ehdnas.core.artifact import read_artifact
from ehdnas.core.files import sha256
from ehdnas.core.images import load_data
from ehdnas.search.spaces.darts.genotype import CHOICES
from ehdnas.search.spaces.darts.space import DartsSpace

SMALL = 'channels = 4\ncells = 3\ncalibration = "minmax"\n'
DIGITS = DartsSpace().text(DartsSpace().reference)


@pytest.fixture(autouse=True)
def path(tmp_path_factory, monkeypatch):
    """Return a folder that is all of PATH, and empty: no compiler is found, whatever is installed here."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def small(project):
    (project / "ehdnas.toml").write_text(SMALL)
    return project


def failed(result, code, says):
    """The command failed with this code and one line that says so."""
    assert result.code == code, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ") and says in last, last
    assert "Traceback" not in result.err and result.err.count("error: ") == 1
    return last


def manifest_of(path):
    return read_artifact(Path(path)).manifest


def test_one_network_in_every_form_of_its_genotype_is_one_file(small, ehdnas):
    space = DartsSpace()
    (small / "net.json").write_text(json.dumps(space.genotype(space.reference), indent=1))
    (small / "digits.txt").write_text(DIGITS + "\n")
    given = ["DARTS_V2", DIGITS, "net.json", "digits.txt", json.dumps(space.genotype(space.reference))]
    for number, genotype in enumerate(given):
        result = ehdnas("export", genotype, "--untrained", "--target", "onnx", "--out", f"out{number}")
        assert result.code == 0, result.err
        assert "not measured: no labels that this network learnt" in result.out
    files = [small / f"out{number}" / "model.onnx" for number in range(len(given))]
    assert len({sha256(file) for file in files}) == 1
    metadata = manifest_of(files[0]).metadata
    assert (metadata["genotype"], metadata["weights"]) == (DIGITS, "random: not trained")
    assert manifest_of(files[0]).parity.accuracy_after is None
    assert "Not measured" in (small / "out0" / "model.onnx.md").read_text()


def test_a_cell_is_exported_alone_and_fed_by_two(small, ehdnas):
    words = ["DARTS_V2", "--untrained", "--part", "cell1", "--out", "here"]
    result = ehdnas("export", *words, "--target", "onnx,tflite,edgetpu", "--json")
    failed(result, 6, "cell1_tpu_int8.tflite is not compiled")
    for record in json.loads(result.out)["artifacts"]:
        manifest = manifest_of(record["file"])
        assert [one.name for one in manifest.inputs] == ["input0", "input1"]
        assert [one.name for one in manifest.outputs] == ["features"]
        assert manifest.parity.passed and manifest.parity.images == 64
        assert manifest.metadata["part"] == "cell1" and manifest.metadata["genotype"] == DIGITS
    assert not (small / "here" / "labels.txt").exists()
    # The same part has the same weights, in this process or another.
    again = ["DARTS_V2", "--untrained", "--part", "cell1", "--out", "again", "--target", "onnx"]
    assert ehdnas("export", *again).code == 0
    assert sha256(small / "again" / "cell1.onnx") == sha256(small / "here" / "cell1.onnx")


def test_an_operation_is_exported_alone(small, ehdnas):
    name = "cell0.edge3.sep_conv_3x3"
    words = ["DARTS_V2", "--untrained", "--part", name, "--out", "here"]
    result = ehdnas("export", *words, "--target", "tflite-int8,onnx", "--json")
    assert result.code == 0, result.err
    files = [Path(one["file"]).name for one in json.loads(result.out)["artifacts"]]
    assert files == ["cell0_edge3_sep_conv_3x3_int8.tflite", "cell0_edge3_sep_conv_3x3.onnx"]
    manifest = manifest_of(small / "here" / files[1])
    assert [one.shape for one in (*manifest.inputs, *manifest.outputs)] == [[1, 4, 8, 8]] * 2
    assert manifest.metadata["part"] == name and "genotype" not in manifest.metadata


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["DARTS_V2", "--untrained", "--part", "cell9"], 2, "no part 'cell9'"),
        (
            ["DARTS_V2", "--untrained", "--part", "cell0.edge3.sep_conv3x3"],
            2,
            "did you mean 'cell0.edge3.sep",
        ),
        (["DARTS_V2", "--untrained", "--part", "head"], 2, "known: cell0, cell1, cell2, stem0, classifier"),
        (["DARTS_V2", "--untrained", "--part", "cell0.edge3.skip_connect"], 1, "nothing to export"),
        (["DARTS_V2", "--part", "cell0"], 2, "so say --untrained"),
        (["--part", "cell0"], 2, "--part has random weights"),
        (["--untrained"], 2, "--untrained needs a genotype"),
        (["weights.safetensors", "--untrained"], 2, "random weights are for genotypes"),
        (["weights.safetensors"], 1, "no checkpoint at weights.safetensors"),
        (["net.py:make", "--untrained"], 2, "random weights are for genotypes"),
        (["net.py:make"], 1, "no such file: net.py"),
        (["none.json", "--untrained"], 1, "no such file: none.json"),
        (['{"normal": []}', "--untrained"], 2, "no key 'reduce'"),
        (["DARTS_V2", "--untrained", "--target", "tflight"], 2, "unknown target 'tflight'; did you mean"),
        (["DARTS_V2", "--untrained", "--target", " , "], 2, "no target given; known: edgetpu, onnx"),
        (["DARTS_V2", "--untrained", "--calibration", "nonsense"], 2, "--calibration: "),
        (["DARTS_V2", "--untrained", "--calibration-images", "1"], 2, "--calibration-images: "),
        (["DARTS_V2", "--untrained", "--finetune-steps", "-1"], 2, "--finetune-steps: "),
        (["DARTS_V2", "--untrained", "--int8-io", "int4"], 2, "--int8-io: "),
        (["DARTS_V2", "--untrained", "--dilated", "maybe"], 2, "--dilated: "),
        (["DARTS_V2", "--untrained", "--segments", "0"], 2, "--segments: "),
        (["DARTS_V2", "--untrained", "--channels", "5"], 2, "even number of channels"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(small, ehdnas, words, code, says):
    result = ehdnas("export", *words, "--out", "here")
    last = failed(result, code, says)
    assert len(last) < 600 and result.out == ""
    assert not (small / "here").exists()


MODULE = """
import torch
from pathlib import Path
from torch import nn

def body(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, classes),
    )

def trained():
    network = body()
    network.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return network

def seven():
    return body(7)

def pair():
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()

def broken():
    return torch.load(Path(__file__).with_name("absent.pt"), weights_only=True)

def number():
    return 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The user's module, and weights that were trained on the digits by somebody else's loop."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "net.py").write_text(MODULE)
    names = {}
    exec(compile(MODULE, str(folder / "net.py"), "exec"), names)
    torch.manual_seed(0)
    network, data = names["body"](), load_data("digits", 0, None)
    images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2) / 255
    images, labels = (images - data.mean[0]) / data.std[0], torch.from_numpy(data.train.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture
def theirs(small, home):
    shutil.copytree(home, small, dirs_exist_ok=True)
    return small


def test_your_own_network_is_exported_with_its_weights(theirs, ehdnas):
    result = ehdnas(
        "export", "net.py:trained", "--target", "onnx,tflite-int8,edgetpu", "--out", "here", "--json"
    )
    failed(result, 6, "model_tpu_int8.tflite is not compiled")
    for record in json.loads(result.out)["artifacts"]:
        assert record["network_accuracy"] > 0.9  # so the weights are the trained ones
        assert record["file_accuracy"] == pytest.approx(record["network_accuracy"], abs=0.02)
        metadata = manifest_of(record["file"]).metadata
        assert (metadata["module"], metadata["weights"]) == ("net.py:trained", "as the module came")
        assert metadata["classes"] == [str(digit) for digit in range(10)]
    report = manifest_of(theirs / "here" / "model_tpu_int8.tflite").details["edgetpu"]
    assert report["on_cpu"] == 0  # hard swish included, which the Edge TPU has not


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            ["net.py:seven"],
            2,
            "10 classes; make it give as many, or give its own --data",
        ),
        (
            ["net.py:trained", "--data", "images:photos"],
            2,
            "does not take the images of 'images:photos', 3x32x32",
        ),
        (["net.py:pair"], 1, "must return the logits alone"),
        (["net.py:broken"], 1, "FileNotFoundError"),
        (["net.py:number"], 2, "gave a int, not an nn.Module"),
        (["net.py:absent"], 2, "'net.py' has no 'absent'"),
        (["net.py:trained", "--part", "cell0"], 2, "--part has random weights"),
    ],
)
def test_your_own_network_that_does_not_fit_is_one_line(theirs, ehdnas, words, code, says):
    from PIL import Image

    for name in ("dark", "light"):
        (theirs / "photos" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(theirs / "photos" / name / f"{index}.png")
    failed(ehdnas("export", *words, "--target", "onnx", "--out", "here"), code, says)
    assert not (theirs / "here" / "model.onnx").exists()


def test_check_says_of_each_choice_whether_it_maps(small, ehdnas):
    # What a search leaves out is shown all the same, else nobody could tell whether it should be.
    (small / "ehdnas.toml").write_text(SMALL + 'exclude = "unmapped"\n')
    shown = json.loads(ehdnas("check", "--json").out)
    assert (shown["command"], shown["target"], shown["space"]) == ("check", "edgetpu", "darts")
    assert [one["choice"] for one in shown["choices"]] == list(CHOICES[1:])
    assert all(one["maps"] and not one["problems"] for one in shown["choices"])
    result = ehdnas("check", "--dilated", "keep")
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    for name in CHOICES[1:]:
        kept = "a dilated depthwise convolution is not certain to map"
        assert (kept in rows[name]) == name.startswith("dil_conv") != rows[name].rstrip().endswith("maps")


def test_check_of_a_genotype_and_of_its_file_agree(small, ehdnas):
    checked = json.loads(ehdnas("check", "DARTS_V2", "--json").out)
    assert (checked["model"], checked["on_cpu"]) == ("DARTS_V2", 0)
    assert ehdnas("export", "DARTS_V2", "--untrained", "--target", "edgetpu", "--out", "here").code == 6
    file = small / "here" / "model_tpu_int8.tflite"
    of_file = json.loads(ehdnas("check", file, "--json").out)
    for report in (checked, of_file):
        report["operators"] = [(one["operator"], one["maps"]) for one in report["operators"]]
        assert report.pop("model")
    assert of_file == checked
    shown = ehdnas("check", file)
    assert f"{checked['on_tpu']} operators map, 0 stay on the CPU" in shown.out
    # A float file is one that an Edge TPU runs nothing of.
    assert ehdnas("export", "DARTS_V2", "--untrained", "--target", "tflite", "--out", "here").code == 0
    of_float = json.loads(ehdnas("check", small / "here" / "model.tflite", "--json").out)
    assert of_float["on_tpu"] == 0 and any("not int8" in note for note in of_float["notes"])
    for words, says in (([file], None), ([small / "here" / "gone.tflite"], "gone.tflite")):
        if says is None:
            file.write_bytes(file.read_bytes()[:1000])
        failed(ehdnas("check", *words), 1, says or "model_tpu_int8.tflite")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["DARTS_V9"], 2, "did you mean"),
        (["absent.json"], 1, "no such file: absent.json"),
        (["--space", "dart"], 2, "did you mean 'darts'"),
        (["--dilated", "no"], 2, "--dilated"),
        (["--data", "cifar10:/nowhere"], 1, "/nowhere"),
    ],
)
def test_what_cannot_be_checked_is_one_line(small, ehdnas, words, code, says):
    result = ehdnas("check", *words)
    failed(result, code, says)
    assert result.out == ""


def test_compile_takes_files_together(small, ehdnas, path):
    files = []
    for number, name in enumerate(("cell0.edge0.sep_conv_3x3", "cell0.edge0.sep_conv_5x5")):
        words = ["--untrained", "--part", name, "--target", "edgetpu", "--out", f"out{number}", "--json"]
        made = json.loads(ehdnas("export", "DARTS_V2", *words).out)["artifacts"]
        files += [Path(one["file"]) for one in made]
    last = failed(ehdnas("compile", *files), 6, "no edgetpu_compiler on PATH")
    assert "--compiler docker:IMAGE or ssh:USER@HOST" in last
    install(path, "edgetpu_compiler", COMPILER)
    shown = json.loads(ehdnas("compile", *files, "--json").out)
    expected = [small / "out0" / f"{file.stem}_edgetpu.tflite" for file in files]
    assert [one["model"] for one in shown["models"]] == [str(file) for file in files]
    assert [[small / file for file in one["files"]] for one in shown["models"]] == [[f] for f in expected]
    for file, compiled in zip(files, expected, strict=True):
        assert compiled.read_bytes().startswith(file.read_bytes())
    shown = ehdnas("compile", files[0], "--out", "apart", "--segments", 2, "--all-operators")
    assert shown.code == 0 and shown.out.count("_of_2_edgetpu.tflite") == 2 and "None" not in shown.out
    assert len(list((small / "apart").iterdir())) == 2
    failed(ehdnas("compile", *files, "--segments", 2), 2, "are of one model")
    failed(ehdnas("compile", files[0], "--min-runtime-version", 0), 2, "min_runtime_version")
    failed(ehdnas("compile", files[0], "--compiler", "dokcer:x"), 2, "is no back end")
    failed(ehdnas("compile", "gone.tflite"), 1, "gone.tflite")
    files[1].write_bytes(b"no such thing")
    failed(ehdnas("compile", *files), 1, files[1].name)


def test_a_search_for_the_coral_says_what_maps_before_it_asks_for_a_host(small, ehdnas):
    result = ehdnas("search", "--device", "coral")
    failed(result, 4, "device 'coral' has no host; set one with `ehdnas devices set coral host=")
    assert "every choice maps on the Edge TPU, by the static check" in result.err
    (small / "ehdnas.toml").write_text(SMALL + 'dilated = "keep"\n')
    result = ehdnas("search", "--device", "coral", "--exclude", "unmapped")
    failed(result, 4, "device 'coral' has no host")
    warned = [line for line in result.err.splitlines() if "would not run on the Edge TPU" in line]
    assert [line.split()[1] for line in warned] == ["dil_conv_3x3", "dil_conv_5x5"]
    assert all(line.endswith("; left out") for line in warned)
    # One that is left out by its name is warned of no more.
    result = ehdnas("search", "--device", "coral", "--exclude", "dil_conv_5x5, sep_conv_3x3")
    failed(result, 4, "device 'coral' has no host")
    (warned,) = [line for line in result.err.splitlines() if "would not run on the Edge TPU" in line]
    assert "dil_conv_3x3" in warned and warned.endswith("leave it out with --exclude unmapped")


@pytest.mark.parametrize(
    ("exclude", "says"),
    [
        ("unmapped", "needs an Edge TPU device; device 'ehdnas-generic' is none: name the choices"),
        ("sep_conv_3x4", "no choice 'sep_conv_3x4'; did you mean 'sep_conv_3x3'"),
        ("none", "no choice 'none'"),
        (",".join(CHOICES[1:]), "nothing to search"),
    ],
)
def test_what_cannot_be_left_out_of_a_search_is_refused(tiny, ehdnas, exclude, says):
    failed(ehdnas("search", "--exclude", exclude), 2, says)
    assert not (tiny / ".ehdnas" / "runs").exists()


def chosen(result):
    """The operations of the network that was found, and of all that were measured for it."""
    genotypes = [result["genotype"], *(one["genotype"] for one in result["candidates"])]
    return {CHOICES[int(digit)] for genotype in genotypes for digit in genotype} - {"none"}


def test_a_search_never_chooses_what_it_was_told_to_leave_out(tiny, ehdnas):
    """Nor where all that was measured before holds it, so that no network known may be kept."""
    kept = {"sep_conv_3x3", "sep_conv_5x5"}
    with closing(sqlite3.connect(tiny / ".ehdnas" / "measurements.db")) as store:
        known = [row[0] for row in store.execute("SELECT subject FROM measurements")]
    assert known and not any(operations(genotype) <= kept for genotype in known)
    left_out = ", ".join(name for name in CHOICES[1:] if name not in kept)
    found = ehdnas("search", "--exclude", left_out, "--budget", "3x", "--json")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert result["chosen"]["figures"][0]["value"] <= result["budgets"][0]["bound"]
    for genotype in (result["genotype"], *(one["genotype"] for one in result["candidates"])):
        assert operations(genotype) <= kept
    again = json.loads(ehdnas("search", "--resume", "--json").out)  # with what the run was made with
    assert (again["run"], again["genotype"]) == (result["run"], result["genotype"])
    # Nor is the fastest network of all kept, when none that is allowed can meet the budget.
    refused = failed(ehdnas("search", "--exclude", left_out, "--budget", "0.3x"), 3, "the nearest found has")
    assert operations(refused.partition("(genotype ")[2].partition(")")[0]) <= kept


def operations(genotype):
    return {CHOICES[int(digit)] for digit in genotype} - {"none"}


@pytest.mark.parametrize("name", ["nets.py", "model.onnx", "model.pt"])
def test_a_file_that_is_no_start_of_an_export_is_told_what_is(small, ehdnas, name):
    result = ehdnas("export", name, "--out", "here")
    assert result.code == 2 and "FUNCTION" in result.err.splitlines()[-1]


def test_what_was_made_before_a_target_failed_is_shown(small, ehdnas):
    result = ehdnas(
        "export", "DARTS_V2", "--untrained", "--target", "onnx,tensorrt", "--compiler", "docker:any", "--out",
        "here", "--json",
    )  # fmt: skip
    assert result.code == 2
    assert [one["target"] for one in json.loads(result.out)["artifacts"]] == ["onnx"]


def test_a_folder_with_other_classes_is_refused(small, ehdnas):
    (small / "here").mkdir()
    (small / "here" / "labels.txt").write_text("cat\ndog\n")
    result = ehdnas("export", "DARTS_V2", "--untrained", "--target", "onnx", "--out", "here")
    assert result.code == 2 and "other classes" in result.err.splitlines()[-1]
    assert (small / "here" / "labels.txt").read_text() == "cat\ndog\n"
