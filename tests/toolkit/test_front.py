"""`search --pareto N`: as many networks, none dominated, each a run of its own."""

import json

import pytest

from ehdnas.pipeline import finalists
from ehdnas.pipeline.front_candidates import FrontCandidates
from ehdnas.pipeline.scoring import SCORED
from ehdnas.workspace import find_workspace


def points_of(found):
    return [(row["figures"][0]["value"], row["supernet_accuracy"]) for row in found["front"]]


def assert_none_dominated(points):
    assert points == sorted(points)
    accuracies = [accuracy for _, accuracy in points]
    assert len(set(accuracies)) == len(set(points)) == len(points)
    assert accuracies == sorted(accuracies)


def test_five_networks_none_dominated_each_a_run_to_go_on_with(tiny, ehdnas):
    result = ehdnas("search", "--pareto", 5, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    points = points_of(found)
    assert len(points) == 5
    assert_none_dominated(points)
    (budget,) = found["budgets"]
    assert all(value <= budget["bound"] for value, _ in points)
    assert points[0][0] < 0.8 * points[-1][0]
    workspace = find_workspace()
    run = workspace.latest()
    assert run.name == found["run"]
    for number, row in enumerate(found["front"], 1):
        part = workspace.run(f"{run.name}-{number}", "")
        assert part.genotype == row["genotype"]
        (own,) = part.read("search")["budgets"]
        assert row["figures"][0]["value"] <= own["bound"] <= budget["bound"]
        assert part.read("run")["settings"]["pareto"] is None
    unsaid = ehdnas("train")
    assert unsaid.code == 2 and f"--run {run.name}-1 to {run.name}-5" in unsaid.err
    name = f"{run.name}-2"
    assert json.loads(ehdnas("train", "--run", name, "--json").out)["run"] == name
    assert ehdnas("export", "--run", name, "--target", "onnx").code == 0
    assert "PASS" in ehdnas("verify", "--run", name).out
    assert ehdnas("report", "--run", name).code == 0
    again = ehdnas("search", "--resume", "--json")
    assert "nothing to resume" in again.err
    assert json.loads(again.out) == found


def test_what_does_not_join_the_front_is_not_looked_at_again(tiny, ehdnas, monkeypatch):
    """Where all are as accurate nothing joins the fastest, and each round looks at others."""
    looked, around = [], FrontCandidates._around

    def noted(self, stretch):
        looked.append(around(self, stretch))
        return looked[-1]

    monkeypatch.setattr(FrontCandidates, "_around", noted)
    monkeypatch.setattr(finalists, "shared_accuracy", lambda *arguments: lambda network: 0.5)
    result = ehdnas("search", "--pareto", 3, "--search-epochs", 1)
    assert result.code == 0 and "1 of 3 networks were found" in result.err
    every = [network for networks in looked for network in networks]
    assert len(looked) == 20 and len(set(every)) == len(every) > 10 * SCORED


def test_a_budget_without_a_network_of_its_own_is_looked_into(tiny, ehdnas, monkeypatch):
    """Accuracies that a search of one epoch knows nothing of: the front is still spread over the range."""

    def accuracy(network):
        return 0.5 + 0.01 * sum(choice in (5, 6) for choice in network.choices)

    monkeypatch.setattr(finalists, "shared_accuracy", lambda *arguments: accuracy)
    result = ehdnas("search", "--pareto", 4, "--search-epochs", 1, "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["front"]
    bounds = [row["budget"]["bound"] for row in rows]
    assert len(set(bounds)) == len(bounds) == 4
    assert_none_dominated([(row["figures"][0]["value"], row["supernet_accuracy"]) for row in rows])


@pytest.mark.slow
def test_a_budget_is_over_all_networks_and_the_table_shows_them(tiny, ehdnas):
    result = ehdnas("search", "--pareto", 3, "--budget", "throughput >= 120000 fps")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    run = find_workspace().latest()
    rows = run.read("search")["front"]
    assert [line.split()[0] for line in lines[1:4]] == [row["run"] for row in rows]
    values = [row["figures"][0]["value"] for row in rows]
    assert values == sorted(values, reverse=True) and min(values) >= 120000
    assert lines[-1] == f"next  ehdnas train --run {run.name}-3"


@pytest.mark.slow
def test_a_front_that_was_interrupted_ends_as_if_it_were_not(tiny, ehdnas, monkeypatch):
    from ehdnas.search.searcher import Searcher

    with (tiny / "ehdnas.toml").open("a") as settings:
        settings.write("checkpoint_s = 0\n")
    whole = json.loads(ehdnas("search", "--pareto", 3, "--json").out)
    step, done = Searcher.weight_step, []

    def interrupted(self, *batch):
        done.append(1)
        if len(done) == 15:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Searcher, "weight_step", interrupted)
    assert ehdnas("search", "--pareto", 3).code == 130
    monkeypatch.setattr(Searcher, "weight_step", step)
    resumed = ehdnas("search", "--resume", "--json")
    assert "going on after step 14" in resumed.err
    found = json.loads(resumed.out)
    assert points_of(found) == points_of(whole) and found["history"] == whole["history"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--device", "ehdnas-generic,zcu102-pipeline"],
            "is for one device, not ehdnas-generic, zcu",
        ),
        (["--budget", "latency <= 1 ms, energy <= 1 mJ"], "--pareto is along one budget, not 'latency"),
    ],
)
def test_a_front_has_two_axes(project, ehdnas, flags, says):
    result = ehdnas("search", "--pareto", 5, *flags)
    assert result.code == 2 and says in result.err
    assert not (project / ".ehdnas").exists()


def test_fewer_than_two_networks_are_no_front(project, ehdnas):
    result = ehdnas("search", "--pareto", 1)
    assert result.code == 2 and "--pareto" in result.err


def test_run_makes_one_network(project, ehdnas):
    (project / "ehdnas.toml").write_text("pareto = 3\n")
    result = ehdnas("run")
    assert result.code == 2 and "`ehdnas run` makes one network" in result.err
