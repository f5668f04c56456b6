"""Errors of a network and of baselines at what a test asks for, channel by channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccnn_irregular.datasets.samples import FieldSet
from ccnn_irregular.pipelines.tasks.field.network import NORMAL_90
from ccnn_irregular.pipelines.train.evaluation import ResultTable, weighted_rmse

__all__ = ["CSV_HEAD", "Answers", "Score", "csv_lines", "mean_ratios", "scores_of", "table"]

Array = NDArray[np.float64]

CSV_HEAD = ("channel", "unit", "n", "method", "weighting", "rmse")


@dataclass(frozen=True)
class Score:
    """Root mean square errors of one channel over everything asked for in the test; names are keys of the JSON.

    Nodes of a grid of latitudes and longitudes count by the area they stand for (the cosine of their latitude), all
    other places alike: the error of stations and floats is one over observations.

    Attributes:
        channel: its name.
        unit: of the errors.
        n: values compared.
        network: error of the network.
        rivals: error of each baseline.
        best_rival: name of the baseline of least error in this channel in the validation.
        ratio: the network's error divided by that of ``best_rival``.
        ratio_in_hindsight: the same by the least error of a baseline in the test.
        treated_rivals: errors of the baselines from the observations as the network gets them, their estimates in the
            stations' own reference as its are; empty where there is no such treatment.
        treated_ratio: the network's error divided by that of the one of these that is best in the validation.
        by_nodes: errors of network and baselines with every node counted alike; None where they are counted so above.
        ratio_by_nodes: the network's divided by that of ``best_rival``.
        coverage: share of the values within 1.645 standard deviations of the network's answer, 0.9 if these are right;
            None where they were not fitted.
        deviation: root mean square of the standard deviations, to be compared with ``network``.
    """

    channel: str
    unit: str
    n: int
    network: float
    rivals: dict[str, float]
    best_rival: str
    ratio: float
    ratio_in_hindsight: float
    treated_rivals: dict[str, float]
    treated_ratio: float | None
    by_nodes: dict[str, float] | None
    ratio_by_nodes: float | None
    coverage: float | None
    deviation: float | None


@dataclass(frozen=True)
class Answers:
    """What baselines answer to the same queries.

    Attributes:
        rows: ``(m,)``, rows of the queries in the set of fields.
        targets: ``(m, C)``, nan where not known.
        baselines: ``(m, C)`` each, from observations as they were read.
        treated: the same from observations as the network gets them; empty where these are the same.
    """

    rows: Tensor
    targets: Array
    baselines: dict[str, Array]
    treated: dict[str, Array]

    def errors(self, answers: Mapping[str, Array], weights: Array) -> list[dict[str, float]]:
        """Errors by method, for each channel; ``weights`` ``(m,)`` is what each query counts."""
        found = {name: weighted_rmse(values, self.targets, weights[:, None], 0) for name, values in answers.items()}
        channels = range(self.targets.shape[1])
        return [{name: float(errors[channel]) for name, errors in found.items()} for channel in channels]


def scores_of(
    network: Array, test: Answers, validation: Answers, fields: FieldSet, deviations: Array | None = None
) -> list[Score]:
    """Scores of each channel; the validation tells which baseline is the one to compare with.

    Args:
        network: ``(m, C)``, its answers in the test.
        test: those of the baselines.
        validation: the same in the validation.
        fields: what the rows of both are of.
        deviations: ``(m, C)``, standard deviations of the network's answers; None = not fitted.
    """
    areas, watched = (fields.weights(answers.rows).numpy() for answers in (test, validation))
    everything = {"network": network} | test.baselines
    by_area, by_nodes = test.errors(everything, areas), test.errors(everything, np.ones(len(test.rows)))
    treated = test.errors(test.treated, areas)
    chosen = validation.errors(validation.baselines, watched)
    chosen_treated = validation.errors(validation.treated, watched)
    scores = []
    for channel, (name, unit) in enumerate(zip(fields.channels, fields.channel_units, strict=True)):
        baselines = dict(by_area[channel])
        error, best = baselines.pop("network"), _least(chosen[channel])
        nodes = by_nodes[channel] if fields.areas is not None else None
        with_treatment = treated[channel]
        known = np.isfinite(test.targets[:, channel])
        coverage = deviation = None
        if deviations is not None:
            of_channel = deviations[known, channel]
            off = np.abs(network[known, channel] - test.targets[known, channel])
            coverage = float(np.mean(off <= NORMAL_90 * of_channel))
            deviation = float(np.sqrt(np.mean(np.square(of_channel))))
        scores.append(
            Score(
                channel=name,
                unit=unit,
                n=int(known.sum()),
                network=error,
                rivals=baselines,
                best_rival=best,
                ratio=error / baselines[best],
                ratio_in_hindsight=error / min(baselines.values()),
                treated_rivals=with_treatment,
                treated_ratio=error / with_treatment[_least(chosen_treated[channel])] if with_treatment else None,
                by_nodes=nodes,
                ratio_by_nodes=None if nodes is None else nodes["network"] / nodes[best],
                coverage=coverage,
                deviation=deviation,
            )
        )
    return scores


def _least(errors: Mapping[str, float]) -> str:
    return min(errors, key=errors.__getitem__)


def csv_lines(scores: Sequence[Score]) -> Iterator[tuple[object, ...]]:
    """Lines under ``CSV_HEAD``."""
    for score in scores:
        treated = {f"{baseline}, same treatment": value for baseline, value in score.treated_rivals.items()}
        first = "places" if score.by_nodes is None else "area"
        counted = {first: {"network": score.network, **score.rivals, **treated}, "nodes": score.by_nodes or {}}
        for weighting, errors in counted.items():
            for method, value in errors.items():
                yield score.channel, score.unit, score.n, method, weighting, f"{value:.6g}"


def _ratios(scores: Sequence[Score]) -> dict[str, list[float]]:
    """The ratio of each channel, by area and by nodes where these differ."""
    ratios = [score.ratio for score in scores]
    by_nodes = [score.ratio_by_nodes for score in scores if score.ratio_by_nodes is not None]
    return {"by area": ratios, "by nodes": by_nodes} if by_nodes else {"": ratios}


def mean_ratios(scores: Sequence[Score]) -> list[str]:
    """Means over the channels, for the reader."""
    columns = _ratios(scores)
    if len(scores[0].rivals) > 1:
        columns["to the baseline that is best in the test"] = [score.ratio_in_hindsight for score in scores]
    if treated := [score.treated_ratio for score in scores if score.treated_ratio is not None]:
        columns["to the baseline with the same treatment"] = treated
    return [f"{f'mean ratio {label}'.strip()} {np.mean(column):.3f}" for label, column in columns.items()]


def table(scores: Sequence[Score], title: str, chosen: str = "in validation") -> ResultTable:
    """A row for each channel; ``chosen`` says where the baseline was the best."""
    columns = _ratios(scores)
    covered = scores[0].coverage is not None

    def row(number: int, score: Score) -> tuple[str, ...]:
        errors = [f"{value:.4g}" for value in (score.rivals[score.best_rival], score.network)]
        ratios = [f"{column[number]:.3f}" for column in columns.values()]
        ratios += [f"{score.coverage:.1%}"] if score.coverage is not None else []
        return (
            f"{score.channel} ({score.unit})" if score.unit else score.channel,
            score.best_rival,
            str(score.n),
            *errors,
            *ratios,
        )

    labels = [f"ratio {label}".strip() for label in columns]
    labels += ["in 90 % intervals"] * covered
    head = ("channel", f"best baseline {chosen}", "n", "baseline", "network", *labels)
    return ResultTable(title, head, [row(*pair) for pair in enumerate(scores)], words=2)
