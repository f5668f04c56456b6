"""The plots of a test of predicted risks: curves, calibration, one series."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure, plot_receptive_field, plot_samples
from ccnn_irregular.plotting_kernels import layer_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ccnn_irregular.kernels import Kernel
    from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
    from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
    from ccnn_irregular.pipelines.tasks.series.samples import Samples

__all__ = ["calibration", "precision_recall", "receptive_fields", "risk_over_time", "roc", "save_test_figures"]

CALIBRATION_GROUPS = 10
SERIES_SHOWN = 6
_CHANCE: dict[str, Any] = {"color": "#666666", "linestyle": "--", "linewidth": 1}


def save_test_figures(
    folder: Path,
    risks: NDArray[np.float64],
    labels: NDArray[np.int64],
    network: SeriesNetwork,
    data: SeriesTables,
    series: str | None = None,
) -> list[Path]:
    """Every plot of a test of two classes, into ``folder``.

    Args:
        folder: made if need be.
        risks: ``(n,)``, of the test samples.
        labels: ``(n,)``, 0 or 1, both present.
        network: trained; its kernels are drawn.
        data: with the test samples.
        series: the series to be drawn; None = that of the outcome which was predicted with the highest risk.

    Raises:
        ValueError: ``series`` is not among those that were read.
    """
    samples = data.samples
    place = int(data.indices("test")[np.argmax(np.where(labels == 1, risks, -1.0))])
    if series is not None:
        places = np.flatnonzero(samples.series.ids[samples.index] == series)
        rule = f"be one of the {len(samples.series)} series that were read"
        require(len(places) > 0, "test.series", rule, repr(series))
        place = int(places[0])
    title = f"{data.title}: {len(labels)} samples, {labels.sum()} of {network.schema.classes[-1]!r}"
    made = {
        "series.png": risk_over_time(network, samples, place, data.title),
        "roc.png": roc(labels, risks, title),
        "precision_recall.png": precision_recall(labels, risks, title),
        "calibration.png": calibration(labels, risks, title),
        "receptive_fields.png": receptive_fields(network.kernels(), network.schema.unit),
    }
    return [save(figure, folder / name) for name, figure in made.items()]


def roc(labels: NDArray[np.int64], risks: NDArray[np.float64], title: str) -> Figure:
    """Receiver operating characteristic."""
    from sklearn import metrics

    alarms, hits, _ = metrics.roc_curve(labels, risks)
    figure = new_figure(4.2, 4.0)
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], label="chance", **_CHANCE)
    area = metrics.roc_auc_score(labels, risks)
    axes.plot(alarms, hits, color=COLOURS[0], label=f"network, area {area:.3f}", clip_on=False)
    axes.set(xlabel="false positive rate (others flagged)", ylabel="sensitivity (outcomes flagged)")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(title, fontsize="small")
    return figure


def precision_recall(labels: NDArray[np.int64], risks: NDArray[np.float64], title: str) -> Figure:
    """Precision against sensitivity, with the threshold at which the smaller of the two is largest."""
    from sklearn import metrics

    precision, recall, _ = metrics.precision_recall_curve(labels, risks)
    best = int(np.argmax(np.minimum(precision, recall)))
    area = metrics.average_precision_score(labels, risks)
    figure = new_figure(4.2, 4.0)
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.axhline(labels.mean(), label=f"chance, {labels.mean():.3f}", **_CHANCE)
    label = f"network, average precision {area:.3f}"
    axes.step(recall, precision, where="post", color=COLOURS[0], label=label, clip_on=False)
    smaller = min(precision[best], recall[best])
    axes.plot(recall[best], precision[best], "o", color=COLOURS[1], label=f"min(Se, +P) {smaller:.3f}")
    axes.set(xlabel="sensitivity (outcomes flagged)", ylabel="precision (flagged with the outcome)")
    axes.set_title(title, fontsize="small")
    # Above the axes: the curve may pass anywhere inside.
    figure.legend(loc="outside upper center", frameon=False, fontsize="small")
    return figure


def calibration(labels: NDArray[np.int64], risks: NDArray[np.float64], title: str) -> Figure:
    """Observed outcomes against predicted risk in ten groups of equally many samples, with 95 % Wilson intervals."""
    groups = [group for group in np.array_split(np.argsort(risks, kind="stable"), CALIBRATION_GROUPS) if len(group)]
    predicted = np.array([risks[group].mean() for group in groups])
    observed = np.array([labels[group].mean() for group in groups])
    low, high = _wilson(observed, np.array([len(group) for group in groups]))
    top = min(1.0, 1.08 * max(predicted.max(), high.max()))
    figure = new_figure(4.2, 4.0)
    axes = figure.add_subplot(aspect="equal", xlim=(0, top), ylim=(0, top))
    axes.plot([0, 1], [0, 1], label="perfect calibration", **_CHANCE)
    errors = np.maximum([observed - low, high - observed], 0)
    label = "a tenth of the samples, 95 % interval"
    drawn = axes.errorbar(
        predicted, observed, errors, fmt="o", color=COLOURS[0], markersize=4, linewidth=1, label=label
    )
    drawn[0].set_clip_on(False)  # markers at 0 and 1 stay whole
    axes.set(xlabel="mean predicted risk", ylabel="share with the outcome")
    axes.set_title(title, fontsize="small")
    # Above the axes: inside, some interval always reaches into it.
    figure.legend(loc="outside upper center", frameon=False, fontsize="small", ncols=2)
    return figure


def _wilson(share: NDArray[np.float64], count: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % score interval of a share seen in ``count`` draws; sensible at 0 and 1 too."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # The share itself, and 0 and 1, are not left out by rounding.
    return np.minimum(centre - half, share).clip(0, 1), np.maximum(centre + half, share).clip(0, 1)


def receptive_fields(kernels: Mapping[str, Kernel], unit: str) -> Figure:
    """How strongly each learned kernel weighs a sample by its age, one panel a kernel."""
    columns = min(2, len(kernels))
    rows = math.ceil(len(kernels) / columns)
    figure = new_figure(4.0 * columns, 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    layers = layer_titles(kernels)
    for panel, (name, kernel) in zip(panels, kernels.items(), strict=False):
        plot_receptive_field(kernel, unit=unit, axes=panel)
        panel.set_title(f"{layers[name]}: {panel.get_title()}", fontsize="small")
        panel.set_xlabel(f"time since the sample ({unit})")
    for panel in panels[len(kernels) :]:
        panel.set_visible(False)
    return figure


def risk_over_time(network: SeriesNetwork, samples: Samples, place: int, source: str) -> Figure:
    """One sample: its most observed variables, and the risk that is given when only what came before is known."""
    network.eval()  # after predicting, Lightning puts a model back into training mode, with its dropout
    latent, schema = network.latent, network.schema
    nodes = latent.starts[0] + latent.steps[0] * np.arange(latent.sizes[0])
    chosen = np.full(len(nodes), place)
    end = samples.judged_by(np.array([place]))[0] if samples.since_cut else 0.0
    with torch.no_grad():
        known = samples.take(chosen).known_by(np.asarray(end + nodes, np.float64)).batch(torch.arange(len(nodes)))
        risks = network.answers(known)[:, 0].numpy()
    whole = samples.batch(torch.tensor([place]))
    values = whole.values.numpy()
    shown = np.sort(np.argsort(-(~np.isnan(values)).sum(0), kind="stable")[:SERIES_SHOWN])
    names = [schema.variables[one] for one in shown]
    figure = new_figure(7.5, 1.6 + 0.85 * len(shown))
    panels = figure.subplots(
        len(shown) + 1, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [1] * len(shown) + [1.8]}
    )[:, 0]
    if len(shown):
        plot_samples(whole.times.numpy(), values[:, shown], names=names, panels=list(panels[:-1]))
        panels[-2].set_xlabel("")
    risk = panels[-1]
    risk.plot(nodes, risks, color=COLOURS[1], marker=".", markersize=4, linewidth=1.2)
    risk.set(xlabel=f"time ({schema.unit})", xlim=(nodes[0] - latent.steps[0], nodes[-1]), ylim=(0, 1))
    risk.tick_params(labelsize="small")
    label = "predicted\nrisk" if bool(network.calibration.fitted) else "predicted\nrisk, not\ncalibrated"
    risk.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    target = float(samples.targets[place])
    outcome = "" if np.isnan(target) else f", label {schema.classes[int(target)]}"
    name = samples.series.ids[samples.index[place]]
    figure.suptitle(f"{source}, {name}{outcome}: risk from what was known by each time", fontsize="medium")
    return figure
