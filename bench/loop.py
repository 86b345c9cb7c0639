"""The whole loop as a new user types it, on a board on loopback and real CIFAR-10; then killed and resumed.

    python bench/loop.py [--kills 3] [--seed 0]

Protocol, written down before it was run. In an empty folder, with a home of its own: one shard of CIFAR-10
(10,000 training images), a board that is a real sshd on loopback with LiteRT, networks of C=4 x 4 cells, 20
measured samples, a search of 3 epochs with 3 finalists, a training of 3 epochs. First, whole, and timed:

    ehdnas run --device board --data cifar10:... --budget "0.8x"

It has to take 30 minutes at most, end in PASS, and `ehdnas measure` of the exported file, later and by
itself, has to read within 5 % of the verdict's latency. Then the same in another folder, killed (SIGKILL)
three times after random times, and gone on with by --resume: it has to end in PASS as well. What it measures
on the way differs from the first folder, so its network may.

Prints a line a step; writes bench/results/loop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cifar10
from common import ROOT, write_result

sys.path.insert(0, str(ROOT / "tests" / "support"))
from sshd import running_sshd

EHDNAS = (sys.executable, "-m", "ehdnas")
SETTINGS = """channels = 4
cells = 4
samples = 20
search_epochs = 3
finalists = 3
trial_epochs = 1
train_epochs = 3
"""
MOST_S, MOST_APART = 30 * 60, 0.05


class Project:
    """A folder with the settings, and a home whose ssh configuration knows the board."""

    def __init__(self, folder: Path, ssh: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        home = folder / "home"
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(ssh, home / ".ssh" / "config")
        self.environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        (folder / "ehdnas.toml").write_text(SETTINGS)
        self.told(
            "devices", "add", "board", "--from", "linux", "host=board", f"options.python={sys.executable}"
        )

    def told(self, *arguments: str) -> dict[str, Any]:
        """Return what a command tells; a budget that is not met is no failure."""
        done = subprocess.run(
            [*EHDNAS, *arguments, "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 3):
            sys.exit(f"ehdnas {' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-500:]}")
        return json.loads(done.stdout) if done.stdout else {}

    def run(self, *more: str) -> dict[str, Any]:
        """Return the verdict of `ehdnas run`."""
        flags = ("--device", "board", "--data", f"cifar10:{self.data}", "--budget", "0.8x")
        return self.told("run", *flags, *more)

    def killed(self, after_s: float) -> bool:
        """Start the run, kill it after so long; return whether it was still at it."""
        flags = ["--device", "board", "--data", f"cifar10:{self.data}", "--budget", "0.8x", "--resume"]
        process = subprocess.Popen(
            [*EHDNAS, "run", *flags], cwd=self.folder, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        return False


def main() -> None:
    """Run the loop whole, then killed and resumed, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as name:
        place = Path(name)
        (place / "sshd").mkdir()
        data = cifar10.unpack(place / "data", "1")
        with running_sshd(place / "sshd") as sshd:
            figures = loop(place, sshd.config, data, args)
    write_result("loop", figures)


def loop(place: Path, ssh: Path, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the whole run, and of the one that is killed."""
    whole = Project(place / "whole", ssh, data)
    begin = time.monotonic()
    result = whole.run()
    seconds = time.monotonic() - begin
    (figure,) = result["figures"]
    file = next(one["file"] for one in result["artifacts"] if one["target"] == "tflite")
    again = whole.told("measure", file, "--device", "board", "--again")["metrics"]["latency_ms"]
    apart = again / figure["value"] - 1
    print(
        f"whole: {result['verdict']} in {seconds:.0f} s; {figure['value']:.4g} ms, measured again "
        f"{again:.4g} ms ({apart:+.1%}); test accuracy {result['test_accuracy']:.2%}",
        flush=True,
    )
    other, rng, kills = Project(place / "killed", ssh, data), random.Random(args.seed), []
    while len(kills) < args.kills:
        after = rng.uniform(0.05, 0.9) * seconds / args.kills
        kills.append([round(after), other.killed(after)])
        print(f"killed after {kills[-1][0]} s: {kills[-1][1]}", flush=True)
    resumed = other.run("--resume")
    print(f"resumed: {resumed['verdict']}, test accuracy {resumed['test_accuracy']:.2%}", flush=True)
    return {
        "verdict": result["verdict"],
        "seconds": seconds,
        "within_30_minutes": seconds <= MOST_S,
        "latency_ms": figure["value"],
        "measured_again_ms": again,
        "within_5_percent": abs(apart) <= MOST_APART,
        "kills": kills,
        "resumed_verdict": resumed["verdict"],
        "test_accuracy": [result["test_accuracy"], resumed["test_accuracy"]],
    }


if __name__ == "__main__":
    main()
