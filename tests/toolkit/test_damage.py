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
train_epochs = 2
batch_size = 64
checkpoint_s = 3600
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_stopped_keeps_every_step_it_made(project, ehdnas, number):
    (project / "ehdnas.toml").write_text(SELDOM)
    assert ehdnas("profile", "--device", "ehdnas-generic").code == 0
    # A step of the search is told from what comes before it by a hook on the progress it reports.
    code = (
        "import os, sys; from ehdnas.cli import main, output\n"
        "show = output.Screen.progress\n"
        "def stop(self, done, total, text):\n"
        f"    if text.startswith('loss') and done == 9: os.kill(os.getpid(), {int(number)})\n"
        "    show(self, done, total, text)\n"
        "output.Screen.progress = stop\n"
        "sys.exit(main(['search']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 130, done.stderr
    assert "go on with --resume" in done.stderr.splitlines()[-1]
    run = find_workspace().latest()
    assert load_checkpoint(run.checkpoint("search"))[1]["done"] == 9
    resumed = ehdnas("search", "--resume", "--json")
    assert "going on after step 9 of" in resumed.err
    found = json.loads(resumed.out)
    unbroken = json.loads(ehdnas("search", "--json").out)
    assert (found["genotype"], found["history"]) == (unbroken["genotype"], unbroken["history"])


def test_damaged_or_missing_weights_are_not_exported_and_are_made_again(tiny, ehdnas):
    for command in ("search", "train"):
        assert ehdnas(command).code == 0
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


def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_the_old_one(project, ehdnas):
    """The limit on a file's size stands for the full disk: both are an OSError in the middle of a write."""
    (project / "ehdnas.toml").write_text(SELDOM.replace("3600", "0"))
    assert ehdnas("profile", "--device", "ehdnas-generic").code == 0
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
    assert [name for name in os.listdir(run.folder) if name != "run.json"] == []
    assert ehdnas("search", "--resume").code == 0
