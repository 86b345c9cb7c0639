"""Several runs on one page: figures side by side, texts from outside as text, what cannot be is refused."""

import re

import pytest
from whole_run import Page, search_run, train_record, verify_record, whole_run

from ehdnas.core.errors import UsageError
from ehdnas.pipeline.report import compare
from ehdnas.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_runs_stand_beside_each_other_with_what_differs(workspace):
    first, second = whole_run(workspace), whole_run(workspace)
    record = second.read("run")
    record["settings"] |= {"seed": 8, "budget": "latency <= 3 ms & <b>less</b>"}
    second.write("run", record)
    second.write("train", train_record() | {"test_accuracy": 0.9})
    second.write("verify", verify_record("FAIL", value=4.5))
    path = compare(workspace, [first, second])
    assert path.parent == workspace.folder / "comparisons"
    source = path.read_text()
    page = Page(source)
    for said in (
        first.name,
        second.name,
        "PASS",
        "FAIL",
        "3.21 ms, measured on pi4",
        "4.5 ms",
        "94.2 %",
        "90.0 %",
    ):
        assert said in page.text
    assert "± 0.3 points" in page.text  # √(0.9 · 0.1 / 10,000)
    assert "<b>less</b>" in page.text and "<b>" not in source
    differing = page.text.partition("Settings that differ")[2]
    assert "seed" in differing and "budget" in differing and "space" not in differing
    assert "Accuracy against latency on pi4, measured" in page.text and source.count("<svg") == 1
    assert "default-src 'none'" in source and not re.search(r"(src|href)=\"?http", source)
    assert "alice" not in source and "attic" not in source


def test_a_run_that_is_only_searched_can_be_compared(workspace):
    page = Page(compare(workspace, [whole_run(workspace), search_run(workspace)]).read_text())
    assert "not verified yet" in page.text and "not trained yet" in page.text
    assert "<svg" not in page.tags


def test_fewer_than_two_are_refused(workspace):
    one = whole_run(workspace)
    for runs in ([], [one], [one, one]):
        with pytest.raises(UsageError, match="give 2 to 20 different ones"):
            compare(workspace, runs)


def test_the_command_takes_names(found, ehdnas):
    assert ehdnas("search").code == 0
    names = sorted(path.name for path in (found / ".ehdnas" / "runs").iterdir() if not path.is_symlink())
    result = ehdnas("report", "--compare", *names)
    assert result.code == 0 and "comparisons" in result.out
    assert ehdnas("report", names[0]).code == 2
    assert "no run 'nowhere'" in ehdnas("report", "--compare", names[0], "nowhere").err
