"""Sweeps and labels on many workers: by Ray on loopback, lost workers and all."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler
from ehdnas.search.spaces.base import Architecture, NetworkShape, find_space
from ehdnas.workspace import find_workspace

# Not importorskip: Ray, once imported, no longer hears of the token that the command makes for it.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--seeds", "1,x"], 2, "'x' is no seed; give 0,1,2 or 0-2"),
        (["--seeds", "5-3"], 2, "from 5 to 3"),
        (["--seeds", "0-99999"], 2, "give at most 10,000"),
        (["--budgets", ";"], 2, "a sweep of 0 searches"),
        (["--devices", "ehdnas-generik"], 2, "did you mean 'ehdnas-generic'"),
        (["--spaces", "dart"], 2, "did you mean 'darts'"),
        (["--budgets", "latency <= soon"], 2, "latency <= soon"),
        (["--gpus", 1, "--workers", 1], 2, "a task wants 1 GPU, and there is 0"),
        (["--address", "127.0.0.1:1"], 2, "no cluster at 127.0.0.1:1 answers"),
        (["--address", "here"], 2, "--address here: give HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tiny, ehdnas, flags, code, says):
    result = ehdnas("sweep", *flags)
    assert result.code == code and says in result.err
    assert result.err.count("error: ") == 1 and "Traceback" not in result.err


def test_devices_that_are_named_need_not_be_the_only_ones_profiled(tiny, ehdnas):
    assert ehdnas("profile", "--device", "ehdnas-pipeline", "--samples", 12).code == 0
    assert "choose one with --device" in ehdnas("sweep", "--budgets", ";").err
    named = ehdnas("sweep", "--budgets", ";", "--devices", "ehdnas-generic,ehdnas-pipeline")
    assert "a sweep of 0 searches" in named.err


def test_without_ray_it_is_said_before_anything_is_profiled(project, ehdnas, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = ehdnas("sweep", "--samples", 12)
    assert result.code == 2 and "this needs Ray; install it" in result.err
    assert "simulate" not in result.err


def test_a_sweep_finds_what_single_searches_find_and_does_nothing_twice(tiny, ehdnas):
    flags = ["--budgets", "0.9x; latency <= 0.000001 ms", "--seeds", "0-1", "--finalists", 1]
    result = ehdnas("sweep", *flags, "--workers", 2, "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["searches"]
    assert [(row["status"], row["seed"]) for row in rows] == [
        ("found", 0), ("found", 1), ("no network", 0), ("no network", 1),
    ]  # fmt: skip
    assert "the nearest found has" in rows[2]["why"]
    for row in rows[:2]:
        assert find_workspace().run(row["run"], "").genotype == row["genotype"]
    alone = ehdnas("search", "--budget", "0.9x", "--seed", 1, "--finalists", 1, "--json")
    found = json.loads(alone.out)
    assert (found["genotype"], found["chosen"]["figures"]) == (rows[1]["genotype"], rows[1]["figures"])
    again = ehdnas("sweep", *flags, "--workers", 2, "--resume", "--json")
    assert json.loads(again.out)["searches"] == rows and "to do" not in again.err
    other = ehdnas("sweep", *flags, "--workers", 2, "--resume", "--cells", 4)
    assert other.code == 2 and "cells (was 3, now 4)" in other.err


@pytest.mark.slow
def test_a_lost_worker_costs_its_search_alone_and_is_done_again(tiny, ehdnas):
    flags = ["--budgets", "0.8x;0.9x", "--seeds", "0-1", "--finalists", "1", "--search-epochs", "8"]
    command = [sys.executable, "-m", "ehdnas", "sweep", *flags, "--workers", "2", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    victim = _worker_of(process.pid)
    time.sleep(1)
    os.kill(victim, signal.SIGKILL)
    out, _ = process.communicate(timeout=400)
    rows = json.loads(out)["searches"]
    assert process.returncode == 0 and [row["status"] for row in rows] == ["found"] * 4
    alone = ehdnas("search", "--budget", "0.8x", *flags[4:], "--seed", 0, "--json")
    assert json.loads(alone.out)["genotype"] == rows[0]["genotype"]


def _worker_of(parent):
    """Return a process that runs a search for the sweep `parent`."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                name = (path / "cmdline").read_text().partition("\0")[0]
            except OSError:
                continue
            if name.startswith("ray::_run_job"):
                return int(path.name)
        time.sleep(0.1)
    pytest.fail(f"no worker of {parent} was seen")


def test_labels_are_those_of_single_networks_and_are_added_to(tiny, ehdnas, monkeypatch):
    monkeypatch.setattr("ehdnas.pipeline.labels.SHARD", 50)
    first = json.loads(ehdnas("label", "--count", 120, "--out", "labels", "--json").out)
    assert first["networks"] == first["labelled_now"] == 120
    files = sorted(Path("labels").glob("*.npz"))
    assert [len(np.load(file)["choices"]) for file in files] == [50, 50, 20]
    one = np.load(files[1])
    network = Architecture(tuple(int(choice) for choice in one["choices"][7]))
    shape = NetworkShape(4, 3, (1, 8, 8), 10)
    alone = find_profiler(find_device("ehdnas-generic")).simulate(
        costed(find_space("darts"), shape).table(network)
    )
    assert alone.metric("throughput_fps") == pytest.approx(one["throughput_fps"][7])
    assert one["latency_ms"][7] == pytest.approx(1e3 / one["throughput_fps"][7])
    files[0].write_bytes(files[0].read_bytes()[:100])  # a file that was cut short is made again
    more = json.loads(ehdnas("label", "--count", 150, "--out", "labels", "--json").out)
    assert more["labelled_now"] == 100
    assert np.array_equal(np.load(files[1])["choices"], one["choices"])
    other = ehdnas("label", "--count", 150, "--out", "labels", "--seed", 1)
    assert other.code == 2 and "seed (was 0, now 1)" in other.err


def test_several_workers_give_the_same_labels(tiny, ehdnas):
    for workers, folder in ((1, "one"), (2, "two")):
        assert ehdnas("label", "--count", 200, "--out", folder, "--workers", workers).code == 0
    one, two = (np.load(f"{folder}/labels-00000.npz") for folder in ("one", "two"))
    assert all(np.array_equal(one[key], two[key]) for key in ("choices", "latency_ms", "throughput_fps"))


def test_a_real_device_has_no_labels(tiny, ehdnas):
    result = ehdnas("label", "--count", 10, "--out", "labels", "--device", "local")
    assert result.code == 2 and "'local' is real" in result.err
    assert not Path("labels").exists()
