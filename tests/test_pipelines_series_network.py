"""The network of series on stays in intensive care: what it reads, must not depend on, and can learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pipelines_stand_in import STAYS
from torch import Tensor

from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import SeriesBatch
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.series_network import HatBasis, StandardScore

CHANNELS = len(SERIES)


def batch_of(lengths: list[int], seed: int) -> SeriesBatch:
    """Random stays at whole minutes; about a fifth of the cells is measured."""
    generator = torch.Generator().manual_seed(seed)
    times = [torch.randperm(2880, generator=generator)[:n].sort().values.double() / 60 for n in lengths]
    values = torch.randn(sum(lengths), CHANNELS, generator=generator)
    values[torch.rand(values.shape, generator=generator) > 0.2] = torch.nan
    statics = torch.randn(len(lengths), len(STATICS), generator=generator)
    statics[:, STATICS.index("ICUType")] = torch.randint(1, 5, (len(lengths),), generator=generator).float()
    return SeriesBatch(
        times=torch.cat(times),
        values=values,
        splits=torch.tensor([0, *lengths]).cumsum(0),
        statics=statics,
        targets=torch.arange(len(lengths)).double() % 2,
        judged=torch.full((len(lengths),), torch.inf, dtype=torch.float64),
        ids=torch.arange(len(lengths)),
    )


def take(batch: SeriesBatch, order: list[int]) -> SeriesBatch:
    """The samples of a batch in another order."""
    parts = [slice(*batch.splits[one : one + 2].tolist()) for one in order]
    rows = {name: torch.cat([getattr(batch, name)[part] for part in parts]) for name in ("times", "values")}
    own = {name: getattr(batch, name)[order] for name in ("statics", "targets", "judged", "ids")}
    lengths = batch.splits.diff()[order]
    return SeriesBatch(splits=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]), **rows, **own)


def network(**options: float) -> SeriesNetwork:
    torch.manual_seed(0)
    return SeriesNetwork(**STAYS | {"hidden_channels": 16, "step": 2.0, "nodes": 24, "thinning": 0.8} | options)


def logits(net: SeriesNetwork, batch: SeriesBatch) -> Tensor:
    with torch.no_grad():
        return net.eval()(batch)[:, 0]


def test_stays_do_not_see_each_other() -> None:
    net, batch = network(), batch_of([30, 0, 5, 60, 1], seed=0)
    together = logits(net, batch)
    order = [3, 1, 0, 4, 2]
    torch.testing.assert_close(logits(net, take(batch, order)), together[order], rtol=1e-3, atol=1e-4)
    for stay in range(5):
        alone = logits(net, take(batch, [stay]))
        torch.testing.assert_close(alone, together[stay : stay + 1], rtol=1e-3, atol=1e-4)
    assert together.unique().numel() == 5


def test_a_row_without_any_value_changes_nothing() -> None:
    net, batch = network(), batch_of([20, 20], seed=1)
    blank = batch._replace(
        times=torch.cat([batch.times[:20], torch.tensor([47.99], dtype=torch.float64), batch.times[20:]]),
        values=torch.cat([batch.values[:20], torch.full((1, CHANNELS), torch.nan), batch.values[20:]]),
        splits=torch.tensor([0, 21, 41]),
    )
    assert float(batch.times[19]) < 47.99
    torch.testing.assert_close(logits(net, blank), logits(net, batch), rtol=1e-3, atol=1e-4)


def test_the_answer_depends_on_values_times_and_statics() -> None:
    net, batch = network(), batch_of([40], seed=2)
    before = logits(net, batch)
    measured = torch.nonzero(~torch.isnan(batch.values))
    changed = batch.values.clone()
    changed[measured[0, 0], measured[0, 1]] += 1.0
    others = {
        "values": batch._replace(values=changed),
        "times": batch._replace(times=batch.times * 0.5),
        "statics": batch._replace(statics=batch.statics + 1.0),
    }
    for name, other in others.items():
        assert not torch.allclose(logits(net, other), before, rtol=0, atol=1e-6), name


def test_thinning_only_in_training() -> None:
    net, batch = network(dropout=0.0), batch_of([40, 50], seed=3)
    assert torch.equal(logits(net, batch), logits(net, batch))
    net.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    first, again, later = (batch._replace(draws=Draws(0, epoch, batch.ids)) for epoch in (0, 0, 1))
    with torch.no_grad():
        assert torch.equal(net(first), net(again))
        assert not torch.allclose(net(first), net(later), rtol=0, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"draws of the batch must be given in training, or thinning .* be 0, got None"
    ):
        net(batch)


def test_it_learns_what_one_series_tells() -> None:
    net, batch = network(thinning=0.2, dropout=0.0), batch_of([12] * 24, seed=4)
    sick = batch.targets.repeat_interleave(batch.splits.diff())
    batch.values[:, 3] += 3 * sick
    net.basis.fit(batch.values.numpy().T)
    optimiser = torch.optim.Adam(net.train().parameters(), lr=3e-3)
    for epoch in range(25):
        optimiser.zero_grad()
        drawn = batch._replace(draws=Draws(0, epoch, batch.ids))
        torch.nn.functional.binary_cross_entropy_with_logits(net(drawn)[0, :, 0], batch.targets.float()).backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in net.parameters() if parameter.requires_grad)
    risk = logits(net, batch)
    assert float(risk[batch.targets == 1].min()) > float(risk[batch.targets == 0].max())


def test_hats_sum_to_one_and_interpolate() -> None:
    basis = HatBasis(2, 4)
    values = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, np.nan], [10.0, 5.0]] * 50, dtype=np.float32)
    basis.fit(values.T)
    assert bool((basis.knots.diff(dim=1) > 0).all())  # the second series is constant
    inputs = torch.tensor([[0.3, 5.0], [-100.0, 4.0], [1e6, 6.0]])
    hats = basis(inputs)
    torch.testing.assert_close(hats.sum(-1), torch.ones(3, 2))
    assert bool((hats >= 0).all())
    torch.testing.assert_close(hats[1, 0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(hats[2, 0], torch.tensor([0.0, 0.0, 0.0, 1.0]))
    inside = inputs.clamp(basis.knots[:, 0], basis.knots[:, -1])
    torch.testing.assert_close((hats * basis.knots).sum(-1), inside, rtol=1e-4, atol=1e-4)


def test_statics_missing_is_not_the_mean() -> None:
    score = StandardScore(len(STATICS), {STATICS.index("ICUType"): 4})
    statics = np.array([[60, 0, 170, 1, 80], [70, 1, np.nan, 2, 90], [80, 1, 180, 4, 100]], dtype=np.float32)
    score.fit(statics)
    codes = score(torch.from_numpy(statics))
    assert codes.shape == (3, 14)
    np.testing.assert_allclose(codes[:, 0], (statics[:, 0] - 70) / statics[:, 0].std(), rtol=1e-5)
    assert codes[1, 2] == 0
    assert codes[:, 5:10].tolist() == [[0] * 5, [0, 0, 1, 0, 0], [0] * 5]
    assert codes[:, 10:].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_members_are_trained_apart_and_answer_together() -> None:
    net, batch = network(members=3, dropout=0.0), batch_of([12] * 8, seed=7)
    rows = net.train()(batch._replace(draws=Draws(0, 0, batch.ids)))
    assert rows.shape == (3, 8, 1)
    weights = [member.head[2].weight for member in net.members]
    assert [float(gradient.abs().sum()) > 0 for gradient in torch.autograd.grad(rows[1].sum(), weights)] == [
        False,
        True,
        False,
    ]
    net.eval()
    with torch.no_grad():
        alone = [member(*net.basis.read(batch), net.statics(batch.statics))[:, 0] for member in net.members]
    torch.testing.assert_close(logits(net, batch), torch.stack(alone).mean(0))
    assert not torch.allclose(alone[0], alone[1])


def test_normalisation_travels_in_the_state() -> None:
    net, other = network(), network()
    net.basis.fit(batch_of([200], seed=5).values.numpy().T * 7)
    other.load_state_dict(net.state_dict())
    batch = batch_of([30], seed=6)
    assert torch.equal(logits(other, batch), logits(net, batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members must be at least 1, got 0"),
        ({"knots": 1}, "knots must be at least 2, got 1"),
        ({"thinning": 1.0}, r"thinning must be in \[0, 1\), got 1.0"),
        ({"step": 0.0}, "step must be positive and finite, got 0.0"),
        ({"nodes": 0}, "size must be at least 1, got 0"),
    ],
)
def test_refusals(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeriesNetwork(**STAYS | options)
