"""``ccnn baseline``: gradient-boosted trees on hand-made statistics, on the split and with the metrics of the network.

Eight statistics of each variable: mean, minimum, maximum, standard deviation, first and last value, number of values,
and the time of the last one; nan where it was never observed (the count is then 0). With the statics that makes
8 x 37 + 5 = 301 features of a stay in intensive care, which scikit-learn's HistGradientBoosting takes with their gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.cli import config_path
from ccnn_irregular.pipelines.tasks.series.data import SeriesTables
from ccnn_irregular.pipelines.tasks.series.evaluation import evaluate, write_predictions
from ccnn_irregular.pipelines.tasks.series.risks import table
from ccnn_irregular.pipelines.tasks.series.samples import Samples
from ccnn_irregular.pipelines.train.arguments import join_lists
from ccnn_irregular.pipelines.train.earlier import read_config
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.progress import followed
from ccnn_irregular.pipelines.train.reports import versions, write_json
from ccnn_irregular.pipelines.train.trained_on import Overlap, TrainedOn

__all__ = ["STATISTICS", "OtherTables", "Trees", "features", "run", "train_trees"]


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees.

    Attributes:
        seeds: how many are trained, with seeds 0, 1, ...; their mean risk is evaluated too.
        learning_rate: of each boosting step.
        iterations: boosting steps.
        leaf_nodes: leaves a tree.
        l2: penalty on the leaf values.
        columns_at_split: share of the features that a split may look at, drawn by the seed.
    """

    seeds: int = 5
    learning_rate: float = 0.03
    iterations: int = 400
    leaf_nodes: int = 15
    l2: float = 10.0
    columns_at_split: float = 0.2


@dataclass(frozen=True)
class OtherTables:
    """Other tables to test on, all of them; the trees are then trained on all series of data.table.

    Attributes:
        table: files or folders; without them the test part of data.table is tested.
        labels: as data.labels.
        statics: as data.statics.
        source_options: as data.source_options.
    """

    table: str | list[str] | None = None
    labels: str | None = None
    statics: str | None = None
    source_options: dict[str, Any] | None = None


# Options of ``SeriesTables`` by which other tables are read as those of the training.
_READ_AS = ("source", "columns", "layout", "repeats", "variables")
STATISTICS = ("mean", "min", "max", "std", "first", "last", "count", "time_of_last")


def features(samples: Samples) -> NDArray[np.float32]:
    """``(B, 8 * V + S)``: the statistics of each variable (all means, then all minima, ...), then the statics."""
    batch = samples.batch(torch.arange(len(samples)))
    values, count, width = batch.values.numpy(), len(samples), batch.values.shape[1]
    rows, columns = np.nonzero(~np.isnan(values))
    sample_of_row = np.repeat(np.arange(count), batch.splits.diff().numpy())
    # A cell is one variable of one sample. A stable sort by cell keeps the order of time inside it.
    cells = sample_of_row[rows] * width + columns
    order = np.argsort(cells, kind="stable")
    observed = values[rows, columns][order].astype(np.float64)
    times = batch.times.numpy()[rows][order]
    table = np.full((len(STATISTICS), count * width), np.nan)
    table[STATISTICS.index("count")] = 0
    present, starts = np.unique(cells[order], return_index=True)
    if len(present):
        table[:, present] = _cell_statistics(observed, times, starts)
    by_sample = table.reshape(len(STATISTICS), count, width).transpose(1, 0, 2).reshape(count, -1)
    return np.concatenate([by_sample, batch.statics.numpy()], axis=1).astype(np.float32)


def _cell_statistics(
    observed: NDArray[np.float64], times: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The rows of ``STATISTICS`` for cells whose values lie together, the first of each at ``starts``."""
    counts = np.diff(np.r_[starts, len(observed)])
    lasts = starts + counts - 1
    means = np.add.reduceat(observed, starts) / counts
    deviations = observed - np.repeat(means, counts)
    statistics = {
        "mean": means,
        "min": np.minimum.reduceat(observed, starts),
        "max": np.maximum.reduceat(observed, starts),
        "std": np.sqrt(np.add.reduceat(deviations**2, starts) / counts),
        "first": observed[starts],
        "last": observed[lasts],
        "count": counts,
        "time_of_last": times[lasts],
    }
    return np.stack([statistics[name] for name in STATISTICS])


def train_trees(inputs: NDArray[np.float32], targets: NDArray[np.float64], kind: str, trees: Trees, seed: int) -> Any:
    """A fitted scikit-learn classifier, or a regressor of numbers."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    model = (HistGradientBoostingRegressor if kind == "number" else HistGradientBoostingClassifier)(
        learning_rate=trees.learning_rate,
        max_iter=trees.iterations,
        max_leaf_nodes=trees.leaf_nodes,
        l2_regularization=trees.l2,
        max_features=trees.columns_at_split,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(inputs, targets if kind == "number" else targets.astype(np.int64))


def _answers(model: Any, inputs: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """In the form of ``SeriesNetwork.answers``."""
    if kind == "number":
        return np.asarray(model.predict(inputs), np.float64)[:, None]
    chances = np.asarray(model.predict_proba(inputs), np.float64)
    return chances[:, 1:] if kind == "binary" else chances


def run(arguments: list[str]) -> None:
    """Train one model a seed, evaluate each and their mean, print the table, write ``metrics.json``."""
    options = _options(arguments)
    data, trees, other = options.data, options.trees, options.test
    data.setup("fit")
    train, tested, overlap = _parts(data, other, options.allow_overlap)
    schema = data.schema
    inputs, tested_inputs = features(train), features(tested)
    mean = float(train.targets.mean())
    found = []
    for seed in followed(range(trees.seeds), "trees"):
        found.append(_answers(train_trees(inputs, train.targets, schema.kind, trees, seed), tested_inputs, schema.kind))
    answers = {f"trees {seed}": one for seed, one in enumerate(found)} | {"trees mean": np.mean(found, axis=0)}
    results = {name: evaluate(answer, tested.targets, tested.index, schema, mean) for name, answer in answers.items()}
    metrics = {name: result.figures.pop("metrics") for name, result in results.items()}
    report = {
        "metrics": metrics,
        **results["trees mean"].figures,
        "trained_on": len(train),
        "overlap": overlap,
        "trees": trees,
        "data": data.describe(),
        "test": other,
        "versions": versions(),
    }
    tested_as = "held_out" if other.table is None else "other"
    folder = Path(options.output or f"runs/{Path(options.config).stem}/baseline_{tested_as}")
    write_json(folder / "metrics.json", report)
    ids = [str(name) for name in tested.series.ids[tested.index]]
    write_predictions(folder / "predictions.csv", ids, answers["trees mean"], schema)
    if overlap.met:
        say(f"note: {overlap}")
    table(metrics, f"{len(tested)} samples; trained on {len(train)}").print()
    say(folder / "metrics.json")


def _options(arguments: list[str]) -> Any:
    """Parsed options with ``data``, ``trees`` and ``test`` built; the configuration gives the defaults of ``data``."""
    parser = ArgumentParser(
        prog="ccnn baseline", allow_abbrev=False, description="gradient-boosted trees on statistics of each variable"
    )
    parser.add_argument("config", help="packaged configuration or YAML file whose data section gives the defaults")
    parser.add_class_arguments(SeriesTables, "data", skip={"evaluate"}, instantiate=True)
    parser.add_class_arguments(Trees, "trees")
    parser.add_class_arguments(OtherTables, "test")
    text = "go on where tested series were trained on, and count them in the report; else that is refused"
    parser.add_argument("--allow_overlap", type=bool, default=False, help=text)
    parser.add_argument(
        "--output", type=str | None, help="folder of the results (default: inside runs/<configuration>)"
    )
    if arguments and not arguments[0].startswith("-"):
        arguments = [config_path(arguments[0]), *arguments[1:]]
        section = read_config(Path(arguments[0])).get("data") or {}
        parser.set_defaults({f"data.{name}": value for name, value in section.items() if name != "evaluate"})
    options = parser.instantiate(parser.parse_args(join_lists(arguments, parser)))
    require(options.trees.seeds >= 1, "trees.seeds", "be at least 1", options.trees.seeds)
    return options


def _parts(data: SeriesTables, other: OtherTables, allowed: bool) -> tuple[Samples, Samples, Overlap]:
    """Samples to train on and to test on. Trees stop at a set number of steps: they train on the validation part too.

    Raises:
        ValueError: tested series are trained on, and that is not allowed.
    """
    keys = np.concatenate([data.keys(part) for part in ("train", "validation")]).view(np.int64)
    rows = np.sort(np.concatenate([data.indices(part) for part in ("train", "validation")]))
    if other.table is None:
        # What a split of its own leaves in both parts is there twice: that is counted, as for the network.
        overlap = TrainedOn("series", keys, keys[:0], keys[:0]).overlap(data.keys("test"))
        return data.samples.take(rows), data.samples.take(data.indices("test")), overlap
    read_as = {name: getattr(data, name) for name in _READ_AS}
    elsewhere = SeriesTables(**vars(other), **read_as, evaluate="all")
    elsewhere.schema = data.schema
    elsewhere.setup("test")
    keys = np.concatenate([keys, data.keys("test").view(np.int64)])
    known = np.flatnonzero(~np.isnan(data.samples.targets))
    overlap = TrainedOn("series", keys, keys[:0], keys[:0]).overlap(elsewhere.keys("test"))
    if overlap.met and not allowed:
        rule = "be others than those to train on (test.table names other tables; --allow_overlap true counts them)"
        reject(f"the {overlap.tested} series to test on", rule, str(overlap))
    return data.samples.take(known), elsewhere.samples.take(elsewhere.indices("test")), overlap
