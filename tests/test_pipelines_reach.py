"""Kernels that do not suit the data are told of, with option, value, what the data have and what to type."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipelines_stand_in import STAYS

from ccnn_irregular import KernelSpec
from ccnn_irregular.adapters.geometric import CLOUD_KERNEL
from ccnn_irregular.datasets.decathlon import Volume
from ccnn_irregular.datasets.physionet2012 import SERIES, STATICS
from ccnn_irregular.domains import Grid, Points
from ccnn_irregular.networks_unet import UNET_KERNEL
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.network import ContinuousClassifier, FilterBank, GridOptions
from ccnn_irregular.pipelines.tasks.cloud_classification.network import CloudClassifier
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import LabelBatch
from ccnn_irregular.pipelines.tasks.cloud_segmentation.network import CloudSegmenter
from ccnn_irregular.pipelines.tasks.downscale.data import DownscalingBatch
from ccnn_irregular.pipelines.tasks.downscale.network import DownscalingNetwork
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch
from ccnn_irregular.pipelines.tasks.segmentation.network import ContinuousSegmenter
from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
from ccnn_irregular.pipelines.tasks.series.samples import SeriesBatch
from ccnn_irregular.pipelines.train.reach import Sampling, sampling_of, warn_of_latent, warn_of_reach


def told(action: Callable[[], Any]) -> list[str]:
    """The warnings of an action."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    assert all(one.category is UserWarning for one in caught)
    return [str(one.message) for one in caught]


# --------------------------------------------------------------------------------------------------- what is measured


@given(gap=st.floats(1e-6, 1e6), count=st.integers(2, 60), samples=st.integers(1, 3), offset=st.floats(-1e3, 1e3))
def test_even_series_have_their_step_and_length(gap: float, count: int, samples: int, offset: float) -> None:
    times = gap * (torch.arange(count, dtype=torch.float64) + offset)
    points = Points(times.repeat(samples)[:, None], splits=torch.arange(samples + 1) * count)
    found = sampling_of(points)
    assert found.gaps == pytest.approx((gap,), rel=1e-6)
    assert found.spans == pytest.approx((gap * (count - 1),), rel=1e-6)


def test_samplings_of_scattered_points_grids_and_single_points() -> None:
    places = np.stack(np.meshgrid(np.arange(9.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
    assert sampling_of(Points(torch.from_numpy(2 * places))) == Sampling((2.0, 2.0), (16.0, 16.0))
    assert sampling_of(Grid((9, 5), (2.0, 3.0)), "g") == Sampling((2.0, 3.0), (16.0, 12.0), "g")
    alone = sampling_of(Points(torch.zeros(2, 1, dtype=torch.float64), splits=torch.tensor([0, 1, 2])))
    assert alone == Sampling((0.0,), (0.0,))
    assert told(lambda: warn_of_reach("width", [1e9], [1e9], alone)) == []


@pytest.mark.parametrize(
    ("reach", "word"),
    [
        (0.99, "less than the typical gap"),
        (1.01, None),
        (999.0, None),
        (1001.0, "over 100 times the span"),
        (np.inf, None),
    ],
)
def test_the_bounds_are_one_gap_and_a_hundred_spans(reach: float, word: str | None) -> None:
    found = told(lambda: warn_of_reach("width", [1.0, 2.0], [5.0, reach], Sampling((1.0, 1.0), (10.0, 10.0), "it")))
    assert len(found) == (word is not None)
    if word is not None:
        assert re.match(rf"width \[1, 2\] makes kernels reach {reach:g} along axis 1, {word} of it", found[0])
        assert '(gap 1, span 10); for kernels that suit, type --model.network.init_args.width "[1, ' in found[0]


@given(value=st.floats(1e-4, 1e8), gap=st.floats(1e-3, 1e3), count=st.integers(1, 1000))
def test_what_it_says_to_type_suits(value: float, gap: float, count: int) -> None:
    sampling = Sampling((gap,), (gap * count,))
    for message in told(lambda: warn_of_reach("width", value, 3 * value, sampling)):
        typed = float(message.rpartition('width "')[2].rstrip('"'))
        assert told(lambda typed=typed: warn_of_reach("width", typed, 3 * typed, sampling)) == []


def test_a_latent_grid_elsewhere_is_told_of() -> None:
    times = torch.arange(49, dtype=torch.float64)[:, None] * 3600
    found = told(lambda: warn_of_latent(Grid((30,), (1.0,)), times, torch.tensor([6.0])))
    assert len(found) == 1
    assert "nodes over 0 to 29, and 98% of the data, over 0 to 172800, lie beyond" in found[0]
    steps = float(re.search(r'latent.steps "\[(.*?)\]"', found[0])[1])  # type: ignore[index]
    assert told(lambda: warn_of_latent(Grid((30,), (steps,)), times, torch.tensor([6.0]))) == []


# ----------------------------------------------------------------------------------------------------------- each task


def hourly(kernel: KernelSpec, **options: Any) -> list[str]:
    """A classifier on series of 48 hours, one sample an hour, in seconds, as files with time stamps have them."""
    times = torch.arange(49, dtype=torch.float64).repeat(2)[:, None] * 3600
    points = Points(times, splits=torch.tensor([0, 49, 98]))
    batch = SampleBatch(torch.randn(98, 1), points, torch.tensor([0, 1]))
    kernel = replace(kernel, omega_0=1.0, generator="siren", hidden=4)
    network = ContinuousClassifier(1, 2, 4, 1, kernel=kernel, **options)
    return told(lambda: network.prepare(batch, (batch.values, None)))


@pytest.mark.parametrize(
    ("kernel", "latent", "named"),
    [
        (KernelSpec(extent=[15.0]), None, ["kernel.extent [15]"]),
        (KernelSpec(extent=[15.0], width=[2.0]), None, ["kernel.width [2]", "kernel.extent [15]"]),
        (KernelSpec(extent=[86400.0], width=[2.0]), None, ["kernel.width [2]"]),
        (KernelSpec(extent=[15.0], width=[20000.0]), None, ["kernel.extent [15]"]),
        (KernelSpec(extent=[15.0], mask="none"), None, ["kernel.extent [15]"]),
        (KernelSpec(extent=[86400.0], width=[2.0], mask="none"), None, []),  # reaches everywhere
        (KernelSpec(extent=[1e9], width=[1e9]), None, ["kernel.width [1000000000]", "kernel.extent [1000000000]"]),
        (KernelSpec(extent=[86400.0]), None, []),
        (KernelSpec(extent=[86400.0], width=[20000.0]), GridOptions([49], [3600.0]), []),
        (
            KernelSpec(extent=[86400.0], width=[20000.0]),
            GridOptions([30], [1.0]),
            ["kernel.width", "kernel.extent", "latent"],
        ),
        (KernelSpec(extent=[86400.0], width=[20000.0]), GridOptions([3], [86400.0]), ["kernel.width"]),
    ],
)
def test_series_of_48_hours(kernel: KernelSpec, latent: GridOptions | None, named: list[str]) -> None:
    found = hourly(kernel, latent=latent)
    assert len(found) == len(named)
    assert all(message.startswith(start) for message, start in zip(found, named, strict=True))


def test_a_filter_bank_is_told_of_by_its_own_names() -> None:
    bank = FilterBank(GridOptions([98], [1800.0]), 2, KernelSpec([20.0], [1.0], 1.0, "siren", hidden=4))
    kernel = KernelSpec(extent=[86400.0], width=[20000.0])
    found = hourly(kernel, latent=GridOptions([49], [3600.0]), filter_bank=bank)
    assert [message.partition(" ")[0] for message in found] == ["filter_bank.kernel.width", "filter_bank.kernel.extent"]


def test_stays() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(96, len(SERIES))).astype(np.float32)
    batch = SeriesBatch(
        times=torch.arange(48.0, dtype=torch.float64).repeat(2),
        values=torch.from_numpy(values),
        splits=torch.tensor([0, 48, 96]),
        statics=torch.ones(2, len(STATICS)),
        targets=torch.zeros(2),
        judged=torch.full((2,), torch.inf),
        ids=torch.arange(2),
    )

    def prepared(width: float = 6.0, extent: float = 24.0) -> list[str]:
        network = SeriesNetwork(**STAYS | {"width": width, "extent": extent}, hidden_channels=4, blocks=1)
        return told(lambda: network.prepare(batch, (values.T, batch.statics.numpy(), np.zeros(2))))

    assert prepared() == []
    assert prepared(width=0.1)[0].startswith(
        "kernel.width 0.1 makes kernels reach 0.3035 along axis 0, less than the typical"
    )
    assert prepared(extent=1e5)[0].startswith(
        "kernel.extent 100000 makes kernels reach 100000 along axis 0, over 100 times"
    )


def test_clouds() -> None:
    places = torch.rand(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = Points(places, torch.ones(300, dtype=torch.float64) / 300)

    def classified(spacing: float) -> list[str]:
        network = CloudClassifier(1, 2, None, spacing, kernel=replace(CLOUD_KERNEL, hidden=4), channels=[4])
        batch = SampleBatch(torch.ones(300, 1), points, torch.zeros(1, dtype=torch.int64))
        return told(lambda: network.prepare(batch))

    def segmented(spacing: float) -> list[str]:
        network = CloudSegmenter(1, 2, spacing, kernel=replace(CLOUD_KERNEL, width=0.7, hidden=4), channels=[4, 4])
        batch = LabelBatch(torch.randn(300, 1), points, torch.zeros(300, dtype=torch.int64))
        return told(lambda: network.prepare(batch, (batch.values, points.weights)))

    for prepared in (classified, segmented):
        assert prepared(0.2) == []
        assert prepared(1e-3)[0].startswith("spacing 0.001 makes kernels reach 0.0")
        assert "over 100 times the span" in prepared(100.0)[0]


def test_positions_that_float32_cannot_tell_apart_are_refused() -> None:
    places = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places += torch.tensor([5e5, 5.4e6, 0.0])
    batch = SampleBatch(torch.ones(50, 1), Points(places), torch.zeros(1, dtype=torch.int64))
    network = CloudClassifier(1, 2, None, 0.4, kernel=replace(CLOUD_KERNEL, hidden=4), channels=[4])
    with pytest.raises(ValueError, match=r"positions must be known to .*: keep float64, or subtract the mean in it"):
        network(batch)


def test_volumes_to_label() -> None:
    def prepared(steps: list[float], voxels: tuple[float, float, float]) -> list[str]:
        network = ContinuousSegmenter(
            1,
            2,
            kernel=replace(UNET_KERNEL, hidden=4),
            channels=[2, 2],
            steps=steps,
            blocks=[0, 0],
        )
        volume = Volume("one", torch.randn(1, 8, 8, 8), Grid((8, 8, 8), voxels))
        return told(lambda: network.prepare(VolumeBatch.of(volume)))

    assert prepared([1.0, 1.0, 1.0], (1.0, 1.0, 2.0)) == []
    found = prepared([1.0, 1.0, 1.0], (1.0, 1.0, 5.0))
    assert found[0].startswith(
        "steps [1, 1, 1] makes kernels reach 3.035 along axis 2, less than the typical gap of the v"
    )
    assert '--model.network.init_args.steps "[1, 1, 6.5' in found[0]


def test_fields() -> None:
    places = 10 * torch.rand(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.randn(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen, asked = slice(0, 80), slice(80, 100)
    noise = torch.ones(80, 1, dtype=torch.float64)

    def prepared(latent: Grid | None = None, correlation: Sequence[float] = (4.0,), **lengths: Any) -> list[str]:
        kernel = KernelSpec(omega_0=1.0, generator="siren", hidden=4, **lengths) if lengths else None
        network = FieldNetwork(
            1, [FieldAxis("y"), FieldAxis("x")], neighbours=8, correlation=correlation, latent=latent,
            hidden_channels=2, blocks=1, kernel=kernel,
        )  # fmt: skip
        rows = torch.arange(80, 100)
        batch = FieldBatch(
            Points(places[seen]), values[seen], Points(places[asked]), values[asked], rows, noise, noise[:, 0]
        )
        return told(lambda: network.prepare(batch, (values, None)))

    nodes = Grid((11, 11), (1.0, 1.0))
    sound = {"extent": [4.0, 4.0], "width": [1.0, 1.0]}
    assert prepared(correlation=[0.01, 2.0, 1e4]) == []  # one of them suits
    assert prepared(correlation=[1e-3, 1e-2])[0].startswith("correlation [0.001, 0.01] makes kernels reach 0.01 along")
    assert "over 100 times the span" in prepared(correlation=[1e4, 1e5])[0]
    assert prepared(nodes, correlation=[2.0], **sound) == []
    assert prepared(nodes, correlation=[2.0], **sound | {"width": [1.0, 0.1]})[0].startswith(
        "kernel.width [1, 0.1] makes"
    )
    assert prepared(nodes, correlation=[2.0], **sound | {"extent": [1e4, 4.0]})[0].startswith(
        "kernel.extent [10000, 4] makes"
    )
    assert prepared(Grid((5, 5), (0.2, 0.2)), correlation=[2.0], **sound)[0].startswith(
        "latent has nodes over 0 to 0.8"
    )


def test_fields_to_be_made_finer() -> None:
    fine = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    source, query = Grid((8, 8), (2.0, 2.0)), Grid((16, 16), (1.0, 1.0))

    def prepared(extent: list[float], width: list[float]) -> list[str]:
        network = DownscalingNetwork(1, 2, 1, kernel=KernelSpec(extent, width, omega_0=2.0, hidden=4))
        batch = DownscalingBatch(fine[:, :, ::2, ::2], fine, source, query, torch.ones(16, 16), torch.ones(2, 1, 16, 1))
        return told(lambda: network.prepare(batch))

    assert prepared(extent=[8.0, 8.0], width=[3.0, 3.0]) == []
    assert prepared(extent=[8.0, 8.0], width=[3.0, 0.5])[0].startswith(
        "kernel.width [3, 0.5] makes kernels reach 1.517 along"
    )
    assert prepared(extent=[8.0, 1e4], width=[3.0, 3.0])[0].startswith(
        "kernel.extent [8, 10000] makes kernels reach 10000"
    )
