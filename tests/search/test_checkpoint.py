"""Checkpoints: whole or refused, and what is resumed goes on exactly where it stopped."""

import pytest
import torch
from torch import nn

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.search.checkpoint import load_checkpoint, save_checkpoint
from ehdnas.search.loop import Loop, epoch_order, require_same, step_seed, steps_per_epoch


def make_loop(path, stop=None, identity=None):
    """A loop over a tiny problem, run to the end or to `stop` steps; returns it."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizers = {
        "sgd": torch.optim.SGD([module.weight], lr=0.1, momentum=0.9),
        "adam": torch.optim.Adam([module.bias], lr=0.1),
    }
    loop = Loop("test", path, identity or {"a": 1}, module, optimizers, 3, 4, 7, save_every_s=0)
    loop.resume()
    for _epoch, _step in loop.remaining():
        loss = module(torch.randn(5, 3)).square().mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        loop.carried = {"sum": loop.carried.get("sum", 0.0) + loss.item()}
        if stop is not None and loop.done + 1 == stop + 1:
            break
    return loop


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_loop_cut_short_ends_where_an_uncut_one_does(tmp_path, stop):
    whole = make_loop(tmp_path / "whole")
    make_loop(tmp_path / "cut", stop=stop)
    resumed = make_loop(tmp_path / "cut")
    assert load_checkpoint(tmp_path / "cut")[1]["done"] == 12
    assert torch.equal(whole.module.weight, resumed.module.weight)
    assert torch.equal(whole.module.bias, resumed.module.bias)
    assert whole.carried == resumed.carried


def test_another_identity_is_refused_and_the_difference_named(tmp_path):
    make_loop(tmp_path / "c", stop=2)
    with pytest.raises(UsageError, match=r"a \(was 1, now 2\)"):
        make_loop(tmp_path / "c", identity={"a": 2})
    with pytest.raises(UsageError, match=r"b \(was None, now 3\)"):
        require_same({"a": 1, "b": 3}, {"a": 1}, "it")


def test_a_loss_that_is_no_number_stops_and_keeps_the_state(tmp_path):
    loop = make_loop(tmp_path / "c", stop=6)
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(
        EhdnasError,
        match="became nan in epoch 1, step 2; start again, without --resume",
    ):
        loop.require_finite(torch.tensor(float("nan")))
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_checkpoint_is_one_line(tmp_path, damage):
    path = tmp_path / "c"
    save_checkpoint(path, {"w": torch.ones(100)}, {"k": 1})
    path.write_bytes(path.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(DataError, match="not a whole checkpoint"):
        load_checkpoint(path)
    with pytest.raises(DataError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none")


def test_the_order_of_an_epoch_is_fixed_and_whole():
    order = epoch_order(100, 32, seed=1, stage="s", epoch=2)
    assert order.shape == (3, 32)
    assert len(order.unique()) == 96
    assert torch.equal(order, epoch_order(100, 32, seed=1, stage="s", epoch=2))
    assert not torch.equal(order, epoch_order(100, 32, seed=1, stage="s", epoch=3))
    assert epoch_order(5, 32, 1, "s", 0).shape == (1, 5)
    assert steps_per_epoch(100, 32) == 3
    assert 0 <= step_seed(1, "s", 2) < 2**63
