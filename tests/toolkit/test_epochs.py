"""What epochs leave: a table on a terminal, lines elsewhere, and a file that TensorBoard itself reads."""

import io

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ehdnas.cli import screen as screen_module
from ehdnas.cli.epochs import cells, line
from ehdnas.cli.screen import Screen
from ehdnas.pipeline.events import EventFile
from ehdnas.workspace import find_workspace

RECORD = {"epoch": 4, "loss": 1.25, "accuracy": 0.5, "violation": 0.1, "learning_rate": 3.0, "skips": 2}


def scalars(folder):
    """Return tag -> [(step, value)] as TensorBoard shows them."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def screen_of(terminal):
    screen = Screen()
    screen.console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    return screen


def run_epochs(screen, total, steps=2):
    show = screen.epochs(total)
    for epoch in range(total):
        for step in range(steps):
            if step == steps - 1:
                show({**RECORD, "epoch": epoch})
            screen.progress(epoch * steps + step + 1, total * steps, "loss 1.2")
    return screen.console.file.getvalue()


def test_elsewhere_than_on_a_terminal_an_epoch_is_one_line_at_most(monkeypatch):
    monkeypatch.setattr(screen_module, "_EVERY_S", (0.0, 0.0))
    lines = run_epochs(screen_of(False), 3, steps=50).splitlines()
    assert [text.split(",")[0].strip() for text in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "left" in lines[0] and "left" not in lines[-1]


def test_quick_epochs_are_told_now_and_then_and_the_last_one_always():
    lines = run_epochs(screen_of(False), 40).splitlines()
    assert [text.split(",")[0].strip() for text in lines] == ["epoch 1/40", "epoch 40/40"]


def test_on_a_terminal_the_last_epochs_stay_as_a_table():
    screen = screen_of(True)
    said = run_epochs(screen, 15)
    *rows, last = said.rstrip().rpartition("\x1b[2K")[2].splitlines()
    assert last.split() == ["15", "1.25", "50.0%", "+11%", "2"]
    assert len(rows) == 12 and rows[0].split() != last.split()
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is back
    screen.progress(1, 2, "candidates scored")
    assert not screen._bar.records
    screen.progress(2, 2, "candidates scored")


def test_whatever_a_record_has_is_shown():
    several = {
        "epoch": 0, "violation": {"latency_ms": -0.2, "energy_mj": 0.4}, "multiplier": [0.5, 1.5], "new": 7,
        "note": "text", "missing": None,
    }  # fmt: skip
    assert cells(several) == {
        "epoch": "0", "to budget latency_ms": "-18%", "to budget energy_mj": "+49%", "multiplier 0": "0.5",
        "multiplier 1": "1.5", "new": "7",
    }  # fmt: skip
    assert line({"epoch": 0, "loss": float("nan"), "violation": 1e9}, 2) == (
        "epoch 1/2, loss nan, to budget +810208%"
    )


def test_tensorboard_reads_the_numbers_of_a_record(tmp_path):
    events = EventFile(tmp_path)
    events.add({"epoch": 0, "loss": 1.5, "violation": {"latency_ms": 0.25}, "note": "text"})
    events.add({"epoch": 1, "loss": 0.5})
    assert scalars(tmp_path) == {"loss": [(0, 1.5), (1, 0.5)], "violation/latency_ms": [(0, 0.25)]}


@pytest.mark.parametrize("cut", [0, 5, 20])
def test_a_file_that_is_gone_on_with_has_every_step_once(tmp_path, cut):
    events = EventFile(tmp_path)
    for epoch in range(4):
        events.add({"epoch": epoch, "loss": 10.0 + epoch})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])  # killed as it wrote the last
    resumed = EventFile(tmp_path, epochs=2)
    for epoch in (2, 3, 4):
        resumed.add({"epoch": epoch, "loss": 20.0 + epoch})
    assert scalars(tmp_path) == {"loss": [(0, 10.0), (1, 11.0), (2, 22.0), (3, 23.0), (4, 24.0)]}
    assert len(list(tmp_path.iterdir())) == 1
    EventFile(tmp_path)
    assert scalars(tmp_path) == {}


def test_search_and_training_are_in_the_runs_folder(tiny, ehdnas):
    assert ehdnas("search").code == 0 and ehdnas("train").code == 0
    folder = find_workspace().latest().folder / "tensorboard"
    search, train = scalars(folder / "search"), scalars(folder / "train")
    assert set(search) >= {
        "loss", "accuracy", "violation", "multiplier", "entropy", "skips", "learning_rate",
        "predicted/latency_ms",
    }  # fmt: skip
    assert set(train) == {"loss", "accuracy", "learning_rate"}
    assert [step for step, _ in search["loss"]] == [step for step, _ in train["loss"]] == [0, 1]
    history = find_workspace().latest().read("search")["history"]
    assert [value for _, value in search["loss"]] == pytest.approx([one["loss"] for one in history])
