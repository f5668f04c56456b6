"""The plots of a test of predicted risks: curves, calibration, one patient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012 import SERIES
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions
from ccnn_irregular.pipelines.train.figures import save
from ccnn_irregular.plotting import COLOURS, new_figure, plot_receptive_field, plot_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ccnn_irregular.kernels import Kernel
    from ccnn_irregular.pipelines.tasks.risk.data import StayBatch
    from ccnn_irregular.pipelines.tasks.risk.module import BinaryRisk

__all__ = ["calibration", "patient_risk", "precision_recall", "receptive_fields", "roc", "save_test_figures"]

HOURS = 48
CALIBRATION_GROUPS = 10
SERIES_SHOWN = 6
UNITS = {
    "Albumin": "g/dL", "ALP": "IU/L", "ALT": "IU/L", "AST": "IU/L", "Bilirubin": "mg/dL", "BUN": "mg/dL",
    "Cholesterol": "mg/dL", "Creatinine": "mg/dL", "DiasABP": "mmHg", "FiO2": "0-1", "GCS": "3-15",
    "Glucose": "mg/dL", "HCO3": "mmol/L", "HCT": "%", "HR": "1/min", "K": "mEq/L", "Lactate": "mmol/L",
    "MAP": "mmHg", "Mg": "mmol/L", "MechVent": "0/1", "Na": "mEq/L", "NIDiasABP": "mmHg", "NIMAP": "mmHg",
    "NISysABP": "mmHg", "PaCO2": "mmHg", "PaO2": "mmHg", "pH": "", "Platelets": "1000/uL", "RespRate": "1/min",
    "SaO2": "%", "SysABP": "mmHg", "Temp": "deg C", "TroponinI": "ug/L", "TroponinT": "ug/L", "Urine": "mL",
    "WBC": "1000/uL", "Weight": "kg",
}  # fmt: skip
_CHANCE: dict[str, Any] = {"color": "#666666", "linestyle": "--", "linewidth": 1}


def save_test_figures(
    folder: Path,
    predictions: Predictions,
    model: BinaryRisk,
    stays: StayBatch,
    *,
    source: str,
    record_id: int | None = None,
) -> list[Path]:
    """Every plot of a test, into ``folder``.

    Args:
        folder: made if need be.
        predictions: of the evaluated stays, with labels.
        model: trained; its network's kernels are drawn.
        stays: where the stay to be drawn is looked up; holds at least the evaluated ones.
        source: name of the data, for the titles.
        record_id: the stay to be drawn; None = the death that was predicted with the highest risk.

    Raises:
        ValueError: ``record_id`` is not among the stays.
    """
    assert predictions.labels is not None
    labels, risks = predictions.labels, predictions.probabilities
    if record_id is None:
        record_id = int(predictions.record_ids[np.argmax(np.where(labels == 1, risks, -1.0))])
    made = {
        "patient.png": patient_risk(model, stays, record_id, source),
        "roc.png": roc(labels, risks, source),
        "precision_recall.png": precision_recall(labels, risks, source),
        "calibration.png": calibration(labels, risks, source),
        "receptive_fields.png": receptive_fields(model.network.kernels()),  # type: ignore[operator]
    }
    return [save(figure, folder / name) for name, figure in made.items()]


def roc(labels: NDArray[np.int64], risks: NDArray[np.float64], source: str) -> Figure:
    """Receiver operating characteristic."""
    from sklearn import metrics

    alarms, hits, _ = metrics.roc_curve(labels, risks)
    figure = new_figure(4.2, 4.0)
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], label="chance", **_CHANCE)
    area = metrics.roc_auc_score(labels, risks)
    axes.plot(alarms, hits, color=COLOURS[0], label=f"network, area {area:.3f}", clip_on=False)
    axes.set(xlabel="false positive rate (survivors flagged)", ylabel="sensitivity (deaths flagged)")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(_tested(labels, source), fontsize="small")
    return figure


def precision_recall(labels: NDArray[np.int64], risks: NDArray[np.float64], source: str) -> Figure:
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
    axes.set(xlabel="sensitivity (deaths flagged)", ylabel="precision (flagged who died)")
    axes.set_title(_tested(labels, source), fontsize="small")
    # Above the axes: the curve may pass anywhere inside.
    figure.legend(loc="outside upper center", frameon=False, fontsize="small")
    return figure


def calibration(labels: NDArray[np.int64], risks: NDArray[np.float64], source: str) -> Figure:
    """Observed deaths against predicted risk in ten groups of equally many stays, with 95 % Wilson intervals."""
    groups = [group for group in np.array_split(np.argsort(risks, kind="stable"), CALIBRATION_GROUPS) if len(group)]
    predicted = np.array([risks[group].mean() for group in groups])
    observed = np.array([labels[group].mean() for group in groups])
    low, high = _wilson(observed, np.array([len(group) for group in groups]))
    top = min(1.0, 1.08 * max(predicted.max(), high.max()))
    figure = new_figure(4.2, 4.0)
    axes = figure.add_subplot(aspect="equal", xlim=(0, top), ylim=(0, top))
    axes.plot([0, 1], [0, 1], label="perfect calibration", **_CHANCE)
    errors = np.maximum([observed - low, high - observed], 0)
    label = "a tenth of the stays, 95 % interval"
    axes.errorbar(predicted, observed, errors, fmt="o", color=COLOURS[0], markersize=4, linewidth=1, label=label)
    axes.set(xlabel="mean predicted risk", ylabel="share that died")
    axes.set_title(_tested(labels, source), fontsize="small")
    # Above the axes: inside, some interval always reaches into it.
    figure.legend(loc="outside upper center", frameon=False, fontsize="small", ncols=2)
    return figure


def _tested(labels: NDArray[np.int64], source: str) -> str:
    return f"{source}: {len(labels)} stays, {labels.sum()} deaths"


def _wilson(share: NDArray[np.float64], count: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % score interval of a share seen in ``count`` draws; sensible at 0 and 1 too."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # The share itself, and 0 and 1, are not left out by rounding.
    return np.minimum(centre - half, share).clip(0, 1), np.maximum(centre + half, share).clip(0, 1)


def receptive_fields(kernels: Mapping[str, Kernel]) -> Figure:
    """How strongly each learned kernel weighs a sample by its age, one panel a kernel."""
    columns = min(2, len(kernels))
    rows = math.ceil(len(kernels) / columns)
    figure = new_figure(4.0 * columns, 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, kernel) in zip(panels, kernels.items(), strict=False):
        plot_receptive_field(kernel, unit="h", axes=panel)
        panel.set_title(f"{name}: {panel.get_title()}", fontsize="small")
        panel.set_xlabel("time since the sample (h)")
    for panel in panels[len(kernels) :]:
        panel.set_visible(False)
    return figure


def patient_risk(model: BinaryRisk, stays: StayBatch, record_id: int, source: str) -> Figure:
    """One stay: its most observed series, and the risk the model gives when only the first hours are known."""
    model.eval()  # after predicting, Lightning puts a model back into training mode, with its dropout
    places = torch.nonzero(stays.record_ids == record_id).flatten()
    require(len(places) > 0, "record_id", f"be one of the {len(stays)} stays that were read", record_id)
    stay = stays.take(places[:1])
    hours = torch.arange(1, HOURS + 1, dtype=torch.float64)
    risks = model.probabilities(stay.take(torch.zeros(HOURS, dtype=torch.int64)), hours).numpy()
    values = stay.values.numpy()
    shown = np.sort(np.argsort(-(~np.isnan(values)).sum(0), kind="stable")[:SERIES_SHOWN])
    names = [SERIES[series] for series in shown]
    figure = new_figure(7.5, 1.6 + 0.85 * SERIES_SHOWN)
    panels = figure.subplots(
        SERIES_SHOWN + 1, 1, sharex=True, gridspec_kw={"height_ratios": [1] * SERIES_SHOWN + [1.8]}
    )
    units = [UNITS[name] for name in names]
    plot_samples(stay.times.numpy(), values[:, shown], names=names, units=units, panels=panels[:-1])
    panels[-2].set_xlabel("")
    risk = panels[-1]
    risk.plot(hours, risks, color=COLOURS[1], marker=".", markersize=4, linewidth=1.2)
    risk.set(xlabel="time since admission (h)", xlim=(0, HOURS), ylim=(0, 1), xticks=range(0, HOURS + 1, 6))
    risk.tick_params(labelsize="small")
    label = "predicted\nrisk" if bool(model.calibration.fitted) else "predicted\nrisk, not\ncalibrated"
    risk.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    title = f"{source}, record {record_id}{_outcome(stay)}: risk from what was known by each hour"
    figure.suptitle(title, fontsize="medium")
    return figure


def _outcome(stay: StayBatch) -> str:
    if stay.labels is None:
        return ""
    return ", died in hospital" if bool(stay.labels[0]) else ", survived"
