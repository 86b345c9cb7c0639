"""Random search and evolution through the command, and what is refused or warned of before a search."""

import json

import numpy as np
import pytest
from PIL import Image

from ehdnas.workspace import find_workspace


@pytest.mark.parametrize("method", ["random", "evolution"])
def test_a_baseline_scores_more_networks_and_keeps_the_budget(tiny, ehdnas, method):
    result = ehdnas("search", "--method", method, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["method"] == method
    assert found["chosen"]["figures"][0]["value"] <= found["budgets"][0]["bound"]
    # 1442 training images: 22 architecture steps of 64 images, two passes each, over 721 held-out ones.
    assert f"{method} over 19 networks" in result.err
    scores = json.loads(find_workspace().latest().stage_file("scores").read_text())
    assert len(scores) == 19 and found["chosen"]["genotype"] in scores
    assert all("entropy" not in record for record in found["history"])
    assert ehdnas("report").code == 0


def test_what_was_scored_is_not_scored_again(tiny, ehdnas):
    first = json.loads(ehdnas("search", "--method", "random", "--finalists", 1, "--json").out)
    run = find_workspace().latest()
    scores = json.loads(run.stage_file("scores").read_text())
    run.stage_file("scores").write_text(json.dumps(dict.fromkeys(scores, 0.5) | {first["genotype"]: 0.75}))
    run.forget("search")
    second = json.loads(ehdnas("search", "--resume", "--json").out)
    assert second["genotype"] == first["genotype"] and second["chosen"]["supernet_accuracy"] == 0.75


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--method", "annealing"], "--method: must be 'gradient', "),
        (["--method", "guided"], "queries a table of accuracies, and 'ehdnas-generic' is none"),
        (["--queries", 50], "--queries counts accuracies asked of a table"),
        (["--queries", 50, "--method", "random"], "--queries counts accuracies asked of a table"),
        (["--queries", 0, "--method", "random"], "--queries: "),
        (
            ["--pareto", 3, "--method", "evolution"],
            "--pareto is for the search by gradient, not --method evol",
        ),
    ],
)
def test_methods_that_cannot_be_are_refused_before_anything_is_done(tiny, ehdnas, flags, says):
    result = ehdnas("search", *flags)
    assert result.code == 2 and says in result.err
    assert result.err.count("\n") == 1 and not (tiny / ".ehdnas" / "runs").exists()


def test_a_few_hundred_images_are_warned_of_with_the_figure(project, ehdnas):
    (project / "ehdnas.toml").write_text(
        "channels = 4\ncells = 3\nsamples = 60\nbatch_size = 32\nfinalists = 1\n"
    )
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (project / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / "photos" / name / f"{number}.png")
    flags = ["--data", "images:photos", "--image-size", 8, "--search-epochs", 1, "--budget", "1.5x"]
    result = ehdnas("search", *flags)
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "a search can hardly tell them apart" in line]
    # √(2 · 0.9 · 0.1 / 24)
    assert "of 48 training images 24 are left" in line and "8.7 points of accuracy apart" in line


def test_enough_images_are_not_warned_of(tiny, ehdnas):
    assert "hardly tell them apart" not in ehdnas("search").err
