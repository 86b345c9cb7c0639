"""A search on an imported table: counted queries, an answer out of the table, and training it afterwards."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ehdnas.search.spaces.base import find_space

SPACE = find_space("nasbench201")
OF = ("--device", "mine", "--space", "nasbench201")
SEARCH = ("search", *OF, "--predictor", "linear")


@pytest.fixture
def table(project, ehdnas):
    """Import a table of random networks, with or without accuracies; return their (latency, accuracy)."""

    def make(accuracies=True, count=80):
        rng = np.random.default_rng(0)
        networks = list(dict.fromkeys(SPACE.sample(rng) for _ in range(count)))
        told = {SPACE.text(one): (5.0 + sum(one.choices), 80 + one.choices[0] + 0.1 * sum(one.choices))
                for one in networks}  # fmt: skip
        with (project / "mine.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [("arch", "ms", "top1"), *((text, *row) for text, row in told.items())]
            )
        columns = ["--column", "latency_ms=ms", *(["--column", "accuracy=top1%"] if accuracies else [])]
        shape = ("--shape", "c16x15-3x32x32-10-cifar")
        assert ehdnas("measurements", "import", "mine.csv", *OF, *shape, *columns).code == 0
        return told

    return make


@pytest.mark.parametrize("method", ["guided", "random", "evolution"])
def test_the_best_network_asked_about_is_answered_with_its_figures(table, ehdnas, method):
    told = table()
    chosen = [] if method == "guided" else ["--method", method]  # that is the default
    flags = [*chosen, "--queries", 20, "--budget", "latency <= 20 ms", "--json"]
    result = ehdnas(*SEARCH, *flags)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    latency, accuracy = told[found["genotype"]]
    assert found["queries"] == 20 and found["method"] == method
    assert found["chosen"]["figures"][0]["value"] == latency <= 20
    assert found["chosen"]["accuracy"] == pytest.approx(accuracy / 100)
    assert found["chosen"]["figures"][0]["basis"] == "imported"
    assert found["chosen"]["accuracy"] == max(one["accuracy"] for one in found["candidates"])


def test_all_of_a_short_table_is_asked_and_the_best_is_found(table, ehdnas):
    told = table()
    fitting = [accuracy for latency, accuracy in told.values() if latency <= 20]
    result = ehdnas(*SEARCH, "--method", "evolution", "--budget", "latency <= 20 ms", "--json")
    found = json.loads(result.out)
    assert found["queries"] == len(fitting)
    assert "there are no more" in result.err
    assert found["chosen"]["accuracy"] == pytest.approx(max(fitting) / 100)


@pytest.fixture
def cifar(project):
    """CIFAR-10 in its layout, of noise: enough for a network of a table to be trained on."""
    rng = np.random.default_rng(0)
    (project / "cifar").mkdir()
    for name, count in (("data_batch_1", 100), ("test_batch", 50)):
        images = rng.integers(0, 255, (count, 3072), dtype=np.uint8)
        batch = {b"data": images, b"labels": [number % 10 for number in range(count)]}
        (project / "cifar" / name).write_bytes(pickle.dumps(batch, protocol=2))
    return "cifar10:cifar"


def test_what_was_found_is_trained_exported_and_reported(table, ehdnas, cifar):
    table()
    searched = json.loads(ehdnas(*SEARCH, "--queries", 12, "--budget", "latency <= 11 ms", "--json").out)
    refused = ehdnas("train")
    assert (
        refused.code == 2 and "the networks take images of 3x32x32 in 10 classes, and 'digits'" in refused.err
    )
    trained = ehdnas("train", "--data", cifar, "--train-epochs", 1, "--batch-size", 50, "--json")
    assert trained.code == 0, trained.err
    exported = ehdnas("export", "--target", "onnx", "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["artifacts"][0]["parity"]["passed"]
    judged = ehdnas("verify")
    assert judged.code == 2 and "is a table of imported figures, and measures no file" in judged.err
    page = Path(json.loads(ehdnas("report", "--json").out)["report"]).read_text()
    assert "FROM A TABLE" in page and searched["genotype"] in page


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--method", "gradient"], 2, "nothing more can be measured; there --method is guided, random or"),
        (["--budget", "latency <= 1 ms"], 3, "no network of table 'mine' meets latency <= 1 ms; the nearest"),
        (["--budget", "energy <= 1 mJ"], 2, "table 'mine' has no energy_mj"),
        (["--budget", "0.7x"], 2, "of which table 'mine' tells nothing"),
        (["--baseline", "RESNET", "--budget", "latency <= 20 ms"], 2, "give it to `ehdnas train`"),
        (["--space", "darts"], 2, "nothing is stored of 'darts'"),
        (["--pareto", 3], 2, "--pareto trains a supernet, and 'mine' is a table"),
        (["--budget", "latency <= 20 ms, energy <= 1 mJ"], 2, "a table is searched under one budget"),
        (
            ["--device", "mine,ehdnas-generic"],
            2,
            "device 'mine' is a table of imported figures, where no other",
        ),
    ],
)
def test_what_a_table_cannot_answer_is_one_line(table, ehdnas, flags, code, says):
    table()
    result = ehdnas(*SEARCH, *flags)
    assert result.code == code and says in result.err, result.err
    assert result.err.count("error: ") == 1


def test_a_table_without_accuracies_says_how_to_add_them(table, ehdnas):
    table(accuracies=False)
    result = ehdnas(*SEARCH, "--budget", "latency <= 20 ms")
    assert result.code == 2 and "table 'mine' has no accuracy" in result.err
    assert "--column accuracy=COLUMN" in result.err
