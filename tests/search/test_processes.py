"""Processes that torchrun starts give what one gives in as many parts: killed, resumed and stopped, too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ehdnas.core.errors import UsageError
from ehdnas.search.augment import Augmentation
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.search.micro_batches import MicroBatches
from ehdnas.search.processes import ALONE, Processes, current, joined, started

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "shared_work.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
STEPS = 8


def start(processes, stage, folder, parts=2, *flags):
    folder.mkdir(exist_ok=True)
    run = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    command = [*run, str(PROGRAM), stage, str(folder), str(parts), *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process):
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors


def result(folder):
    return load_checkpoint(folder / "result.safetensors")


def apart(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def require_equal(ours, theirs):
    (weights, record), (other_weights, other_record) = result(ours), result(theirs)
    assert apart(weights, other_weights) < 1e-5
    if "logits" in weights:
        assert torch.equal(weights["logits"].argmax(1), other_weights["logits"].argmax(1))
    assert len(record["history"]) == len(other_record["history"]) == 2
    for mine, other in zip(record["history"], other_record["history"], strict=True):
        assert mine == pytest.approx(other, abs=1e-5)


def steps_saved(folder):
    path = folder / "checkpoint.safetensors"
    return load_checkpoint(path)[1]["done"] if path.exists() else 0


def await_steps(process, folder, steps):
    end = time.monotonic() + 120
    while steps_saved(folder) < steps:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["search", "train"])
def test_two_processes_equal_one_in_two_parts(tmp_path, stage):
    both = [start(1, stage, tmp_path / "one"), start(2, stage, tmp_path / "two")]
    for process in both:
        finish(process)
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_processes_equal_one_in_four_parts(tmp_path):
    for count, name in ((1, "one"), (2, "two")):
        finish(start(count, "train", tmp_path / name, 4))
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["search", "train"])
@pytest.mark.parametrize("after", [1, 2], ids=["resumed by one", "resumed by two"])
def test_killed_and_resumed_they_end_the_same(tmp_path, stage, after):
    finish(start(1, stage, tmp_path / "whole"))
    process = start(2, stage, tmp_path / "cut", 2, "--pause", "1")
    await_steps(process, tmp_path / "cut", 3)
    kill_all(process)
    assert 3 <= steps_saved(tmp_path / "cut") < STEPS
    finish(start(after, stage, tmp_path / "cut", 2, "--resume"))
    require_equal(tmp_path / "whole", tmp_path / "cut")


def kill_all(process):
    """Kill torchrun and the processes it started, each of which leads a session of its own."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    for pid in [process.pid, *map(int, listed.stdout.split())]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_at_one_step_that_is_saved(tmp_path, number):
    finish(start(1, "train", tmp_path / "whole"))
    process = start(2, "train", tmp_path / "cut", 2, "--pause", "1")
    await_steps(process, tmp_path / "cut", 2)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert 2 <= steps_saved(tmp_path / "cut") < STEPS
    finish(start(2, "train", tmp_path / "cut", 2, "--resume"))
    require_equal(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_fails_all_end(tmp_path, rank):
    process = start(2, "train", tmp_path / "cut", 2, "--fail", str(rank))
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert f"EhdnasError: process {rank} failed" in errors
    assert not (tmp_path / "cut" / "result.safetensors").exists()


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert started() == (0, 1)
    with joined() as processes:
        assert processes is ALONE is current()
    figures = torch.ones(2)
    ALONE.sum([figures])
    assert figures.tolist() == [1, 1]
    assert ALONE.share_object("a") == "a" and ALONE.any(True) and ALONE.claim_failure()


def test_numbers_that_are_none_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="start with torchrun"):
        started()


@pytest.mark.parametrize(
    ("where", "here", "gpus", "expected"),
    [
        ("auto", 2, 2, "cuda:1"), ("cuda", 2, 4, "cuda:1"), ("cpu", 2, 2, "cpu"), ("auto", 2, 0, "auto"),
        ("cuda:0", 1, 2, "cuda:0"), ("cuda:0", 2, 2, "leave it at auto"), ("auto", 2, 1, "start 1"),
    ],
)  # fmt: skip
def test_each_process_computes_on_a_gpu_of_its_own(monkeypatch, where, here, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    processes = Processes(rank=3, count=4, local_rank=1, local_count=here)
    if " " in expected:
        with pytest.raises(UsageError, match=expected):
            processes.place(where)
    else:
        assert processes.place(where) == expected


def test_parts_that_are_not_equal_are_refused():
    with pytest.raises(UsageError, match="--batch-size 9 or 12"):
        MicroBatches(nn.Linear(1, 1), 3, 10)
    with pytest.raises(UsageError, match=r"choose --batch-size 3$"):
        MicroBatches(nn.Linear(1, 1), 3, 2)
    with pytest.raises(UsageError, match="choose a multiple of 2"):
        MicroBatches(nn.Linear(1, 1), 3, 12, Processes(count=2))


def test_running_statistics_are_the_mean_of_what_each_part_makes_of_those_before():
    norm = nn.BatchNorm1d(1, momentum=0.1)
    images = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    for part in MicroBatches(norm, 2, 4).each(4, seed=0):
        norm(images[part])
    assert norm.running_mean.item() == pytest.approx(0.1 * (1 + 12) / 2)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * (2 + 8) / 2)
    assert norm.num_batches_tracked.item() == 1


def test_parts_draw_numbers_of_their_own_and_leave_the_others_alone():
    parts = MicroBatches(nn.Linear(1, 1), 4, 8)
    torch.manual_seed(1)
    drawn = [torch.rand(()).item() for _ in parts.each(8, seed=0)]
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(()))
    own = [
        torch.rand(()).item()
        for rank in (0, 1)
        for _ in MicroBatches(nn.Linear(1, 1), 4, 8, Unsummed(rank, 2)).each(4, seed=0)
    ]
    assert own == drawn and len(set(drawn)) == 4


class Unsummed(Processes):
    """Processes whose others are not there."""

    def sum(self, tensors):
        pass


def test_an_image_is_varied_the_same_without_the_rest_of_its_batch():
    images = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8)
    augmentation = Augmentation(2, True, 4, (0.5,) * 3, (0.25,) * 3)
    whole = augmentation(images, torch.Generator().manual_seed(1))
    rows = torch.tensor([1, 4])
    some = augmentation(images[rows], torch.Generator().manual_seed(1), rows, 6)
    assert torch.equal(some, whole[rows])
