"""`--codesign`: the accelerator is designed anew for every network, and written down for the one found."""

import json

import pytest

from ehdnas.workspace import find_workspace


def test_a_codesigned_search_gives_a_network_and_its_accelerator(tiny, ehdnas):
    result = ehdnas("search", "--device", "zcu102-pipeline", "--codesign", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["chosen"]["meets"] and found["budgets"][0]["device"] == "zcu102-pipeline"
    accelerator = find_workspace().latest().read("accelerator")
    assert 0 < accelerator["resources"]["dsp"] <= 2520
    assert accelerator["latency_ms"] > 0
    assert all("kpf" in row["design"] for row in accelerator["layers"] if row["operator"] == "conv")
    # Labels of the fixed accelerator and of the explored one are kept apart.
    fixed = ehdnas("predict", "DARTS_V2", "--device", "zcu102-pipeline")
    assert fixed.code == 2 and "is not profiled" in fixed.err


@pytest.mark.slow
def test_a_generic_accelerator_is_designed_too(tiny, ehdnas):
    flags = ["--device", "zcu102-generic", "--codesign", "--budget", "0.95x", "--json"]
    result = ehdnas("search", *flags)
    assert result.code == 0, result.err
    design = find_workspace().latest().read("accelerator")["design"]
    assert {"cpf", "kpf", "pixel_parallel", "buffer_kb"} <= set(design)


@pytest.mark.parametrize(
    ("device", "says"),
    [("ehdnas-generic", "nothing to explore"), ("dpu-b4096", "a board"), ("local", "is real")],
)
def test_what_cannot_be_designed_is_said_before_anything_is_done(project, ehdnas, device, says):
    result = ehdnas("search", "--device", device, "--codesign")
    assert result.code == 2
    assert says in result.err.strip().splitlines()[-1]
    assert not (project / ".ehdnas").exists()
