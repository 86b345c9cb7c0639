"""Data, space and size of the last profile or search are the next command's, unless told otherwise."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ehdnas.settings import load_settings
from ehdnas.workspace import find_workspace

SIZE = ("--channels", "4", "--cells", "3", "--samples", "20", "--device", "ehdnas-generic")


@pytest.fixture
def photos(project):
    """A folder of images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (project / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / "photos" / name / f"{number}.png")
    return "images:./photos"


def test_what_was_profiled_is_what_is_predicted_next(project, photos, ehdnas):
    assert ehdnas("profile", "--data", photos, *SIZE).code == 0
    told = ehdnas("predict", "DARTS_V2", "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out)["shape"] == "c4x3-3x32x32-2-cifar"
    assert f"settings: data images:{project}/photos, channels 4, cells 3" in told.err
    (project / "below").mkdir()
    assert find_workspace(project / "below").remembered()["data"] == f"images:{project}/photos"


def test_other_data_begin_anew_and_the_same_data_do_not(project, photos, ehdnas):
    assert ehdnas("profile", "--data", photos, *SIZE).code == 0
    other = ehdnas("predict", "DARTS_V2", "--data", "digits")
    assert other.code == 2 and "is not profiled for c8x5-1x8x8-10-cifar" in other.err
    assert ehdnas("predict", "DARTS_V2", "--data", photos).code == 0
    Path("ehdnas.toml").write_text('data = "digits"\n')
    assert "c8x5-1x8x8-10-cifar" in ehdnas("predict", "DARTS_V2").err


def test_files_and_flags_come_before_what_is_remembered(project):
    before = {"data": f"images:{project}/photos", "channels": 4, "space": "mobile"}
    (project / "ehdnas.toml").write_text("channels = 6\n")
    loaded = load_settings({"space": "darts"}, project, before=before)
    assert (loaded.settings.data, loaded.settings.channels, loaded.settings.space) == (
        before["data"], 6, "darts",
    )  # fmt: skip
    assert loaded.origins["data"] == "the last command here"


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"data": '])
def test_a_damaged_memory_is_none(project, text):
    workspace = find_workspace()
    workspace.remember({"data": "digits"})
    (workspace.folder / "settings.json").write_text(text)
    assert workspace.remembered() is None
