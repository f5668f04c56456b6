"""Records of stations: what persists is taken off, blunders weigh less, estimates get the station's own reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.datasets.simulated_fields import smooth_fields
from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.tasks.field.batch import FieldBatch
from ccnn_irregular.pipelines.tasks.field.data import FieldDataModule
from ccnn_irregular.pipelines.tasks.field.kriging import FieldAxis, LocalKriging, Metric
from ccnn_irregular.pipelines.tasks.field.network import FieldNetwork
from ccnn_irregular.pipelines.tasks.field.records import _unexplained, bring_in_line, in_own_reference, referred_to

GLOBE = (FieldAxis("latitude", "latitude"), FieldAxis("longitude", "longitude"))
STATIONS, MONTHS = 25, 240


def stations(seed: int = 0) -> FieldSet:
    """A wave that changes from month to month, seen by stations with a little noise."""
    rng = np.random.default_rng(seed)
    places = np.stack([30 + 8 * rng.random(STATIONS), -100 + 8 * rng.random(STATIONS)], 1)
    phase = rng.uniform(0, 2 * np.pi, (MONTHS, 1))
    values = 2 * np.cos(places.sum(1) / 6 + phase) + 0.1 * rng.normal(size=(MONTHS, STATIONS))
    return FieldSet(
        coordinates=torch.from_numpy(np.tile(places, (MONTHS, 1))),
        values=torch.from_numpy(values.reshape(-1, 1)),
        splits=torch.arange(MONTHS + 1) * STATIONS,
        units=torch.arange(STATIONS).repeat(MONTHS),
        names=tuple(map(str, range(MONTHS))),
        channels=("anomaly",),
        channel_units=("K",),
        axes=("latitude", "longitude"),
        restored=lambda filled: xr.Dataset({"anomaly": ("place", filled[:, 0])}),
        times=torch.arange(MONTHS) / 12.0,
        reference=(torch.arange(STATIONS) * 12 + torch.arange(MONTHS)[:, None] % 12).flatten(),
    )


def test_what_a_station_deviates_for_years_is_taken_off() -> None:
    fields = stations()
    table = fields.values.reshape(MONTHS, STATIONS).clone()
    table[120:, 3] += 2.0
    moved = replace(fields, values=table.reshape(-1, 1))
    corrected = bring_in_line(moved, moved.known).values.reshape(MONTHS, STATIONS)
    change = (table - corrected)[:, 3]
    assert float(change[160:].min()) > 1.2
    assert float(change[160:].max()) < 2.1
    assert float(change[:80].abs().max()) < 0.4
    error = (corrected - fields.values.reshape(MONTHS, STATIONS))[160:, 3]
    assert float(error.square().mean().sqrt()) < 0.6
    others = [station for station in range(STATIONS) if station != 3]
    assert float((table - corrected)[:, others].abs().max()) < 0.8


def test_a_blunder_gets_noise_and_keeps_its_value() -> None:
    fields = stations()
    table = fields.values.reshape(MONTHS, STATIONS).clone()
    table[50, 7] += 10.0
    treated = bring_in_line(replace(fields, values=table.reshape(-1, 1)), fields.known)
    noise = treated.noise.reshape(MONTHS, STATIONS)
    assert int(noise.argmax()) == 50 * STATIONS + 7
    assert float(noise[50, 7]) > 50
    assert float(noise.median()) == 1.0
    assert abs(float(treated.values.reshape(MONTHS, STATIONS)[50, 7] - table[50, 7])) < 0.5


def test_what_is_not_usable_tells_nothing_and_stays() -> None:
    fields = stations()
    usable = fields.units != 5
    first = bring_in_line(fields, usable)
    changed = torch.where(usable[:, None], fields.values, 100 * torch.ones_like(fields.values))
    second = bring_in_line(replace(fields, values=changed), usable)
    assert torch.equal(first.values[usable], second.values[usable])
    assert torch.equal(second.values[~usable], changed[~usable])
    assert not torch.equal(first.values[usable], fields.values[usable])


def test_what_is_asked_for_is_brought_in_line_with_what_is_shown_and_tells_nothing() -> None:
    fields = stations()
    table = fields.values.reshape(MONTHS, STATIONS).clone()
    table[:, 5] += 3.0
    fields = replace(fields, values=table.reshape(-1, 1))
    shown, asked = fields.units != 5, fields.units == 5
    alone, both = bring_in_line(fields, shown), bring_in_line(fields, shown, asked)
    assert torch.equal(alone.values[shown], both.values[shown])
    assert torch.equal(alone.noise, both.noise)
    taken = (fields.values - both.values)[asked]
    assert 2.0 < float(taken.min()) < float(taken.max()) < 3.4


def test_estimates_are_those_of_kriging_station_by_station() -> None:
    """The residuals, one at a time: each arrangement of stations is solved once, here each by itself."""
    fields = stations()
    rows = torch.nonzero(torch.rand(len(fields.units), generator=torch.Generator().manual_seed(1)) < 0.7).flatten()
    residual, _ = _unexplained(fields, rows, rows)
    metric = Metric(GLOBE)
    kriging = LocalKriging(1, 3, width=(2.2, 3.6, 13.5), nugget=0.06, neighbours=30)
    for place in (0, 700, len(rows) - 1):
        row = int(rows[place])
        others = [one for one in rows.tolist() if one // STATIONS == row // STATIONS and one != row]
        source, query = (Points(fields.coordinates[chosen]) for chosen in (others, [row]))
        near, present = metric.nearest(source, query, len(others))
        with torch.no_grad():
            weights, _ = kriging(metric.embedded(source.coordinates), metric.embedded(query.coordinates), near, present)
        estimate = float((weights[0, :, 0] * fields.values[others][near[0], 0]).sum())
        assert float(residual[place]) == pytest.approx(float(fields.values[row]) - estimate, abs=1e-9)


def module(fields: FieldSet, monkeypatch: pytest.MonkeyPatch, **options: object) -> FieldDataModule:
    monkeypatch.setattr(FieldDataModule, "_read", lambda _: fields)
    shares = {"watched_units": 0.1, "hide": (0.0, 0.0), "hide_units": 0.25, "records": True, "draws": 6}
    data = FieldDataModule("ghcnm", "unread", batch_size=3, **shares | options)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def same(first: FieldBatch, second: FieldBatch, *, targets: bool) -> bool:
    """Whether what is seen, and the targets, are equal to the last bit."""
    names = ("values", "noise", "rows", *(["targets"] if targets else []))
    equal = [torch.equal(getattr(first, name), getattr(second, name)) for name in names]
    return all(equal) and torch.equal(first.observed.coordinates, second.observed.coordinates)


def spoiled(fields: FieldSet, chosen: torch.Tensor) -> FieldSet:
    """Values of the chosen places replaced by numbers near 1e6, another one in each place."""
    wrong = 1e6 * (1 + torch.rand(fields.values.shape, generator=torch.Generator().manual_seed(2)).double())
    return replace(fields, values=torch.where(chosen[:, None] & fields.known[:, None], wrong, fields.values))


def test_training_sees_nothing_of_the_stations_that_it_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = stations()
    data = module(fields, monkeypatch, held_units=0.2)
    groups = int(data.hiding.group.max()) + 1
    assert groups == 4
    for group in range(groups):
        other = module(spoiled(fields, data.hiding.group == group), monkeypatch, held_units=0.2)
        tried = 0
        for number in range(20):
            first, second = (one._drawn(torch.tensor([number]), 0) for one in (data, other))
            if set(data.hiding.group[first.rows].tolist()) != {group}:
                continue
            tried += 1
            assert same(first, second, targets=False)
            assert float((first.targets - second.targets).abs().min()) > 1.0
            # Something was brought in line at all.
            assert not torch.isin(first.values, data.samples.values).any()
        assert tried > 1
    sizes = [len(data.samples.units[data.hiding.group == group].unique()) for group in range(groups)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"held_units": 0.2},
        {"held": 0.02},
        {"held": 0.2, "held_units": 0.2, "records": False, "hide": (0.1, 0.3)},
        {"test_fields": [7, 100, 239], "watched_units": 0.2},
        {"test_fields": [0], "records": False, "hide": (0.1, 0.3)},
    ],
    ids=str,
)
def test_what_is_kept_for_the_test_changes_nothing_in_training(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = stations()
    data = module(fields, monkeypatch, **options)
    kept = data.parts.part == 2
    assert 0 < int(kept.sum()) < len(kept) / 2
    other = module(spoiled(fields, kept), monkeypatch, **options)
    assert torch.equal(data.training_values()[0], other.training_values()[0])
    for part, variant in (("train", None), ("validation", None), ("validation", "whole")):
        pairs = zip(data.loader(part, variant), other.loader(part, variant), strict=True)  # type: ignore[arg-type]
        assert all(same(*pair, targets=True) for pair in pairs)
    networks = []
    for one in (data, other):
        network = FieldNetwork(1, GLOBE, neighbours=8, correlation=(3.0,), nugget=0.05)
        network.prepare(one.typical_batch(), one.training_values())
        networks.append(network.state_dict())
    assert all(torch.equal(networks[0][name].nan_to_num(), networks[1][name].nan_to_num()) for name in networks[0])
    if "test_fields" not in options:  # of those a part is shown
        tested = list(zip(data.loader("test"), other.loader("test"), strict=True))
        assert all(same(*pair, targets=False) for pair in tested)
        assert not any(torch.equal(first.targets, second.targets) for first, second in tested)


def test_a_part_may_be_had_whole_and_as_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(stations(), monkeypatch, held_units=0.2, watched_units=0.2, queries=2, watched_fields=5)

    def rows(batches: list[FieldBatch]) -> set[int]:
        return {row for batch in batches for row in batch.rows.tolist()}

    some, whole, as_read = (list(data.loader("validation", variant)) for variant in (None, "whole", "as read"))
    assert rows(whole) == rows(as_read) == set(torch.nonzero(data.parts.known("validation")).flatten().tolist())
    assert rows(some) < rows(whole)
    assert sum(map(len, some)) == 5
    for first, second in zip(whole, as_read, strict=True):
        assert torch.equal(first.observed.coordinates, second.observed.coordinates)
        assert not torch.isin(first.values, data.samples.values).any()
        assert torch.isin(second.values, data.samples.values).all()
        assert torch.equal(first.targets, data.samples.values[first.rows])
    with pytest.raises(ValueError, match="variant must be left out for the training part, got 'whole'"):
        data.loader("train", "whole")


def test_differences_are_from_the_mean_of_the_training_part_or_of_the_only_part_there_is() -> None:
    fields = stations()
    part = torch.where(fields.units < 5, 2, torch.where(torch.arange(len(fields.units)) % 7 == 0, 1, 0))
    referred = referred_to(fields, part)
    table, months = fields.values.reshape(MONTHS, STATIONS).numpy(), np.arange(MONTHS) % 12
    parts = part.reshape(MONTHS, STATIONS).numpy()
    for station, month in ((2, 0), (9, 5), (24, 11)):
        own = (months == month) & (parts[:, station] == parts[:, station].min())
        expected = table[months == month, station] - table[own, station].mean()
        found = referred.values.reshape(MONTHS, STATIONS)[months == month, station]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_records_hide_whole_stations() -> None:
    options = {"root": "unread", "records": True, "held_units": 0.2, "watched_units": 0.1}
    with pytest.raises(ValueError, match=r"hide must be \[0, 0\] with records"):
        FieldDataModule("ghcnm", hide=(0.0, 0.2), hide_units=0.2, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hide_units must be at most 0\.5 with records, got 0\.6"):
        FieldDataModule("ghcnm", hide=(0.0, 0.0), hide_units=0.6, **options)  # type: ignore[arg-type]


def test_months_of_one_station_alone_are_left_as_they_are() -> None:
    fields = stations()
    alone = (torch.arange(len(fields.units)) >= STATIONS) | (fields.units == 4)
    treated = bring_in_line(fields, alone)
    assert float(treated.noise[4]) == 1.0
    assert bool(treated.values.isfinite().all())


def test_estimates_in_the_own_reference_average_to_zero_where_values_are_known() -> None:
    fields = stations()
    values = fields.values.clone()
    values[: 100 * STATIONS : STATIONS] = torch.nan  # station 0 begins in month 100
    fields = replace(fields, values=values)
    rows = torch.arange(len(values))
    estimates = torch.randn(len(values), 1, dtype=torch.float64) + 5
    referred = in_own_reference(fields, estimates, rows).reshape(MONTHS, STATIONS).numpy()
    known = fields.known.reshape(MONTHS, STATIONS).numpy()
    for station, month in ((0, 3), (0, 11), (9, 0)):
        own = known[:, station] & (np.arange(MONTHS) % 12 == month)
        assert abs(referred[own, station].mean()) < 1e-12
        before = estimates.reshape(MONTHS, STATIONS).numpy()[:, station]
        np.testing.assert_allclose(referred[month::12, station], (before - before[own].mean())[month::12])
    other = replace(fields, values=torch.where(fields.known[:, None], -7.0, fields.values))
    assert torch.equal(in_own_reference(other, estimates, rows), in_own_reference(fields, estimates, rows))
    absolute = replace(fields, reference=None)
    assert in_own_reference(absolute, estimates, rows) is estimates


def test_much_noise_is_as_good_as_no_observation() -> None:
    generator = torch.Generator().manual_seed(0)
    places = 5 * torch.rand(9, 2, generator=generator, dtype=torch.float64) + 30
    query = Points(places[:1] + 0.5)
    metric, kriging = Metric(GLOBE), LocalKriging(1, 3, width=(2.0,), nugget=0.1, neighbours=9)
    noise = torch.ones(9, 1, dtype=torch.float64)
    noise[4] = 1e9

    def weights(points: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        rows, present = metric.nearest(Points(points), query, 9)
        found, _ = kriging(metric.embedded(points), metric.embedded(query.coordinates), rows, present, noise)
        return torch.zeros(len(points), dtype=torch.float64).index_add(0, rows[0], found[0, :, 0].detach())

    left = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])
    noisy = weights(places, noise)
    assert abs(float(noisy[4])) < 1e-6
    torch.testing.assert_close(noisy[left], weights(places[left], None), atol=1e-6, rtol=0)
    assert abs(float(weights(places, None)[4])) > 1e-3


def test_fields_without_times_or_places_on_the_globe_are_refused() -> None:
    plane = smooth_fields(3, 20)
    with pytest.raises(ValueError, match="records must be left out where fields have no times, got fields of value"):
        bring_in_line(plane, plane.known)
    with pytest.raises(ValueError, match="records must be left out where axes are not latitude, longitude"):
        bring_in_line(replace(plane, times=torch.arange(3.0)), plane.known)
    with pytest.raises(ValueError, match="times must rise from field to field"):
        bring_in_line(replace(stations(), times=torch.zeros(MONTHS)), torch.ones(MONTHS * STATIONS, dtype=torch.bool))


def test_records_help_at_real_stations_that_were_never_seen(shared_data: Path) -> None:
    root = shared_data / "climate" / "ghcnm_texas.dat"
    if not root.is_file():
        pytest.skip(f"no file {root}")
    errors = {}
    for records in (False, True):
        data = FieldDataModule("ghcnm", str(root), records=records, held_units=0.2, watched_units=0.1, hide=(0.0, 0.0),
                               hide_units=0.2, batch_size=64, seed=2)  # fmt: skip
        data.setup("fit")
        network = FieldNetwork(1, GLOBE, neighbours=20, correlation=(2.2, 3.6, 13.5), nugget=0.055)
        network.prepare(data.typical_batch(), data.training_values())
        batches = list(data.loader("test"))
        rows = torch.cat([batch.rows for batch in batches])
        estimates = torch.cat([network.predict(batch)[0] for batch in batches])
        targets = data.samples.values[rows]
        for name, values in (("field's", estimates), ("own", in_own_reference(data.samples, estimates, rows))):
            errors[records, name] = float((values - targets).square().mean().sqrt())
    assert errors[True, "own"] < 0.985 * errors[True, "field's"]
    assert errors[True, "field's"] < 0.985 * errors[False, "field's"]
