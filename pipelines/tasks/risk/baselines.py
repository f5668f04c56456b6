"""``ccnn baseline``: gradient-boosted trees on hand-made statistics, on the split and with the metrics of the network.

Eight statistics of each series: mean, minimum, maximum, standard deviation, first and last value, number of values,
and the hour of the last one; nan where a series was never observed (the count is then 0). With the five statics that
makes 8 x 37 + 5 = 301 features, which scikit-learn's HistGradientBoostingClassifier takes with their gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.cli import config_path
from ccnn_irregular.pipelines.tasks.risk.evaluation import Predictions, evaluate, table, write_predictions
from ccnn_irregular.pipelines.train.arguments import join_lists
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.reports import versions, write_json
from ccnn_irregular.pipelines.train.trained_on import Overlap, TrainedOn

if TYPE_CHECKING:
    from ccnn_irregular.datasets.physionet2012 import Cohort
    from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule

__all__ = ["STATISTICS", "OtherStays", "Trees", "features", "run", "train_trees"]


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
class OtherStays:
    """Stays of another folder to test on, all of them; the trees are then trained on every stay of data.root.

    Attributes:
        root: that folder; without one the held-out stays of data.root are tested.
        sets: its sets.
    """

    root: str | None = None
    sets: tuple[str, ...] = ("a",)


STATISTICS = ("mean", "min", "max", "std", "first", "last", "count", "hour_of_last")


def features(cohort: Cohort) -> NDArray[np.float32]:
    """``(B, 8 * 37 + 5)``: the statistics of each series (all means, then all minima, ...), then the statics."""
    stays, series = len(cohort), cohort.values.shape[1]
    rows, columns = np.nonzero(~np.isnan(cohort.values))
    stay_of_row = np.repeat(np.arange(stays), np.diff(cohort.splits))
    # A cell is one series of one stay. A stable sort by cell keeps the order of time inside it.
    cells = stay_of_row[rows] * series + columns
    order = np.argsort(cells, kind="stable")
    observed = cohort.values[rows, columns][order].astype(np.float64)
    hours = cohort.times[rows][order]
    table = np.full((len(STATISTICS), stays * series), np.nan)
    table[STATISTICS.index("count")] = 0
    present, starts = np.unique(cells[order], return_index=True)
    if len(present):
        table[:, present] = _cell_statistics(observed, hours, starts)
    by_stay = table.reshape(len(STATISTICS), stays, series).transpose(1, 0, 2).reshape(stays, -1)
    return np.concatenate([by_stay, cohort.statics], axis=1).astype(np.float32)


def _cell_statistics(
    observed: NDArray[np.float64], hours: NDArray[np.float64], starts: NDArray[np.int64]
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
        "hour_of_last": hours[lasts],
    }
    return np.stack([statistics[name] for name in STATISTICS])


def train_trees(inputs: NDArray[np.float32], labels: NDArray[np.int64], trees: Trees, seed: int) -> Any:
    """A fitted scikit-learn classifier."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    classifier = HistGradientBoostingClassifier(
        learning_rate=trees.learning_rate,
        max_iter=trees.iterations,
        max_leaf_nodes=trees.leaf_nodes,
        l2_regularization=trees.l2,
        max_features=trees.columns_at_split,
        early_stopping=False,
        random_state=seed,
    )
    return classifier.fit(inputs, labels)


def run(arguments: list[str]) -> None:
    """Train one classifier a seed, evaluate each and their mean, print the table, write ``metrics.json``."""
    from ccnn_irregular.pipelines.tasks.risk.data import ICUDataModule
    from ccnn_irregular.pipelines.train.progress import followed

    options = _options(arguments, ICUDataModule)
    data, trees, other = options.data, options.trees, options.test
    data.setup("fit")
    train, tested = _parts(data, other)
    # What a split of its own leaves in both parts is there twice: that is counted, as for the network.
    overlap = _overlap(train, tested, allowed=options.allow_overlap or other.root is None)
    inputs, tested_inputs = features(train), features(tested)
    labels, outcomes = _deaths(train), _deaths(tested)
    results, risks = {}, []
    for seed in followed(range(trees.seeds), "trees"):
        classifier = train_trees(inputs, labels, trees, seed)
        risks.append(classifier.predict_proba(tested_inputs)[:, 1])
        results[f"trees {seed}"] = evaluate(outcomes, risks[-1])
    mean = np.mean(risks, axis=0)
    results["trees mean"] = evaluate(outcomes, mean)
    report = {
        "metrics": results,
        "n": len(tested),
        "deaths": int(outcomes.sum()),
        "trained_on": len(train),
        "overlap": overlap,
        "trees": trees,
        "data": data.describe(),
        "test": other,
        "versions": versions(),
    }
    tested_as = f"{Path(other.root).name}_{'+'.join(other.sets)}_all" if other.root else "held_out"
    folder = Path(options.output or f"runs/{Path(options.config).stem}/baseline_{tested_as}")
    write_json(folder / "metrics.json", report)
    write_predictions(folder / "predictions.csv", Predictions(tested.record_ids, mean, outcomes))
    if overlap.met:
        say(f"note: {overlap}")
    table(results, f"{report['n']} stays, {report['deaths']} deaths; trained on {len(train)} stays").print()
    say(folder / "metrics.json")


def _options(arguments: list[str], data_class: type[ICUDataModule]) -> Any:
    """Parsed options with ``data``, ``trees`` and ``test`` built; the configuration gives the defaults of ``data``."""
    parser = ArgumentParser(
        prog="ccnn baseline", allow_abbrev=False, description="gradient-boosted trees on statistics of each series"
    )
    parser.add_argument("config", help="packaged configuration or YAML file whose data section gives the defaults")
    parser.add_class_arguments(data_class, "data", skip={"evaluate"}, instantiate=True)
    parser.add_class_arguments(Trees, "trees")
    parser.add_class_arguments(OtherStays, "test")
    text = "go on where tested stays were trained on, and count them in the report; else that is refused"
    parser.add_argument("--allow_overlap", type=bool, default=False, help=text)
    parser.add_argument(
        "--output", type=str | None, help="folder of the results (default: inside runs/<configuration>)"
    )
    if arguments and not arguments[0].startswith("-"):
        arguments = [config_path(arguments[0]), *arguments[1:]]
        section = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8")).get("data", {})
        parser.set_defaults({f"data.{name}": value for name, value in section.items() if name != "evaluate"})
    options = parser.instantiate(parser.parse_args(join_lists(arguments, parser)))
    require(options.trees.seeds >= 1, "trees.seeds", "be at least 1", options.trees.seeds)
    return options


def _parts(data: ICUDataModule, other: OtherStays) -> tuple[Cohort, Cohort]:
    """Stays to train on and to test on. Trees stop at a set number of steps: they train on the validation stays too."""
    if other.root is None:
        split = data.split
        return data.cohort.select(np.r_[split.train, split.validation]), data.cohort.select(split.held_out)
    elsewhere = data.like(root=other.root, sets=other.sets)
    elsewhere.setup("test")
    return data.cohort, elsewhere.cohort


def _overlap(train: Cohort, tested: Cohort, *, allowed: bool) -> Overlap:
    """How many tested stays are trained on.

    Raises:
        ValueError: some are, and that is not allowed.
    """
    from ccnn_irregular.pipelines.tasks.risk.data import cohort_keys

    keys = cohort_keys(train).view(np.int64)
    none = keys[:0]
    overlap = TrainedOn("stays", keys, none, none).overlap(cohort_keys(tested))
    if overlap.met and not allowed:
        rule = "be others than those to train on (test.root names other stays; --allow_overlap true counts them)"
        reject(f"the {overlap.tested} stays to test on", rule, str(overlap))
    return overlap


def _deaths(cohort: Cohort) -> NDArray[np.int64]:
    from ccnn_irregular.pipelines.tasks.risk.data import OUTCOME

    assert cohort.outcomes is not None
    return cohort.outcomes[OUTCOME].astype(np.int64)
