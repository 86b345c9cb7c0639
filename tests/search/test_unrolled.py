"""The second-order gradient against the exact one, through an SGD step that autograd follows."""

import pytest
import torch

from ehdnas.search.unrolled import unrolled_slopes

RATE, MOMENTUM, DECAY = 0.3, 0.9, 0.1


def loss_of(gates, weights, inputs, targets):
    hidden = torch.tanh(inputs @ weights[0]) * gates
    return ((hidden @ weights[1]) - targets).square().mean()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, generator=generator).double(), torch.randn(6, 2, generator=generator).double()


@pytest.mark.parametrize("stepped", [False, True])
def test_it_is_the_exact_gradient_through_a_step_of_sgd(stepped):
    """With and without momentum from steps before; weights and optimizer stay as they were."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*size, generator=generator).double().requires_grad_() for size in ((3, 4), (4, 2))]
    gates = torch.rand(4, generator=generator).double().requires_grad_()
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    if stepped:
        loss_of(gates.detach(), weights, *batch(3)).backward()
        optimizer.step()
    training, validation = batch(1), batch(2)

    def gradients_of(inputs, targets):
        def gradients(towards):
            with torch.enable_grad():
                loss = loss_of(gates, weights, inputs, targets)
            return list(torch.autograd.grad(loss, towards)), loss.item()

        return gradients

    before = [weight.detach().clone() for weight in weights]
    found, seen = unrolled_slopes(gates, optimizer, gradients_of(*training), gradients_of(*validation))

    steps = torch.autograd.grad(loss_of(gates, weights, *training), weights, create_graph=True)
    momenta = [optimizer.state[w]["momentum_buffer"] if stepped else torch.zeros_like(w) for w in weights]
    ahead = [
        weight - RATE * (step + DECAY * weight + MOMENTUM * momentum)
        for weight, step, momentum in zip(weights, steps, momenta, strict=True)
    ]
    loss = loss_of(gates, ahead, *validation)
    (exact,) = torch.autograd.grad(loss, gates)
    (first_order,) = torch.autograd.grad(loss_of(gates, weights, *validation), gates)
    assert torch.allclose(found, exact, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(first_order, exact, rtol=0.05)
    assert seen == pytest.approx(loss.item())
    assert all(torch.equal(weight, kept) for weight, kept in zip(weights, before, strict=True))
