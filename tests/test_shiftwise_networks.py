"""Shift-wise blocks and networks: the parameter counts of the released models, and compression that changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from ccnn_irregular.shiftwise import (
    GroupSparsity,
    ShiftwiseBlock,
    ShiftwiseNet,
    compress,
    shiftwise_base,
    shiftwise_small,
    shiftwise_tiny,
)


@pytest.mark.parametrize(
    ("build", "count"), [(shiftwise_tiny, 31_790_260), (shiftwise_small, 57_312_892), (shiftwise_base, 100_250_380)]
)
def test_parameter_counts_of_the_released_models(build: type[ShiftwiseNet], count: int) -> None:
    with torch.device("meta"):
        network = build()
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def small_network(d: int = 2) -> ShiftwiseNet:
    torch.manual_seed(0)
    return ShiftwiseNet(2, 3, (1, 2), (8, 12), (13, 9), d=d, stem_strides=(1, 1), drop_path=0.2, layer_scale=0.5)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_compressed_network_gives_the_same_without_the_pruned_groups(d: int) -> None:
    network, images = small_network(d), torch.randn(4, 2, *(12,) * d)
    sparsity = GroupSparsity(network, kept=0.3)
    torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 0])).backward()
    sparsity.start()
    network.eval()
    small = compress(network)
    assert torch.allclose(small(images), network(images), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    assert torch.equal(copy.deepcopy(small)(images), small(images))
    program = torch.export.export(small, (images,))
    assert torch.allclose(program.module()(images), small(images), atol=1e-6)


def test_a_block_drops_whole_samples_in_training_only() -> None:
    torch.manual_seed(0)
    block = ShiftwiseBlock(4, 7, 3, drop_path=0.5, layer_scale=1.0)
    values = torch.randn(64, 4, 5, 5)
    changed = (block(values) - values).abs().flatten(1).amax(1) > 0
    assert 10 < int(changed.sum()) < 54
    block.eval()
    assert bool(((block(values) - values).abs().flatten(1).amax(1) > 0).all())


def test_the_network_learns() -> None:
    network = ShiftwiseNet(1, 2, (1,), (8,), (9,), stem_strides=(1, 1), layer_scale=0.1)
    images = torch.randn(32, 1, 10, 10)
    labels = (images[:, 0, :5].mean((1, 2)) > images[:, 0, 5:].mean((1, 2))).long()
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_stages_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="depths, channels, lengths must have one entry for each stage"):
        ShiftwiseNet(depths=(1, 2), channels=(8, 8), lengths=(7,))
    with pytest.raises(ValueError, match="drop_path must lie in"):
        ShiftwiseBlock(4, 7, 3, drop_path=1.0)
