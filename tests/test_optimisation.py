"""Groups of parameters, schedule and penalty of the published recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccnn_irregular import CCNN, Grid, KernelSpec
from ccnn_irregular.optimisation import norm_penalty, parameter_groups, warmup_cosine


def network() -> CCNN:
    torch.manual_seed(0)
    return CCNN(1, 4, 2, kernel=KernelSpec(extent=[1.0], width=[0.3], omega_0=3.0, hidden=4), blocks=1)


def names(module: torch.nn.Module, group: dict) -> set[str]:
    by_id = {id(parameter): name for name, parameter in module.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_groups() -> None:
    model = network()
    model.output.bias.requires_grad_(False)
    decayed, plain, masks = parameter_groups(model, learning_rate=0.01, weight_decay=0.1, mask_rate=0.5)
    assert (decayed["weight_decay"], plain["weight_decay"], masks["weight_decay"]) == (0.1, 0, 0)
    assert (decayed["lr"], plain["lr"], masks["lr"]) == (0.01, 0.01, 0.005)
    assert names(model, decayed) == {
        "stem.pointwise.weight",
        "blocks.0.conv.pointwise.weight",
        "blocks.0.linear.weight",
        "output.weight",
    }
    assert names(model, masks) == {f"{one}.depthwise.kernel.mask.log_scale" for one in ("stem", "blocks.0.conv")}
    every = names(model, decayed) | names(model, plain) | names(model, masks)
    assert every == {name for name, _ in model.named_parameters()} - {"output.bias"}
    with_generators, rest = parameter_groups(model, learning_rate=0.01, weight_decay=0.1, decay_generators=True)
    assert "stem.depthwise.kernel.generator.linears.0.weight" in names(model, with_generators)
    assert names(model, masks) <= names(model, rest)
    torch.optim.AdamW(parameter_groups(model, learning_rate=0.01))


def test_schedule() -> None:
    rates = [warmup_cosine(step, steps=100, warmup=10, final_share=0.1) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert warmup_cosine(50, steps=50, warmup=0) == pytest.approx(0)


def test_norm_penalty_is_the_sum_of_norms() -> None:
    model, grid = network(), Grid((40,), (0.1,))
    offsets = torch.arange(-39, 40, dtype=torch.float64)[:, None] * 0.1
    expected = sum(float(p.detach().norm()) for name, p in model.named_parameters() if "generator" not in name)
    expected += sum(float((kernel(offsets.float()).detach() * 0.1).norm()) for kernel in model.kernels().values())
    penalty = norm_penalty(model, grid)
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    assert bool(model.stem.kernel.generator.output.weight.grad.any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": 1.0, "weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"learning_rate": 1.0, "mask_rate": 0.0}, "mask_rate must be positive"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(network(), **options)
