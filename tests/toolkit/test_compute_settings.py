"""Where to compute, as settings: refused in one line where it cannot be, and free to change on resuming."""

import json

import pytest
import torch

from ehdnas.core.errors import UsageError
from ehdnas.settings import load_settings


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:1"])
def test_a_place_is_read(text):
    assert load_settings({"compute": text}, None).settings.compute == text


def test_a_place_that_cannot_be_is_one_line():
    with pytest.raises(UsageError, match=r"--compute: should be auto, cpu, cuda or cuda:N, not 'tpu'"):
        load_settings({"compute": "tpu"}, None)


@pytest.mark.slow
def test_a_search_on_a_gpu_that_is_not_there_ends_before_it_begins(tiny, ehdnas, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = ehdnas("search", "--compute", "cuda")
    assert result.code == 2
    assert "finds 0 GPUs here; choose auto or cpu" in result.err
    assert not (tiny / ".ehdnas" / "runs").exists() or not list((tiny / ".ehdnas" / "runs").iterdir())


@pytest.mark.slow
def test_a_run_is_trained_with_options_and_resumed_elsewhere(tiny, ehdnas):
    assert ehdnas("search", "--search-epochs", "1", "--precision", "bfloat16").code == 0
    again = ehdnas("search", "--resume", "--precision", "float32", "--compute", "cpu")
    assert again.code == 0, again.err
    result = ehdnas(
        "train", "--train-epochs", "1", "--ema", "0.9", "--label-smoothing", "0.1", "--mixup", "0.2"
    )
    assert result.code == 0, result.err
    resumed = ehdnas("train", "--resume", "--json")
    assert json.loads(resumed.out)["epochs"] == 1
