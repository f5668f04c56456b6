"""What tests of commands share: running one, what it says when it is refused, and what a run has written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccnn_irregular.pipelines import cli

__all__ = ["fit", "history", "refused", "stopped", "write_config"]


def write_config(path: Path, table: Path, **changes: Any) -> str:
    """A configuration that trains a stand-in of three epochs on stays as they are simulated; its path.

    Args:
        path: of the YAML file.
        table: folder of the stays.
        changes: options of a section that replace those here, as in ``trainer={"max_epochs": 2}``.
    """
    options: dict[str, dict[str, Any]] = {
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"network": {"class_path": "pipelines_stand_in.StandIn"}, "schedule": {"learning_rate": 0.01}},
        "early_stopping": {"patience": 100},
        "data": {
            "table": str(table),
            "source": "physionet2012",
            "source_options": {"cache": False, "progress": False},
            "test": 0.25,
            "validation": 0.25,
            "batch_size": 16,
        },
    }
    merged = changes | {name: section | changes.get(name, {}) for name, section in options.items()}
    path.write_text(yaml.safe_dump(merged))
    return str(path)


def fit(config: str, run: str, *options: str) -> None:
    """Train into a run folder."""
    cli.main(["fit", "--config", config, "--run_dir", run, *options])


def stopped(status: int, config: str, run: str, *options: str) -> None:
    """Train until the command ends with this status."""
    with pytest.raises(SystemExit) as stop:
        fit(config, run, *options)
    assert stop.value.code == status


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def history(run: str) -> list[dict[str, str]]:
    """The rows of a run's history, without the seconds, which differ."""
    with Path(run, "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
