"""Users' own tables of latencies and accuracies: imported whole or not at all, fitted, predicted from."""

import csv
import gzip
import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ehdnas.pipeline.devices import find_device
from ehdnas.search.spaces.base import find_space

SPACE = find_space("nasbench201")
FLAGS = ("--device", "raspi4", "--space", "nasbench201", "--shape", "c16x15-3x32x32-10-cifar")
OF = ("--device", "raspi4", "--space", "nasbench201")
LATENCY = ("--column", "latency_ms=ms")
REAL = Path(os.environ.get("EHDNAS_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def table(project):
    """Write a table of `count` random networks, or of the rows given, and return its path."""

    def write(rows=None, columns=("arch", "ms", "top1"), count=40):
        rng = np.random.default_rng(0)
        networks = list(dict.fromkeys(SPACE.sample(rng) for _ in range(count)))
        given = [[SPACE.text(one), 5 + sum(one.choices), 80 + one.choices[0]] for one in networks]
        path = project / "mine.csv"
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *(given if rows is None else rows)])
        return path

    return write


def test_a_table_becomes_a_device_that_is_fitted_and_asked(project, ehdnas, table):
    done = ehdnas("measurements", "import", table(), *FLAGS, *LATENCY, "--column", "accuracy=top1%", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["added"], said["known"], said["empty"], said["invalid"]) == (40, 0, 0, 0)
    assert find_device("raspi4").kind == "table"
    profiled = ehdnas("profile", *OF, "--predictor", "linear", "--json")
    assert profiled.code == 0, profiled.err
    assert json.loads(profiled.out)["basis"] == "imported" and "measure" not in profiled.err
    flags = [*OF, "--predictor", "linear", "--metric", "latency_ms,accuracy", "--json"]
    latency, accuracy = json.loads(ehdnas("predict", "RESNET", *flags).out)["predictions"]
    assert latency["shape"] == "c16x15-3x32x32-10-cifar" and latency["basis"] == "imported"
    assert latency["lower"] < latency["value"] < latency["upper"]
    assert 0.7 < accuracy["value"] < 1
    again = ehdnas("measurements", "import", table(), *FLAGS, *LATENCY, "--column", "accuracy=top1%")
    assert "known before  40" in again.out
    assert "imported" in ehdnas("measurements").out


def test_what_a_table_told_before_is_taken_along_and_handed_on(project, ehdnas, table):
    """Accuracies alone, then latencies of the same networks: both are there, and go to another machine."""
    assert ehdnas("measurements", "import", table(), *FLAGS, "--column", "accuracy=top1%").code == 0
    assert ehdnas("measurements", "export", "alone.csv").code == 0
    assert ehdnas("measurements", "import", table(), *FLAGS, *LATENCY).code == 0
    assert ehdnas("measurements", "export", "both.csv").code == 0
    with (project / "both.csv").open() as stream:
        last = list(csv.DictReader(stream))[-1]
    assert float(last["metric_accuracy"]) > 0.7 and float(last["metric_latency_ms"]) > 5
    assert json.loads(last["passport"])["protocol"] == "not known"
    assert json.loads(last["flags"]) == ["imported (how it was measured is not known)"]
    (project / ".ehdnas" / "measurements.db").unlink()
    assert "40 measurements" in ehdnas("measurements", "import", "alone.csv").out


def test_a_table_that_grew_is_fitted_again(project, ehdnas, table):
    asked = ("predict", "RESNET", *OF, "--predictor", "linear", "--json")
    ehdnas("measurements", "import", table(count=20), *FLAGS, *LATENCY)
    assert json.loads(ehdnas(*asked).out)["held_out"]["samples"] == 20
    assert "fitting" not in ehdnas(*asked).err, "the same table is fitted once"
    ehdnas("measurements", "import", table(count=40), *FLAGS, *LATENCY)
    done = ehdnas(*asked)
    assert "more networks were imported" in done.err
    assert json.loads(done.out)["held_out"]["samples"] == 40


def test_a_table_too_short_to_fit_says_how_many_are_needed(project, ehdnas, table):
    ehdnas("measurements", "import", table(count=5), *FLAGS, *LATENCY)
    done = ehdnas("predict", "RESNET", *OF)
    assert done.code == 2 and "5 networks imported for 'raspi4': a predictor needs 10 at least" in done.err


def test_a_network_that_breaks_a_rule_is_not_predicted(project, ehdnas, table):
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    done = ehdnas("predict", "000000", *OF, "--predictor", "linear")
    assert done.code == 2 and "breaks a rule of space 'nasbench201'" in done.err


def test_nothing_is_measured_on_a_table(project, ehdnas, table):
    assert ehdnas("measurements", "import", table(), *FLAGS, *LATENCY).code == 0
    refused = ehdnas("search", *OF)
    assert refused.code == 2
    assert "table 'raspi4' has no accuracy" in refused.err and "--column accuracy=COLUMN" in refused.err
    whole = ehdnas("run", *OF)
    assert whole.code == 2 and "`run` ends on one that is measured" in whole.err
    elsewhere = ehdnas("profile", "--device", "raspi4", "--space", "darts")
    assert elsewhere.code == 2 and "nothing is stored of 'darts' at c16x15" in elsewhere.err
    assert "imported figures, nothing to reach" in ehdnas("devices").out


def test_digits_and_lists_of_choices_are_architectures(project, ehdnas, table):
    path = table([["[1, 0, 2, 3, 4, 1]", 5], ["102342", 6]], ("op_idx", "ms"))
    assert "added         2 networks" in ehdnas("measurements", "import", path, *FLAGS, *LATENCY).out


def test_rows_without_figure_and_networks_that_are_not_valid_are_left_out(project, ehdnas, table):
    path = table([["RESNET", 5], ["102342", ""], ["000000", 3]], ("genotype", "ms"))
    said = json.loads(ehdnas("measurements", "import", path, *FLAGS, *LATENCY, "--json").out)
    assert (said["added"], said["empty"], said["invalid"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "columns", "flags", "code", "says"),
    [
        ([["RESNET", 5], ["RESNOT", 6]], ("arch", "ms"), LATENCY, 1, "row 3, column 'arch': 'RESNOT'"),
        ([["RESNET", 5], ["102342", "fast"]], ("arch", "ms"), LATENCY, 1, "row 3, column 'ms': 'fast' is no"),
        ([["RESNET", -5]], ("arch", "ms"), LATENCY, 1, "row 2, column 'ms': -5 is not between"),
        ([["RESNET", "nan"]], ("arch", "ms"), LATENCY, 1, "row 2, column 'ms': nan"),
        ([["RESNET", 5], ["RESNET", 5]], ("arch", "ms"), LATENCY, 1, "row 3: the network of row 2 again"),
        ([["", 5]], ("arch", "ms"), LATENCY, 1, "row 2, column 'arch': is empty"),
        ([["[1, 2]", 5]], ("op_idx", "ms"), LATENCY, 1, "2 digits"),
        ([["[1, [", 5]], ("op_idx", "ms"), LATENCY, 1, "not a list of the choices' numbers"),
        ([], ("arch", "ms"), LATENCY, 1, "holds no rows; nothing was imported"),
        ([["RESNET", 5]], ("net", "ms"), LATENCY, 2, "no column that names the networks"),
        ([["RESNET", 5]], ("arch", "ms2"), LATENCY, 2, "no column 'ms'; did you mean 'ms2'?"),
        (None, ("arch", "ms", "top1"), ("--column", "accuracy=top1"), 1, "top1% says that the column is in"),
        (None, ("arch", "ms", "top1"), ("--column", "latency=ms"), 2, "did you mean 'latency_ms'?"),
        (None, ("arch", "ms", "top1"), ("--column", "latency_ms=ms%"), 2, "only an accuracy"),
        (None, ("arch", "ms", "top1"), (*LATENCY, *LATENCY), 2, "given twice"),
        (None, ("arch", "ms", "top1"), (), 2, "needs --column METRIC=COLUMN"),
    ],
)
def test_a_bad_table_is_one_line_and_adds_nothing(project, ehdnas, table, rows, columns, flags, code, says):
    result = ehdnas("measurements", "import", table(rows, columns), *FLAGS, *flags)
    assert result.code == code and says in result.err, result.err
    assert result.err.startswith("error: ") and result.err.count("\n") == 1 and result.out == ""
    assert json.loads(ehdnas("measurements", "--json").out)["groups"] == []
    assert "raspi4" not in ehdnas("devices").out


def test_a_shape_that_cannot_be_and_a_name_that_is_taken_are_refused(project, ehdnas, table):
    path = table()
    for shape, says in (("16x15", "as in c16x15-3x32x32-10-cifar"), ("c16x2-3x32x32-10-cifar", "at least 3")):
        refused = ehdnas("measurements", "import", path, *OF, "--shape", shape, *LATENCY)
        assert refused.code == 2 and says in refused.err
    taken = ehdnas("measurements", "import", path, *FLAGS, "--device", "pi4", *LATENCY)
    assert taken.code == 2 and "such as pi4-table" in taken.err
    assert ehdnas("measurements", "import", path, *FLAGS, *LATENCY).code == 0
    other = ehdnas("measurements", "import", path, *OF, "--shape", "c16x6-3x32x32-10-cifar", *LATENCY)
    assert other.code == 2 and "a table of networks of shape c16x15" in other.err


def test_real_latencies_are_imported_and_predicted_from(project, ehdnas):
    real = REAL / "nb201" / "measured.csv.gz"
    if not real.is_file():
        pytest.skip(f"no NAS-Bench-201 at {real}: set EHDNAS_DATA to the data folder")
    with gzip.open(real, "rt") as stream:
        (project / "nb201.csv").write_text("".join(islice(stream, 301)))
    columns = ["--column", "latency_ms=raspi4_ms", "--column", "accuracy=acc_cifar10%"]
    done = ehdnas("measurements", "import", "nb201.csv", *FLAGS, *columns, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["added"] + said["invalid"] == 300 and said["added"] > 280
    flags = [*OF, "--predictor", "linear", "--json"]
    found = json.loads(ehdnas("predict", "RESNET", *flags).out)
    assert 0 < found["lower"] < found["value"] < found["upper"]
    assert found["held_out"]["samples"] == said["added"] and found["held_out"]["spearman"] > 0.8
