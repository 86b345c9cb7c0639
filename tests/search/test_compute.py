"""Where it computes: what is asked for and not there, what moves, and what bfloat16 leaves alone."""

import pytest
import torch
from torch import nn

from ehdnas.core.errors import UsageError
from ehdnas.search.compute import CPU, Compute, find_compute
from ehdnas.search.spaces.base import find_space
from ehdnas.search.spaces.blocks import drop_path, gates_of

BF16 = Compute(torch.device("cpu"), "bfloat16")


def test_without_a_gpu_auto_is_the_cpu_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_compute() == CPU
    assert str(find_compute("cpu", "bfloat16")) == "cpu, bfloat16"


def test_with_a_gpu_auto_is_the_gpu_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert str(find_compute()) == "cuda, bfloat16"
    assert str(find_compute("cuda:0", "float32")) == "cuda:0, float32"
    assert find_compute("cpu").precision == "float32"


@pytest.mark.parametrize(("there", "asked", "found"), [(False, "cuda", 0), (True, "cuda:2", 1)])
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, there, asked, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UsageError, match=rf"--compute {asked}: torch .* finds {found} GPUs here; choose auto"
    ):
        find_compute(asked)


def test_a_gpu_is_looked_at_now_and_then_and_a_cpu_every_step():
    assert CPU.look_every == 1
    assert Compute(torch.device("cuda")).look_every > 1


def test_a_module_moves_with_its_weights_in_the_memory_format():
    meta = Compute(torch.device("meta"))
    module = meta.place(nn.Conv2d(4, 8, 3))
    assert module.weight.is_meta
    assert module.weight.is_contiguous(memory_format=torch.channels_last)
    assert meta.batch(torch.zeros(2, 4, 5, 5)).is_contiguous(memory_format=torch.channels_last)


def test_autocast_computes_in_bfloat16_and_leaves_weights_alone():
    layer = nn.Conv2d(3, 4, 1)
    with BF16.autocast():
        out = layer(torch.ones(1, 3, 2, 2))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    with CPU.autocast():
        assert layer(torch.ones(1, 3, 2, 2)).dtype == torch.float32


def test_gates_are_picked_beside_the_images_and_gradients_reach_them():
    gates = torch.eye(3).requires_grad_()
    assert gates_of(gates.detach(), (0, 1, 2), torch.zeros(1)) is None
    picked = gates_of(gates, (0, 2, 1), torch.zeros(1))
    (picked[0] + 5 * picked[1]).backward()
    expected = torch.zeros(3, 3)
    expected[0, 0], expected[1, 2] = 1.0, 5.0
    assert torch.equal(gates.grad, expected)


def test_drop_path_draws_where_its_input_is():
    assert drop_path(torch.empty(4, 2, 1, 1, device="meta"), 0.5).is_meta
    torch.manual_seed(0)
    kept = drop_path(torch.ones(1000, 1, 1, 1, dtype=torch.bfloat16), 0.25)
    assert kept.dtype == torch.bfloat16
    assert float(kept.float().mean()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_a_supernet_runs_on_another_device_from_gates_on_the_cpu(space):
    from ehdnas.search.spaces.base import NetworkShape

    space = find_space(space)
    supernet = space.supernet(NetworkShape(2, 3, (3, 8, 8), 4)).to("meta")
    gates = space.encode(space.reference).requires_grad_()
    assert supernet(torch.empty(2, 3, 8, 8, device="meta"), gates).shape == (2, 4)
