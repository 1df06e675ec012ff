"""The steps of Muon: their direction, their length, and that a stopped optimizer goes on with the same ones."""

from __future__ import annotations

import copy

import pytest
import torch

from ml.ddp.muon import Muon, polar


@pytest.mark.parametrize("shape", [(64, 784), (784, 64), (3, 64), (1, 5)])
def test_a_step_goes_about_equally_far_along_all_singular_directions(shape: tuple[int, int]) -> None:
    left, values, right = torch.linalg.svd(torch.randn(shape, generator=seeded(1)), full_matrices=False)
    values = torch.logspace(0, -1.5, len(values))
    turned = left.T @ polar(left * values @ right) @ right.T
    assert turned.diagonal().min() > 0.6
    assert turned.diagonal().max() < 1.3
    assert (turned - turned.diag().diag()).abs().max() < 1e-4


def test_what_has_no_gradient_does_not_move() -> None:
    assert not polar(torch.zeros(4, 9)).any()
    matrix = torch.randn(4, 9, generator=seeded(2))
    matrix[2] = 0  # as that of a unit that is never above zero
    assert polar(matrix).isfinite().all()
    assert not polar(matrix)[2].any()
    unused = torch.nn.Parameter(torch.ones(3, 3))
    Muon([unused], lr=1.0).step()
    assert torch.equal(unused, torch.ones(3, 3))


def test_the_rate_is_how_far_a_weight_moves() -> None:
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((64, 784), (784, 64), (784,))]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=seeded(3)) * 1e-6
    Muon(weights, lr=0.01).step()
    assert [weight.detach().square().mean().sqrt().item() for weight in weights] == pytest.approx([0.01] * 3, rel=0.25)
    assert all((weight * weight.grad).sum() < 0 for weight in weights)


def test_a_stopped_optimizer_goes_on_with_the_same_steps() -> None:
    model, other = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    inputs = torch.randn(7, 5, generator=seeded(4))

    def steps(trained: torch.nn.Linear, optimizer: Muon, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            trained(inputs).square().mean().backward()
            optimizer.step()

    optimizer = Muon(model.parameters(), lr=0.01)
    steps(model, optimizer, 3)
    resumed = Muon(other.parameters(), lr=9.0)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, 2)
    steps(other, resumed, 2)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def seeded(seed: int) -> torch.Generator:
    """Return the same numbers each time."""
    return torch.Generator().manual_seed(seed)
