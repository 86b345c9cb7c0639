"""The benchmark of predictors on a table of one's own: what it merges, and how sure its figures are."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ehdnas.search.spaces.base import find_space

BENCH = Path(__file__).parents[2] / "bench" / "predictor.py"
SPACE = find_space("nasbench201")


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Write a table of 40 networks, with more lines below it; return exit code, stdout and stderr on it."""
    monkeypatch.syspath_prepend(BENCH.parent)

    def call(*flags, below=(), header="arch, ms "):
        rng = np.random.default_rng(0)
        networks = list(dict.fromkeys(SPACE.sample(rng) for _ in range(80)))
        told = [f"{SPACE.text(one)},{5 + sum(one.choices)}" for one in networks if SPACE.is_valid(one)][:40]
        path = tmp_path / "mine.csv"
        path.write_text("\n".join([header, *told, *(line.format(*told) for line in below)]) + "\n")
        arguments = [BENCH, "--table", path, "--target", "ms", "--n", 15, *flags]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        code = runpy.run_path(str(BENCH))["main"]()
        return code, *capsys.readouterr()

    return call


def test_errors_over_seeds_and_repeated_networks_are_told(bench):
    below = ["{0}", "", "{0}", "{1}", "  "]
    code, out, err = bench("--seeds", 2, "--methods", "linear,constant", "--json", below=below)
    assert code == 0 and err == "2 repeated networks merged by their median\n"
    found = json.loads(out)
    assert found["seeds"] == 2 and [row["method"] for row in found["rows"]] == ["linear", "constant"]
    for row in found["rows"]:
        assert {"n", "spearman", "kendall", "within10", "mape", "coverage90", "seconds"} < row.keys()
    linear, constant = found["rows"]
    assert linear["mape_error"] >= 0 and linear["spearman_error"] >= 0 and linear["within10_error"] >= 0
    assert constant["spearman_error"] == 0 and constant["mape_error"] > 0


def test_one_seed_has_no_errors_and_nothing_repeated_no_note(bench):
    code, out, err = bench("--seeds", 1, "--methods", "constant", "--json")
    assert code == 0 and err == ""
    assert not [name for name in json.loads(out)["rows"][0] if "error" in name]


def test_what_is_no_number_is_quoted_and_a_foreign_separator_named(bench):
    code, out, err = bench(below=["", "{0}x", "|none~0|,-3"])
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "no positive number in row 43 ('" in err and "x'), 44 ('-3');" in err
    code, _, err = bench(header="arch;ms")
    assert code == 2 and "separate the columns by commas" in err
