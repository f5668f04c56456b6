"""Records of stations: what persists is taken off, blunders weigh less, estimates get the station's own reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines.field.data import FieldDataModule
from ccnn_irregular.pipelines.field.kriging import FieldAxis, LocalKriging, Metric
from ccnn_irregular.pipelines.field.network import FieldNetwork
from ccnn_irregular.pipelines.field.records import bring_in_line, in_own_reference
from ccnn_irregular.pipelines.field.sources import FieldSet, simulated_fields

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
    plane = simulated_fields(3, 20)
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
        network.prepare(data.training_values(), next(iter(data.val_dataloader())))
        batches = list(data.test_loader())
        rows = torch.cat([batch.rows for batch in batches])
        estimates = torch.cat([network.predict(batch) for batch in batches])
        targets = data.samples.values[rows]
        for name, values in (("field's", estimates), ("own", in_own_reference(data.samples, estimates, rows))):
            errors[records, name] = float((values - targets).square().mean().sqrt())
    assert errors[True, "own"] < 0.985 * errors[True, "field's"]
    assert errors[True, "field's"] < 0.985 * errors[False, "field's"]
