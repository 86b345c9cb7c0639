"""What was left behind is stopped, full or damaged: one line, nothing lost, and a way on that works."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ehdnas.core.files import sha256
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.workspace import find_workspace

# So long between checkpoints that only the one made on being stopped is ever written.
SELDOM = """
channels = 4
cells = 3
samples = 120
search_epochs = 3
finalists = 2
trial_epochs = 1
train_epochs = 2
batch_size = 64
checkpoint_s = 3600
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_stopped_keeps_every_step_it_made(tiny, ehdnas, number):
    (tiny / "ehdnas.toml").write_text(SELDOM)
    done = stopped(["search"], 9, number)
    assert done.returncode == 130, done.stderr
    assert "go on with --resume" in done.stderr.splitlines()[-1]
    run = find_workspace().latest()
    assert load_checkpoint(run.checkpoint("search"))[1]["done"] == 9
    resumed = ehdnas("search", "--resume", "--json")
    assert "going on after step 9 of" in resumed.err
    found = json.loads(resumed.out)
    unbroken = json.loads(ehdnas("search", "--json").out)
    assert (found["genotype"], found["history"]) == (unbroken["genotype"], unbroken["history"])


def stopped(arguments, at, number=signal.SIGINT):
    """Run a command in a process of its own that gets a signal once it reports `at` steps done."""
    code = (
        "import os, sys; from ehdnas.cli import main, screen\n"
        "show = screen.Screen.progress\n"
        "def stop(self, done, total, text):\n"
        f"    if text.startswith('loss') and done == {at}: os.kill(os.getpid(), {int(number)})\n"
        "    show(self, done, total, text)\n"
        "screen.Screen.progress = stop\n"
        f"sys.exit(main({arguments!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_a_training_goes_on_with_the_flags_it_was_started_with(found, ehdnas):
    flags = ["--train-epochs", "3", "--batch-size", "32"]
    assert stopped(["train", *flags], 5).returncode == 130
    resumed = ehdnas("train", "--resume", "--json")
    assert "going on after step 5 of" in resumed.err
    assert json.loads(resumed.out)["epochs"] == 3
    unbroken = ehdnas("train", *flags, "--json")
    assert json.loads(unbroken.out)["weights_sha256"] == json.loads(resumed.out)["weights_sha256"]
    # Started anew with other flags and stopped: that training goes on, not the one before.
    assert stopped(["train", "--train-epochs", "2"], 3).returncode == 130
    other = ehdnas("train", "--resume", "--train-epochs", 4)
    assert other.code == 2
    assert "recipe.train_epochs (was 2, now 4); start without --resume" in other.err
    assert json.loads(ehdnas("train", "--resume", "--json").out)["epochs"] == 2


def test_a_run_in_use_is_left_alone(found, ehdnas):
    with find_workspace().latest().working():
        refused = ehdnas("train")
    assert refused.code == 2
    assert "another ehdnas is working on run" in refused.err
    assert ehdnas("train").code == 0


def test_damaged_or_missing_weights_are_not_exported_and_are_made_again(found, ehdnas):
    assert ehdnas("train").code == 0
    run = find_workspace().latest()
    trained = sha256(run.weights)
    whole = run.weights.read_bytes()
    flipped = bytearray(whole)
    flipped[-1000] ^= 0x55
    for content, problem in ((bytes(flipped), "damaged"), (whole[:-100], "damaged"), (None, "missing")):
        run.weights.unlink() if content is None else run.weights.write_bytes(content)
        refused = ehdnas("export")
        assert refused.code == 1
        assert f"is {problem}; run `ehdnas train --resume`" in refused.err.splitlines()[-1]
        assert ehdnas("train", "--resume").code == 0
        assert sha256(run.weights) == trained
    assert "nothing to resume" in ehdnas("train", "--resume").err


def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_the_old_one(tiny, ehdnas):
    """The limit on a file's size stands for the full disk: both are an OSError in the middle of a write."""
    (tiny / "ehdnas.toml").write_text(SELDOM.replace("3600", "0"))
    code = (
        "import resource, sys; from ehdnas.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "sys.exit(main(['search']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "File too large" in done.stderr.splitlines()[-1]
    run = find_workspace().latest()
    assert [name for name in os.listdir(run.folder) if name not in ("run.json", "lock", "tensorboard")] == []
    assert ehdnas("search", "--resume").code == 0
