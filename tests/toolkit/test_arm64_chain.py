"""The whole way on an arm64 board, if an emulated one: doctor, profile, export, and verify over SSH."""

import json
import sqlite3

import pytest

pytest_plugins = ("arm64_fixtures", "board_fixtures")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = """
channels = 4
cells = 3
samples = 10
search_epochs = 1
finalists = 2
trial_epochs = 1
train_epochs = 1
protocol = "quick"
targets = "tflite,tflite-int8,onnx"
"""
VARIANTS = {"arm": (), "arm-int8": ("precision=int8",), "arm-onnx": ("runtime=onnxruntime",)}


@pytest.fixture
def boards(home, ehdnas, arm64_board):
    """The board as three devices of the command line."""
    (home / ".ssh" / "config").write_text(arm64_board.config.read_text())
    for name, settings in VARIANTS.items():
        added = ehdnas("devices", "add", name, "--from", "linux", "host=board", *settings)
        assert added.code == 0, added.err


def test_from_doctor_to_verify(project, ehdnas, boards, cifar_dir):
    doctor = ehdnas("doctor", "--device", "arm", "--json")
    assert doctor.code == 0, doctor.out
    found = {check["name"]: check for check in json.loads(doctor.out)["checks"]}
    assert found["smoke test"]["passed"]
    (project / "ehdnas.toml").write_text(SETTINGS)
    done = ehdnas("run", "--device", "arm", "--data", f"cifar10:{cifar_dir}", "--json")
    # The quick protocol gives figures and no verdict, and an emulated clock would mean nothing either.
    assert done.code == 3 and json.loads(done.out)["verdict"] == "NO VERDICT", done.err
    with sqlite3.connect(project / ".ehdnas" / "measurements.db") as database:
        passports = [json.loads(one) for (one,) in database.execute("SELECT passport FROM measurements")]
    assert {one["machine"]["machine"] for one in passports} == {"aarch64"}
    compared = {name: verified(ehdnas, name) for name in VARIANTS}
    assert compared["arm"]["max_difference"] <= 1e-4 and compared["arm-onnx"]["max_difference"] <= 1e-4
    assert all(one["images"] == 200 and one["top1_agreement"] >= 0.995 for one in compared.values())


def verified(ehdnas, name):
    done = ehdnas("verify", "--device", name, "--json")
    assert done.code == 3, done.err  # no verdict, by the quick protocol
    return json.loads(done.out)["measurements"][0]["on_device"]
