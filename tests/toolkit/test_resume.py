"""kill -9 in the middle: nothing finished is lost, and what is resumed ends as if never killed."""

import json
import sqlite3

import pytest

from ehdnas.core.files import sha256
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.workspace import find_workspace

LONGER = """
channels = 4
cells = 3
samples = 300
search_epochs = 3
finalists = 2
trial_epochs = 1
train_epochs = 3
batch_size = 64
checkpoint_s = 0
"""


def rows(project):
    """How many measurements are stored, and how many of them are of something measured before."""
    path = project / ".ehdnas" / "measurements.db"
    if not path.exists():
        return 0, 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            total, distinct = database.execute(
                "SELECT count(*), count(DISTINCT subject) FROM measurements"
            ).fetchone()
    except sqlite3.OperationalError:
        return 0, 0
    return total, total - distinct


def steps(project, stage):
    """How many steps a stage's checkpoint holds; of a trial, which is named after its network, any."""
    run = find_workspace(project).latest()
    if run is None:
        return 0
    path = next(run.folder.glob("trial-*"), None) if stage == "trial" else run.checkpoint(stage)
    return load_checkpoint(path)[1]["done"] if path is not None and path.exists() else 0


def finish(ehdnas):
    """Bring a project to its trained network and return (genotype, hash of the weights)."""
    for command in (["profile", "--device", "ehdnas-generic"], ["search", "--resume"], ["train", "--resume"]):
        result = ehdnas(*command)
        assert result.code == 0, result.err
    run = find_workspace().latest()
    return run.genotype, sha256(run.weights)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a run that is never killed ends with: made once."""
    import os

    from ehdnas.cli import main

    folder = tmp_path_factory.mktemp("never-killed")
    (folder / "ehdnas.toml").write_text(LONGER)
    before = os.getcwd()
    os.chdir(folder)
    try:
        for command in (["profile", "--device", "ehdnas-generic"], ["search"], ["train"]):
            assert main(command) == 0
        run = find_workspace().latest()
        return run.genotype, sha256(run.weights)
    finally:
        os.chdir(before)


PLACES = [
    *[("profile", count) for count in (1, 101, 201)],
    *[("search", count) for count in (1, 14, 30)],
    *[("trial", count) for count in (1, 8)],
    *[("train", count) for count in (1, 24, 60)],
]
"""Stage, and after how many stored measurements or steps it is killed."""


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "after"), PLACES)
def test_a_killed_stage_resumes_to_the_same_weights(project, ehdnas, killed, expected, stage, after):
    (project / "ehdnas.toml").write_text(LONGER)
    if stage != "profile":
        assert ehdnas("profile", "--device", "ehdnas-generic").code == 0
    if stage == "train":
        assert ehdnas("search").code == 0
    command = "search" if stage == "trial" else stage
    arguments = [command, "--device", "ehdnas-generic"] if stage == "profile" else [command]

    def ready():
        return (rows(project)[0] if stage == "profile" else steps(project, stage)) >= after

    assert killed(project, arguments, ready), "the stage ended before it could be killed"
    kept = rows(project)[0]
    assert finish(ehdnas) == expected
    total, repeated = rows(project)
    assert total >= kept
    assert repeated == 0


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 6, 10])
def test_on_a_real_clock_no_measurement_is_lost_or_repeated(project, ehdnas, killed, after):
    (project / "ehdnas.toml").write_text(
        "channels = 2\ncells = 3\nsamples = 12\nsearch_epochs = 1\nfinalists = 1\n"
        'protocol = "quick"\ndevice = "local"\n'
    )
    assert killed(project, ["profile"], lambda: rows(project)[0] >= after, limit_s=200)
    kept = rows(project)[0]
    assert ehdnas("profile").code == 0
    assert rows(project) == (12, 0)
    assert kept >= after
    first = ehdnas("search", "--json")
    database = (project / ".ehdnas" / "measurements.db").read_bytes()
    second = ehdnas("search", "--json")
    assert json.loads(first.out)["genotype"] == json.loads(second.out)["genotype"]
    assert (project / ".ehdnas" / "measurements.db").read_bytes() == database
