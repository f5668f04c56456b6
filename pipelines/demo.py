"""``ccnn demo``: simulate a cohort, train on it, test on stays it never saw, plot. No real patient is involved."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from ccnn_irregular._checks import require
from ccnn_irregular.datasets import simulated_icu
from ccnn_irregular.pipelines.cli import config_path
from ccnn_irregular.pipelines.train import run as training
from ccnn_irregular.pipelines.train.run_folder import put_aside

__all__ = ["run"]

CONFIGURATION = "simulated_icu"
_OWN_DATA = """
For stays of your own, in PhysioNet 2012's layout (FOLDER/set-a/RECORD.txt and FOLDER/Outcomes-a.txt), type
  ccnn fit      --config physionet2012 --data.table FOLDER --data.source_options.sets "[a]"   # --data.test 0.15 is kept
  ccnn test     --config physionet2012                        # scores with intervals, and figures
  ccnn baseline physionet2012 --data.table FOLDER --data.source_options.sets "[a]"            # boosted trees beside it
  ccnn predict  --config physionet2012                        # a risk for every stay, as CSV

For a table of your own (id, time, variable, value, or a column for each variable; CSV or Parquet) and its labels, type
  ccnn inspect  TABLE.csv                                     # what it holds, and what looks wrong
  ccnn fit      --config series --data.table TABLE.csv --data.labels LABELS.csv --run_dir runs/mine
  ccnn test     --run_dir runs/mine                           # scores with intervals
  ccnn predict  --run_dir runs/mine --data.table NEW.csv      # an answer for every id, as CSV"""


def run(arguments: list[str]) -> None:
    """Everything under one folder; what an earlier call left there is set aside."""
    parser = ArgumentParser(
        prog="ccnn demo", allow_abbrev=False, description="simulate ICU stays, train, test on held-out ones and plot"
    )
    parser.add_argument("--folder", type=str, default=f"runs/{CONFIGURATION}", help="where data and results go")
    parser.add_argument("--stays", type=int, default=2000, help="number of simulated stays")
    parser.add_argument("--seed", type=int, default=0, help="of the simulator and of the training")
    options = parser.parse_args(arguments)
    folder = Path(options.folder)
    cohort = folder / "simulated_cohort"
    if folder.exists():
        require(cohort.is_dir(), "folder", "be that of an earlier demo, or not be there", folder)
        print(f"the earlier demo is now {put_aside(folder)}")
    print(f"writing {options.stays} simulated stays to {cohort}")
    simulated_icu.write(cohort, stays=options.stays, seed=options.seed)
    config = ["--config", config_path(CONFIGURATION), "--data.table", str(cohort), "--run_dir", str(folder / "run")]
    training.run(["fit", *config, "--seed_everything", str(options.seed)])
    training.run(["test", *config])
    print(_OWN_DATA)
