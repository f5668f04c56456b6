"""Real files as their owners have them: fit, then every row of a file that training never saw, under its own name.

A few steps each, for what comes out and where it stands; how good it is stands in docs/results.md.
"""

from __future__ import annotations

from pathlib import Path

import laspy
import nibabel
import numpy as np
import pandas as pd
import pytest
from test_datasets_stations import ghcn_table

from ccnn_irregular.pipelines import cli

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:ccnn_irregular"),
]

SHORT = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run_dir", "run"]
NETWORK = "--model.network.init_args."


def linked(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def test_hippocampus_by_a_folder(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shared_data / "medical" / "hippocampus"
    if not root.is_dir():
        pytest.skip(f"no hippocampus volumes: {root} is not a folder")
    monkeypatch.chdir(tmp_path)
    names = sorted(path.name for path in (root / "images").iterdir())[:9]
    for number, name in enumerate(names):
        for kind in ("images", "labels"):
            linked(root / kind / name, Path("new" if number >= 6 else "old", kind, name))
    words = [
        "--data.root",
        "old",
        "--data.validation",
        "0.2",
        f"{NETWORK}channels",
        "[4,8]",
        f"{NETWORK}blocks",
        "[0,0]",
    ]
    cli.main(
        ["fit", "--config", "scans", *words, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", *SHORT]
    )
    cli.main(["predict", "--predict.input", "new/images", "--output", "labels", *SHORT])
    assert sorted(path.name for path in Path("labels").glob("*.nii.gz")) == names[6:]
    for name in names[6:]:
        answer, image = (nibabel.load(path) for path in (f"labels/{name}", root / "images" / name))
        assert answer.shape == image.shape
        np.testing.assert_allclose(answer.affine, image.affine, atol=1e-6)
        assert set(np.unique(np.asarray(answer.dataobj))) <= {0, 1, 2}
    cli.main(["test", "--data.root", "new", "--data.evaluate", "all", *SHORT])
    dice = pd.read_csv("run/test_all/dice.csv")
    assert dice["volume"].tolist() == [name.removesuffix(".nii.gz") for name in names[6:]]
    assert list(dice.columns[2:]) == ["label 1", "label 2"]


def test_an_airborne_tile_as_laz(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_data / "point_clouds" / "samp11_points_ground.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    monkeypatch.chdir(tmp_path)
    with np.load(path) as content:
        places, ground = content["xyz"].astype(np.float64), content["is_ground"]
    order = np.argsort(places[:, 1])
    for name, rows in (("old/south.laz", order[:2000]), ("new/north.laz", order[-1500:])):
        header = laspy.LasHeader(point_format=1, version="1.4")
        header.scales, header.offsets = [0.01] * 3, [512_000.0, 5_403_000.0, 0.0]
        las = laspy.LasData(header)
        las.x, las.y, las.z = np.round(places[rows], 2).T
        las.classification = np.where(ground[rows], 2, 1).astype(np.uint8)
        Path(name).parent.mkdir()
        las.write(name)
    small = [
        "--trainer.max_epochs",
        "1",
        "--data.discs",
        "8",
        f"{NETWORK}channels",
        "[8,16]",
        f"{NETWORK}kernel.hidden",
        "8",
    ]
    cli.main(["fit", "--config", "clouds", "--data.root", "old", *small, *SHORT])
    cli.main(["predict", "--data.root", "new", "--output", "labelled", *SHORT])
    given, answer = laspy.read("new/north.laz"), laspy.read("labelled/north.laz")
    for name in given.point_format.dimension_names:
        np.testing.assert_array_equal(np.asarray(answer[name]), np.asarray(given[name]))
    assert set(np.asarray(answer["prediction"]).tolist()) <= {1, 2}
    probability = np.asarray(answer["probability"])
    assert ((probability >= 0.5) & (probability <= 1)).all()


def test_stations_of_texas_as_a_csv(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, _ = ghcn_table(shared_data, tmp_path, 2010)
    monkeypatch.chdir(tmp_path)
    names = sorted(frame["station"].unique())
    new = frame["station"].isin(names[::5])
    frame[~new].to_csv("old.csv", index=False)
    frame[new].to_csv("new.csv", index=False)
    small = [
        "--trainer.max_epochs",
        "1",
        "--data.draws",
        "8",
        "--data.watched_fields",
        "2",
        "--model.sizes.latent_step",
        "0",
    ]
    cli.main(["fit", "--config", "stations", "--data.table", "old.csv", *small, *SHORT])
    cli.main(["predict", "--predict.table", "new.csv", "--output", "answers.csv", *SHORT])
    texts = {"dtype": str, "keep_default_na": False}
    given, answers = (pd.read_csv(name, **texts) for name in ("new.csv", "answers.csv"))
    pd.testing.assert_frame_equal(answers[given.columns.tolist()], given)  # all rows, ids as they were
    columns = [answers[f"temperature_{end}"] for end in ("estimate", "std")]
    estimates, deviations = (pd.to_numeric(column.where(column != "")) for column in columns)
    observed = given["time"].isin(set(frame.loc[~new & frame["temperature"].notna(), "time"].astype(str)))
    assert observed.mean() > 0.5
    assert (np.isfinite(estimates) == observed).all()
    assert ((deviations > 0) == observed).all()
    error = estimates - pd.to_numeric(given["temperature"].where(given["temperature"] != ""))
    assert float(np.sqrt((error**2).mean())) < 3.0  # degrees, at stations that nobody has seen
