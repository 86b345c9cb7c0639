"""The main job through the command line, at a size that takes seconds, on real digits."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, json, numpy as np
from ai_edge_litert.interpreter import Interpreter
folder = sys.argv[1]
meta = json.load(open(folder + "/model.tflite.json"))["metadata"]
data = np.load(folder + "/test_images.npz")
net = Interpreter(folder + "/model.tflite"); net.allocate_tensors()
right = 0
for image, label in zip(data["images"], data["labels"]):
    x = ((image[None] / 255 - meta["mean"]) / meta["std"]).astype(np.float32)
    net.set_tensor(net.get_input_details()[0]["index"], x)
    net.invoke(); right += int(net.get_tensor(net.get_output_details()[0]["index"]).argmax() == label)
print(right / len(data["labels"]))
"""


def test_the_stages_follow_one_another_with_no_paths_typed(tiny, ehdnas):
    profiled = ehdnas("profile", "--device", "ehdnas-generic", "--json")
    assert profiled.code == 0
    assert json.loads(profiled.out)["basis"] == "simulated"
    searched = json.loads(ehdnas("search", "--json").out)
    (budget,), (figure,) = searched["budgets"], searched["chosen"]["figures"]
    assert budget["device"] == "ehdnas-generic"
    assert figure["value"] <= budget["bound"]
    trained = json.loads(ehdnas("train", "--json").out)
    assert trained["run"] == searched["run"]
    exported = json.loads(ehdnas("export", "--target", "tflite", "--json").out)
    (artifact,) = exported["artifacts"]
    assert artifact["parity"]["passed"]
    assert artifact["file_accuracy"] == pytest.approx(trained["test_accuracy"], abs=0.002)
    folder = Path(artifact["file"]).parent
    alone = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True
    )
    assert float(alone.stdout) == pytest.approx(artifact["file_accuracy"], abs=0.002)
    page = Path(json.loads(ehdnas("report", "--json").out)["report"]).read_text()
    assert searched["genotype"] in page
    assert ehdnas("predict", "DARTS_V2").code == 0


def test_run_does_it_all_and_says_it_was_simulated(tiny, ehdnas):
    result = ehdnas("run", "--targets", "onnx", "--json")
    assert result.code == 0
    said = json.loads(result.out)
    assert (said["verdict"], said["figures"][0]["basis"]) == ("PASS", "simulated")
    assert Path(said["report"]).is_file()
    assert Path(said["artifacts"][0]["file"]).is_file()
    assert json.loads(ehdnas("run", "--resume", "--json").out)["run"] == said["run"]


def test_search_alone_works_and_the_same_seed_gives_the_same_network(tiny, ehdnas):
    first = json.loads(ehdnas("search", "--json").out)
    second = json.loads(ehdnas("search", "--json").out)
    assert first["run"] != second["run"]
    assert first["genotype"] == second["genotype"]
    assert first["history"] == second["history"]


def test_a_throughput_budget_is_met_from_below(tiny, ehdnas):
    found = json.loads(ehdnas("search", "--budget", "throughput >= 60000 fps", "--json").out)
    assert found["budgets"][0]["metric"] == "throughput_fps"
    assert found["chosen"]["figures"][0]["value"] >= 60000


def test_a_budget_nothing_can_meet_exits_3_and_names_the_nearest(tiny, ehdnas):
    result = ehdnas("search", "--budget", "latency <= 1 us")
    assert result.code == 3
    assert "the nearest found has latency <=" in result.err.splitlines()[-1]
    assert not (tiny / ".ehdnas" / "runs").exists()


def test_a_tight_budget_is_looked_for_beyond_what_was_sampled(project, ehdnas):
    """60 samples do not show the fastest networks; where labels are cheap, the search goes and finds them."""
    (project / "ehdnas.toml").write_text("channels = 4\ncells = 3\nsamples = 60\nbatch_size = 64\n")
    flags = ["--search-epochs", 1, "--finalists", 1, "--budget", "latency <= 0.0047 ms", "--json"]
    found = ehdnas("search", *flags)
    assert found.code == 0, found.err
    assert json.loads(found.out)["chosen"]["figures"][0]["value"] <= 0.0047


def test_profiling_stops_when_its_time_is_up(tiny, ehdnas):
    flags = ["--device", "ehdnas-generic", "--samples", 1_000_000, "--minutes", 0.002]
    result = ehdnas("profile", *flags)
    assert result.code == 0
    assert "time is up after" in result.err


def test_resuming_with_other_settings_says_which_differ(found, ehdnas):
    result = ehdnas("search", "--resume", "--seed", 9)
    assert result.code == 2
    assert "seed (was 0, now 9)" in result.err


def test_an_untrained_genotype_exports_and_says_so(tiny, ehdnas):
    result = ehdnas("export", "DARTS_V2", "--untrained", "--target", "onnx", "--out", "here", "--json")
    assert result.code == 0
    manifest = json.loads((tiny / "here" / "model.onnx.json").read_text())
    assert "random" in manifest["metadata"]["weights"]
    assert manifest["parity"]["passed"]


@pytest.fixture
def some_cifar(cifar_dir, tmp_path):
    """The first thousand training and five hundred test images, in the same layout."""
    folder = tmp_path / "some-cifar"
    folder.mkdir()
    for name, count in (("data_batch_1", 1000), ("test_batch", 500)):
        batch = pickle.loads((cifar_dir / name).read_bytes(), encoding="bytes")
        some = {key: value[:count] if key in (b"data", b"labels") else value for key, value in batch.items()}
        (folder / name).write_bytes(pickle.dumps(some, protocol=2))
    return folder


def test_search_runs_on_real_cifar10(project, ehdnas, some_cifar):
    result = ehdnas(
        "search", "--data", f"cifar10:{some_cifar}", "--channels", 4, "--cells", 3, "--samples", 60,
        "--search-epochs", 1, "--finalists", 2, "--trial-epochs", 1, "--batch-size", 64, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads(result.out)["shape"] == "c4x3-3x32x32-10-cifar"
    trained = ehdnas("train", "--train-epochs", 2, "--batch-size", 32, "--json")
    assert json.loads(trained.out)["test_accuracy"] > 0.1
