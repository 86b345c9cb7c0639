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
from ehdnas.search.checkpoint import load_checkpoint, save_checkpoint
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
    smaller = ("measurements", "import", path, *OF, "--shape", "c16x6-3x32x32-10-cifar", *LATENCY)
    other = ehdnas(*smaller)
    assert other.code == 2 and "a table of networks of shape c16x15" in other.err
    assert "`ehdnas devices remove raspi4`" in other.err
    assert ehdnas("devices", "remove", "raspi4").code == 0 and ehdnas(*smaller).code == 0


def test_a_table_of_another_project_has_no_figures_in_this_one(project, ehdnas, table, monkeypatch):
    """Devices are the user's and figures the project's, which takes a table of another shape and says so."""
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    (project / "other").mkdir()
    monkeypatch.chdir(project / "other")
    (project / "other" / "ehdnas.toml").write_text("")
    for command in (("predict", "RESNET"), ("profile",), ("search",)):
        done = ehdnas(*command, *OF)
        assert done.code == 2 and done.err.count("\n") == 1
        assert "no figures of table 'raspi4' are in this project; import them with" in done.err
        assert "measurements import FILE --device raspi4" in done.err and "ehdnas profile" not in done.err
    smaller = (*OF, "--shape", "c16x6-3x32x32-10-cifar", *LATENCY)
    done = ehdnas("measurements", "import", table(), *smaller)
    assert done.code == 0, done.err
    assert find_device("raspi4").options == {"shape": "c16x6-3x32x32-10-cifar"}
    assert ehdnas("predict", "RESNET", *OF, "--predictor", "linear").code == 0
    monkeypatch.chdir(project)
    done = ehdnas("predict", "RESNET", *OF)
    assert done.code == 2 and "import it again with --shape c16x15-3x32x32-10-cifar" in done.err
    again = ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    assert again.code == 0 and ehdnas("predict", "RESNET", *OF, "--predictor", "linear").code == 0
    assert ehdnas("measurements", "import", table(), *smaller).code == 2


def test_the_title_tells_the_file_imported_last_unless_the_user_gave_one(project, ehdnas, table):
    for name in ("mine.csv", "newer.csv"):
        table().rename(project / name)
        assert ehdnas("measurements", "import", project / name, *FLAGS, *LATENCY).code == 0
        assert f"figures imported from {name}" in ehdnas("devices").out
    ehdnas("devices", "set", "raspi4", "title=my board")
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    assert find_device("raspi4").title == "my board"


@pytest.mark.parametrize("header", ["acc", "acc%", " acc% ", "acc %"])
def test_a_trailing_percent_is_of_the_column_or_of_its_very_name(project, ehdnas, table, header):
    path = table([["RESNET", 50], ["102342", 75]], ("arch", header))
    typed = "accuracy=acc %" if header == "acc %" else "accuracy=acc%"
    assert ehdnas("measurements", "import", path, *FLAGS, "--column", typed).code == 0
    assert ehdnas("measurements", "export", "out.csv").code == 0
    with (project / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["metric_accuracy"]) for row in rows] == [0.5, 0.75]
    assert json.loads(rows[0]["passport"])["columns"] == {"accuracy": header.strip()}


def test_where_both_columns_are_the_one_of_the_very_name_is_taken(project, ehdnas, table):
    path = table([["RESNET", 0.2, 50]], ("arch", "acc", "acc%"))
    assert ehdnas("measurements", "import", path, *FLAGS, "--column", "accuracy=acc%").code == 0
    assert ehdnas("measurements", "export", "out.csv").code == 0
    with (project / "out.csv").open() as stream:
        assert float(next(csv.DictReader(stream))["metric_accuracy"]) == 0.5


def test_a_size_that_a_table_does_not_have_is_refused(project, ehdnas, table):
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    asked = ("predict", "RESNET", *OF, "--predictor", "linear")
    for flag, number in (("--channels", 8), ("--cells", 9)):
        done = ehdnas(*asked, flag, number)
        assert done.code == 2 and done.err.count("\n") == 1
        assert f"{flag} {number}: table 'raspi4' is of networks of shape c16x15" in done.err
    assert ehdnas(*asked, "--channels", 16, "--cells", 15).code == 0
    (project / "ehdnas.toml").write_text("channels = 4\ncells = 3\n")  # of the project's other devices
    assert ehdnas(*asked).code == 0


def test_blank_lines_and_blanks_around_names_are_passed_over(project, ehdnas, table):
    path = table([["RESNET", " "], [], ["  "], ["102342", "fast"]], (" arch", "ms "))
    done = ehdnas("measurements", "import", path, *FLAGS, *LATENCY)
    assert done.code == 1 and "row 5, column 'ms': 'fast' is no number" in done.err
    path.write_text(path.read_text().replace("fast", "5"))
    said = json.loads(ehdnas("measurements", "import", path, *FLAGS, *LATENCY, "--json").out)
    assert (said["added"], said["empty"]) == (1, 1)


def test_the_summary_names_the_first_network_left_out_and_what_comes_next(project, ehdnas, table):
    path = table([["RESNET", 5], ["000000", 3], ["000001", 3]], ("genotype", "ms"))
    out = ehdnas("measurements", "import", path, *FLAGS, *LATENCY).out
    assert "2 of networks that are not valid, the first of them row 3, 000000" in out
    assert "ehdnas predict GENOTYPE --device raspi4 --space nasbench201" in out and "profile" not in out


def test_a_table_of_another_space_is_hinted_at(project, ehdnas, table):
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    for genotype, says in (("RESNET", "not a DARTS genotype"), ("DARTS_V2", "nothing is stored of 'darts'")):
        done = ehdnas("predict", genotype, "--device", "raspi4")
        assert done.code == 2 and says in done.err and "add --space nasbench201" in done.err
        assert done.err.count("\n") == 1
    assert "--space nasbench201" not in ehdnas("predict", "RESNET", "--device", "local").err


def test_a_stored_predictor_that_is_damaged_is_one_line_and_fitted_again(project, ehdnas, table):
    ehdnas("measurements", "import", table(), *FLAGS, *LATENCY)
    asked = ("predict", "RESNET", *OF, "--predictor", "linear", "--json")
    before = ehdnas(*asked)
    assert "coverage90" not in json.loads(before.out)["held_out"]
    (path,) = (project / ".ehdnas" / "predictors").glob("*.safetensors")
    tensors, meta = load_checkpoint(path)
    identity = {**meta["identity"], "space": "darts"}
    for change, says in (
        ({"quality": [1]}, "is damaged: a part is missing or of another kind"),
        ({"identity": identity}, "is of another space than 'nasbench201'"),
        ({"format": 1}, "is of format 1, not"),
        (None, "is not a whole checkpoint of ehdnas"),
    ):
        save_checkpoint(path, tensors, {**meta, **(change or {})})
        if change is None:
            path.write_bytes(path.read_bytes()[:200])
        done = ehdnas(*asked)
        warning, _fitting = done.err.splitlines()
        assert warning == f"predictor: {path} {warning.split('.safetensors ')[1]}" and says in warning
        assert warning.endswith("; fitting it again") and warning.count(";") == 1
        assert done.code == 0 and json.loads(done.out) == json.loads(before.out)


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


def test_of_a_large_table_the_predictor_is_fitted_to_some(project, ehdnas, table, monkeypatch):
    from ehdnas.pipeline import predictors

    monkeypatch.setattr(predictors, "_MOST_OF_A_TABLE", 25)
    assert ehdnas("measurements", "import", table(), *FLAGS, *LATENCY).code == 0
    done = ehdnas("predict", "RESNET", *OF, "--predictor", "linear", "--json")
    assert done.code == 0 and "fitting latency_ms to 25 networks" in done.err
    assert "fitting" not in ehdnas("predict", "RESNET", *OF, "--predictor", "linear").err
