"""The plots of a test: curves and calibration of risks, numbers against the truth, the worst mistakes, kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.pipelines.tasks.series.evaluation import WITHIN_90, decided
from ccnn_irregular.pipelines.train.figures import kernels, save
from ccnn_irregular.pipelines.train.sample_figures import MOST_SHOWN
from ccnn_irregular.plotting import COLOURS, new_figure, plot_receptive_field, plot_samples
from ccnn_irregular.plotting_kernels import layer_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ccnn_irregular.kernels import Kernel
    from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
    from ccnn_irregular.pipelines.tasks.series.network import SeriesNetwork
    from ccnn_irregular.pipelines.tasks.series.samples import Samples, Schema

__all__ = [
    "calibration",
    "mistakes",
    "precision_recall",
    "predicted_numbers",
    "receptive_fields",
    "risk_over_time",
    "roc",
    "save_test_figures",
]

CALIBRATION_GROUPS = 10
SERIES_SHOWN = 6
VARIABLES_SHOWN = 4
MISTAKES_ABREAST = 4
_CHANCE: dict[str, Any] = {"color": "#666666", "linestyle": "--", "linewidth": 1}


def save_test_figures(
    folder: Path, answers: NDArray[np.float64], network: SeriesNetwork, data: SeriesTables, series: str | None = None
) -> list[Path]:
    """Every plot of a test, into ``folder``.

    Args:
        folder: made if need be.
        answers: of the test samples, see ``SeriesNetwork.answers``.
        network: trained; its kernels are drawn.
        data: with the test samples.
        series: of two classes, the series whose risk is drawn; None = that of the outcome which was predicted with the
            highest risk.

    Raises:
        ValueError: ``series`` is not among those that were read.
    """
    schema, targets = network.schema, data.targets("test")
    made = {"receptive_fields.png": receptive_fields(network.kernels(), schema.unit)}
    made |= mistakes(answers, network, data)
    if schema.kind == "binary":
        made |= _of_risks(answers[:, 0], targets.astype(np.int64), network, data, series)
    elif schema.kind == "number":
        deviation, name = float(network.deviation), data.read().label_name
        made["predictions.png"] = predicted_numbers(answers[:, 0], targets, deviation, data.title, name)
    files = [save(figure, folder / name) for name, figure in made.items()]
    return files + kernels(network, schema.unit, folder)


def _of_risks(
    risks: NDArray[np.float64],
    labels: NDArray[np.int64],
    network: SeriesNetwork,
    data: SeriesTables,
    series: str | None,
) -> dict[str, Figure]:
    samples = data.samples
    place = int(data.indices("test")[np.argmax(np.where(labels == 1, risks, -1.0))])
    if series is not None:
        places = np.flatnonzero(samples.series.ids[samples.index] == series)
        rule = f"be one of the {len(samples.series)} series that were read"
        require(len(places) > 0, "test.series", rule, repr(series))
        place = int(places[0])
    title = f"{data.title}: {len(labels)} samples, {labels.sum()} of {network.schema.classes[-1]!r}"
    return {
        "series.png": risk_over_time(network, samples, place, data.title),
        "roc.png": roc(labels, risks, title),
        "precision_recall.png": precision_recall(labels, risks, title),
        "calibration.png": calibration(labels, risks, title),
    }


def mistakes(answers: NDArray[np.float64], network: SeriesNetwork, data: SeriesTables) -> dict[str, Figure]:
    """``mistakes.png``: samples that were taken for another class most surely, or the numbers missed by most.

    Without a mistake there is no picture.
    """
    schema, rows, targets = network.schema, data.indices("test"), data.targets("test")
    told = decided(answers, schema, float(network.threshold))
    if schema.kind == "number":
        size = np.abs(answers[:, 0] - targets)
        true, taken = [f"{target:.3g}" for target in targets], [f"{answer:.3g}" for answer in answers[:, 0]]
        heading = f"the largest errors of {len(rows)} samples"
    else:
        chances = np.hstack([1 - answers, answers]) if schema.kind == "binary" else answers
        place = [schema.classes.index(word) for word in told]
        sure = chances[np.arange(len(rows)), place]
        size = np.where(targets == place, 0.0, sure)
        true = [schema.classes[int(target)] for target in targets]
        taken = [f"{name} ({chance:.2f})" for name, chance in zip(told, sure, strict=True)]
        heading = f"{int((size > 0).sum())} of {len(rows)} samples are taken for another class"
    chosen = [one for one in np.argsort(-size, kind="stable")[:MOST_SHOWN].tolist() if size[one] > 0]
    if not chosen:
        return {}
    ids = data.ids("test")
    titles = [f"{ids[row]}: true {true[row]},\npredicted {taken[row]}" for row in chosen]
    return {"mistakes.png": _as_measured(data, rows[chosen], titles, heading, schema)}


def _as_measured(
    data: SeriesTables, rows: NDArray[np.int64], titles: Sequence[str], heading: str, schema: Schema
) -> Figure:
    """Samples side by side, each with the variables that they hold most values of, as they were measured."""
    batch = data.samples.batch(torch.from_numpy(rows))
    values, times, ends = batch.values.numpy(), batch.times.numpy(), batch.splits.tolist()
    shown = np.sort(np.argsort(-(~np.isnan(values)).sum(0), kind="stable")[:VARIABLES_SHOWN]).tolist()
    columns, height = min(MISTAKES_ABREAST, len(rows)), max(len(shown), 1)
    groups = -(-len(rows) // columns)
    figure = new_figure(2.6 * columns + 0.6, groups * (0.9 + 0.9 * height))
    panels = figure.subplots(groups * height, columns, sharey="row", squeeze=False)
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        group, column = divmod(number, columns)
        own = panels[group * height : (group + 1) * height, column]
        own[0].set_title(titles[number], fontsize="small")
        if shown:
            names = [schema.variables[one] if column == 0 else "" for one in shown]
            plot_samples(
                times[start:end], values[start:end, shown], names=names, time_unit=schema.unit, panels=list(own)
            )
        for panel in own[:-1]:
            panel.sharex(own[-1])
            panel.tick_params(labelbottom=False)
    for panel in panels[-height:, len(rows) - (groups - 1) * columns :].flat:
        panel.set_axis_off()
    figure.suptitle(heading, fontsize="medium")
    return figure


def predicted_numbers(
    answers: NDArray[np.float64], targets: NDArray[np.float64], deviation: float, title: str, name: str
) -> Figure:
    """Predictions of what is called ``name`` against the truth, with the band that should hold 90 % of them."""
    figure = new_figure(4.2, 4.0)
    low, high = min(answers.min(), targets.min()), max(answers.max(), targets.max())
    beyond = 0.04 * ((high - low) or 1.0)
    ends = np.array([low - beyond, high + beyond])
    axes = figure.add_subplot(aspect="equal", xlim=ends, ylim=ends)
    axes.plot(ends, ends, label="predicted = true", **_CHANCE)
    if deviation > 0:
        half = WITHIN_90 * deviation
        axes.fill_between(
            ends, ends - half, ends + half, color=COLOURS[5], alpha=0.3, linewidth=0, label="90 % interval"
        )
    axes.plot(targets, answers, ".", color=COLOURS[0], markersize=4)
    axes.set(xlabel=f"{name}, true", ylabel=f"{name}, predicted")
    axes.set_title(f"{title}: {len(targets)} samples", fontsize="small")
    figure.legend(loc="outside upper center", frameon=False, fontsize="small", ncols=2)
    return figure


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


def receptive_fields(learned: Mapping[str, Kernel], unit: str) -> Figure:
    """How strongly each learned kernel weighs a sample by its age, one panel a kernel."""
    columns = min(2, len(learned))
    rows = math.ceil(len(learned) / columns)
    figure = new_figure(4.0 * columns, 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    layers = layer_titles(learned)
    for panel, (name, kernel) in zip(panels, learned.items(), strict=False):
        plot_receptive_field(kernel, unit=unit, axes=panel)
        panel.set_title(f"{layers[name]}: {panel.get_title()}", fontsize="small")
        panel.set_xlabel(f"time since the sample ({unit})")
    for panel in panels[len(learned) :]:
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
    names = [schema.variables[number] for number in shown]
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
