"""Boards through the command line: a real sshd on loopback, files run and timed over there."""

import json
import sqlite3

import pytest
from sshd import several_sshds

from ehdnas.profilers.board.smoke import smoke_model

pytest_plugins = ("sshd_fixtures", "board_fixtures")

SIZE = ("--channels", "4", "--cells", "3")
SAMPLES = 10  # each is exported, which takes most of the time; a predictor takes no fewer


def rows_of(project) -> list[tuple]:
    with sqlite3.connect(project / ".ehdnas" / "measurements.db") as database:
        return database.execute("SELECT subject, passport FROM measurements ORDER BY id").fetchall()


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_board_is_profiled_to_a_fitted_predictor(
    project, ehdnas, own_sshd, known_board, brief, tmp_path_factory, runtime
):
    place = tmp_path_factory.mktemp("board")
    with own_sshd(TMPDIR=place) as sshd:
        profile_and_look(project, ehdnas, known_board(sshd, "board", runtime), runtime)
    assert list(place.iterdir()) == []


def profile_and_look(project, ehdnas, device, runtime):
    done = ehdnas("profile", "--device", device, "--samples", SAMPLES, *SIZE, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["basis"] == "measured" and said["held_out"]["samples"] == SAMPLES
    rows = rows_of(project)
    assert len({subject for subject, _ in rows}) == len(rows) == SAMPLES
    passport = json.loads(rows[0][1])
    package = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}[runtime]
    assert passport["interpreter"].startswith(package) and passport["kind"] == "ssh"
    assert ehdnas("predict", "DARTS_V2", "--device", device, *SIZE).code == 0
    again = ehdnas("profile", "--device", device, "--samples", SAMPLES, *SIZE)
    assert again.code == 0 and f"{SAMPLES} known already" in again.err and len(rows_of(project)) == SAMPLES


def test_doctor_says_that_a_board_is_ready(project, ehdnas, sshd, known_board):
    done = ehdnas("doctor", "--device", known_board(sshd))
    assert done.code == 0, done.out
    assert "✓  reachable: board-host" in done.out and "✓  smoke test" in done.out


def test_a_file_is_measured_once_unless_asked_again(project, ehdnas, sshd, known_board, brief):
    device, path = known_board(sshd), project / "relu.tflite"
    path.write_bytes(smoke_model(".tflite"))
    first = json.loads(ehdnas("measure", path, "--device", device, "--json").out)
    second = ehdnas("measure", path, "--device", device, "--json")
    assert json.loads(second.out)["passport"] == first["passport"]
    assert "--again repeats it" in second.err
    third = json.loads(ehdnas("measure", path, "--device", device, "--again", "--json").out)
    assert third["passport"] != first["passport"]


def test_operations_are_timed_for_as_long_as_there_is_time(project, ehdnas, sshd, known_board, brief):
    device = known_board(sshd, "board", "onnxruntime")
    done = ehdnas("profile", "--ops", "--device", device, *SIZE, "--minutes", 0.02, "--json")
    assert done.code == 0 and "are not measured yet" in done.err
    said = json.loads(done.out)
    assert said["operations"][0]["name"] == "stem0" and said["sum_of_operations"] is None


@pytest.mark.slow
def test_operations_and_cells_are_timed_and_summed_up(project, ehdnas, sshd, known_board, brief):
    device = known_board(sshd)
    assert ehdnas("profile", "--device", device, "--samples", 12, *SIZE).code == 0
    done = ehdnas("profile", "--ops", "--device", device, *SIZE, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert {"sep_conv_3x3", "max_pool_3x3", "stem0"} <= {row["name"] for row in said["operations"]}
    assert [row["name"] for row in said["cells"]] == ["cell0", "cell1", "cell2"]
    assert all(row["latency_ms"] > 0 for row in said["operations"] + said["cells"])
    assert said["sum_of_operations"]["samples"] == 12
    assert ehdnas("profile", "--ops", "--device", "ehdnas-generic", *SIZE).code == 2


def test_two_boards_of_a_kind_share_the_work(project, ehdnas, known_board, brief, tmp_path):
    with several_sshds(tmp_path, 2) as (one, other):
        known_board(one, "kind", "onnxruntime")
        for number, sshd in enumerate((one, other), 1):
            known_board(sshd, f"alias{number}")
            where = f"host=alias{number}-host"
            added = ehdnas("devices", "add", f"kind-{number}", "--board-of", "kind", where)
            assert added.code == 0, added.err
        done = ehdnas("profile", "--device", "kind-1,kind-2", "--samples", 12, *SIZE)
    assert done.code == 0, done.err
    assert "2 boards of kind" in done.err
    boards = [json.loads(passport)["board"] for _, passport in rows_of(project)]
    assert len(boards) == 12 and set(boards) == {"kind-1", "kind-2"}
    assert ehdnas("predict", "DARTS_V2", "--device", "kind", *SIZE).code == 0
    refused = ehdnas("profile", "--device", "kind-1,local", *SIZE)
    assert refused.code == 2 and "not boards of one kind" in refused.err


def test_a_device_without_a_host_and_an_unknown_host_say_what_to_do(project, ehdnas, sshd, known_board, home):
    assert "has no host; set one" in ehdnas("profile", "--device", "pi4").err
    device = known_board(sshd, "board", "onnxruntime")
    hosts = sshd.folder / "known_hosts"
    hosts.rename(sshd.folder / "aside")
    try:
        profiled = ehdnas("profile", "--device", device, "--samples", 10, *SIZE)
        checked = ehdnas("doctor", "--device", device)
    finally:
        (sshd.folder / "aside").rename(hosts)
    assert profiled.code == 4 and "add this line to" in profiled.err.strip().splitlines()[-1]
    assert checked.code == 4 and "✓  reachable" in checked.out
    assert "✗  host key" in checked.out and "add this line to" in checked.out
