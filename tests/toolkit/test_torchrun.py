"""Commands that `torchrun` starts in several processes: what one makes in as many parts, said once."""

import json
import shutil
import subprocess
import sys

import pytest

from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.workspace import Workspace

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def together(project, *arguments):
    return subprocess.run(
        [*TORCHRUN, "-m", "ehdnas", *arguments], cwd=project, capture_output=True, text=True, timeout=250
    )


@pytest.mark.slow
def test_search_and_training_by_two_processes_equal_those_in_two_parts(tiny, ehdnas):
    shutil.copytree(tiny, tiny / "other", ignore=shutil.ignore_patterns("other"))
    for stage in ("search", "train"):
        done = together(tiny / "other", stage, "--json")
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        other = json.loads(line)
        assert "by 2 processes" in done.stderr
        own = json.loads(ehdnas(stage, "--micro-batches", "2", "--json").out)
        assert own.get("genotype") == other.get("genotype")
    runs = [Workspace(folder).latest() for folder in (tiny, tiny / "other")]
    (mine, _), (theirs, _) = (load_checkpoint(run.weights) for run in runs)
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine) < 1e-5


@pytest.mark.slow
def test_what_goes_wrong_is_said_once(tiny):
    done = together(tiny, "search", "--batch-size", "63")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: a batch of 63 images cannot be cut into 2 equal parts; choose --batch-size 62 or 64"
    ]


@pytest.mark.slow
def test_a_command_without_a_loop_leaves_the_others_idle(tiny):
    done = together(tiny, "config")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("micro_batches") == 1
