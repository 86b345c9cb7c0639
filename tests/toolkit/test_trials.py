"""A search's end: the finalists are trained a little, and what trains best is kept."""

import json

import pytest

from ehdnas.workspace import find_workspace


def searched(ehdnas, *flags):
    result = ehdnas("search", "--budget", "1x", "--json", *flags)
    assert result.code == 0, result.err
    return json.loads(result.out), result.err


def test_fewer_finalists_are_tried_for_longer_and_the_best_of_the_last_round_is_kept(tiny, ehdnas):
    found, told = searched(ehdnas, "--finalists", 6)
    trials = found["trials"]
    assert [one["epochs"] for one in trials] == [1, 1, 1, 1, 1, 1, 3, 3]
    first, last = trials[:6], trials[6:]
    assert {one["genotype"] for one in first} <= {one["genotype"] for one in found["candidates"]}
    assert all(
        one["meets"] for one in found["candidates"] if one["genotype"] in {t["genotype"] for t in first}
    )
    cut = sorted(one["accuracy"] for one in first)[-2]
    assert all(one["accuracy"] >= cut for one in first if one["genotype"] in {t["genotype"] for t in last})
    assert found["genotype"] == found["chosen"]["genotype"] == trials[-1]["genotype"]
    assert trials[-1]["accuracy"] == max(one["accuracy"] for one in last)
    assert "6 networks meet the budget about alike" in told
    assert f"right for {trials[-1]['accuracy']:.2%}" in told


def test_a_single_finalist_is_not_tried(tiny, ehdnas):
    found, told = searched(ehdnas, "--finalists", 1)
    assert found["trials"] == []
    assert "from scratch" not in told


def test_other_methods_try_as_many(tiny, ehdnas):
    found, _ = searched(ehdnas, "--method", "random", "--finalists", 2)
    assert len(found["trials"]) == 2


def test_what_was_tried_is_not_tried_again(tiny, ehdnas, monkeypatch):
    from ehdnas.pipeline import trials

    trained = []
    train = trials._Trials._train

    def one(self, genotype, epochs, show):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(genotype)
        return train(self, genotype, epochs, show)

    with monkeypatch.context() as patch:
        patch.setattr(trials._Trials, "_train", one)
        assert ehdnas("search", "--budget", "1x", "--finalists", 3).code == 130
    run = find_workspace().latest()
    kept = json.loads((run.folder / "trials.json").read_text())
    assert len(kept) == 2
    found, _ = searched(ehdnas, "--finalists", 3, "--resume")
    assert found["run"] == run.name
    told = {f"{one['genotype']} {one['epochs']}": one["accuracy"] for one in found["trials"]}
    assert kept.items() <= told.items() and len(told) == 3
    assert not list(run.folder.glob("trial-*"))
    again, _ = searched(ehdnas, "--finalists", 3)
    assert again["trials"] == found["trials"]


@pytest.mark.parametrize(("flag", "value"), [("--finalists", 0), ("--finalists", 65), ("--trial-epochs", 0)])
def test_numbers_that_cannot_be_right_are_refused(tiny, ehdnas, flag, value):
    result = ehdnas("search", flag, value)
    assert result.code == 2
    assert result.err.startswith(f"error: {flag}: must be at")


def test_the_length_of_trials_follows_from_the_search(project):
    from ehdnas.pipeline.context import Context
    from ehdnas.pipeline.reporter import Silent
    from ehdnas.pipeline.trials import trial_epochs
    from ehdnas.settings import Settings
    from ehdnas.workspace import Workspace

    def epochs(**settings):
        return trial_epochs(Context(Settings(**settings), Workspace(project), Silent()))

    # 718 images of digits, 22 steps of 32 an epoch
    assert epochs(search_epochs=1) == epochs(search_epochs=50) == 14
    assert epochs(search_epochs=1000) == 40
    assert epochs(batch_size=2) == 2  # 4 % of 50 epochs
    assert epochs(search_epochs=150, trial_epochs=1) == 1
