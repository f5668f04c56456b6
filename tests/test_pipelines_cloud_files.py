"""``ccnn --config clouds`` on files in real formats: one run, tested and applied to files that training never saw."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import plyfile
import pypcd4
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED, LabelBatch
from ccnn_irregular.pipelines.tasks.clouds.data import CloudFiles
from ccnn_irregular.pipelines.tasks.clouds.labels import Labels, PointClasses, chosen_classes
from ccnn_irregular.pipelines.tasks.clouds.pieces import measures, pieces
from ccnn_irregular.pipelines.tasks.clouds.reading import Read
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint

SMALL = [
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "3"),
    *("--data.discs", "16", "--model.schedule.learning_rate", "0.01"),
    *("--model.network.init_args.channels", "[8, 16]", "--model.network.init_args.kernel.hidden", "8"),
]
GROUND, BUILDING, NEVER = 2, 6, 0


def scene(seed: int, count: int = 700) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """A slope of 40 m x 30 m with flat roofs 6 m above it, in UTM metres to the centimetre; ASPRS codes."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 40, count), rng.uniform(0, 30, count)
    roof = (np.abs(x - rng.uniform(10, 30)) < 7) & (np.abs(y - rng.uniform(8, 22)) < 6)
    z = 0.1 * x + np.where(roof, 6.0, 0.0) + 0.05 * rng.standard_normal(count)
    places = np.round(np.stack([x, y, z], 1), 2) + np.array([512_740.0, 5_403_540.0, 300.0])
    return places, np.where(roof, BUILDING, GROUND).astype(np.uint8)


def write_las(path: Path, places: NDArray[np.float64], codes: NDArray[np.uint8]) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.01] * 3, [512_000.0, 5_403_000.0, 0.0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = places.T
    las.classification = codes
    las.intensity = np.where(codes == BUILDING, 900, 300).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    las.write(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in ``run``, trained on five tiles in ``tiles``."""
    folder = tmp_path_factory.mktemp("clouds")
    for number in range(5):
        places, codes = scene(number)
        codes[:5] = NEVER
        write_las(folder / "tiles" / f"tile_{number}.laz", places, codes)
    cli.main(
        ["fit", "--config", "clouds", "--data.root", str(folder / "tiles"), "--run_dir", str(folder / "run"), *SMALL]
    )
    return folder


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def predicted(trained: Path, root: str, *more: str) -> None:
    quiet = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    cli.main(["predict", "--run_dir", str(trained / "run"), "--data.root", root, "--output", "out", *quiet, *more])


# ------------------------------------------------------------------------------------------------------ end to end


def test_what_the_files_tell_is_printed_with_its_option_and_kept(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run into another folder, stopped before its first epoch."""
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "clouds", "--data.root", str(trained / "tiles"), "--trainer.max_epochs", "0"])
    printed = capsys.readouterr().out
    for option in ("in_channels 10", "classes 2", "spacing "):
        assert option in printed
    saved = read_checkpoint(trained / "run" / "best.ckpt")
    read = Read.from_state(saved["CloudFiles"])
    assert read.classes == PointClasses("classification", ("2", "6"), ("0",), False)
    assert read.fields == ("intensity",)  # of LAS all have returns, and no tile more than one
    # 700 points on 1,200 square metres.
    assert 1.0 < read.spacing < 1.7
    assert read.radius == pytest.approx(20 * read.spacing)
    arguments = saved["hyper_parameters"]["network"]["init_args"]
    assert (arguments["in_channels"], arguments["classes"]) == (10, 2)
    assert arguments["spacing"] == pytest.approx(2 * read.spacing)


def test_a_whole_new_source_is_tested(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places, codes = scene(77)
    codes[:9] = NEVER
    write_las(Path("new/a.las"), places, codes)
    quiet = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    cli.main(["test", "--run_dir", str(trained / "run"), "--data.root", "new", "--data.evaluate", "all", *quiet])
    report = json.loads((trained / "run" / "test_all" / "metrics.json").read_text())
    assert report["labelled points"] == 691
    assert report["accuracy"] > 0.9
    assert set(report["iou"]["network"]) == {"ground (2)", "building (6)"}
    assert "most common class" in capsys.readouterr().out
    predicted(trained, "new")
    guess = np.asarray(laspy.read("out/a.las")["prediction"])
    assert float((guess == codes)[9:].mean()) == pytest.approx(report["accuracy"])


def test_every_point_is_answered_in_the_format_of_its_file(trained: Path) -> None:
    """One cloud in each format, never seen, without labels: coordinates as they were, the same answers."""
    places, codes = scene(50, 400)
    level = np.where(codes == BUILDING, 900, 300)
    write_las(Path("new/a.laz"), places, codes)
    unlabelled = laspy.read("new/a.laz")
    unlabelled.classification[:] = NEVER
    unlabelled.write("new/a.laz")
    table = np.empty(len(places), [("x", "f8"), ("y", "f8"), ("z", "f8"), ("intensity", "u2")])
    table["x"], table["y"], table["z"] = places.T
    table["intensity"] = level
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write("new/b.ply")
    kinds = [table.dtype[name].type for name in table.dtype.names]
    cloud = pypcd4.PointCloud.from_points([table[name] for name in table.dtype.names], table.dtype.names, kinds)
    cloud.save(Path("new/c.pcd"), pypcd4.Encoding.BINARY_COMPRESSED)
    lines = [f"{x:.2f},{y:.2f},{z:.2f},{one}" for (x, y, z), one in zip(places, level, strict=True)]
    Path("new/d.csv").write_text("\n".join(["x,y,z,intensity", *lines]) + "\n")
    Path("new/deeper").mkdir()
    np.savez("new/deeper/e.npz", xyz=places, intensity=level)
    predicted(trained, "new")
    las, ply = laspy.read("out/a.laz"), plyfile.PlyData.read("out/b.ply")["vertex"]
    pcd = pypcd4.PointCloud.from_path("out/c.pcd").pc_data
    text = Path("out/d.csv").read_text().splitlines()
    with np.load("out/deeper/e.npz") as content:
        npz = dict(content)
    assert [line.rsplit(",", 2)[0] for line in text[1:]] == lines
    for axis, column in zip("xyz", places.T, strict=True):
        assert np.array_equal(ply[axis], column)
        assert np.array_equal(pcd[axis], column)
    assert np.array_equal(laspy.read("new/a.laz").xyz, las.xyz)
    assert np.array_equal(npz["xyz"], places)
    csv = np.array([line.split(",")[-2:] for line in text[1:]], np.float64)
    answers = [np.asarray(las["prediction"]), ply["prediction"], pcd["prediction"], csv[:, 0], npz["prediction"]]
    for answer in answers:
        assert set(answer.tolist()) <= {GROUND, BUILDING}
        np.testing.assert_array_equal(answer, answers[0])
    np.testing.assert_allclose(csv[:, 1], np.asarray(las["probability"]), atol=1e-3)
    assert float((answers[0] == codes).mean()) > 0.9
    record = json.loads(Path("out/a.laz.json").read_text())
    assert record["checkpoint"] == str(trained / "run" / "best.ckpt")


def test_files_that_are_no_clouds_and_empty_ones_stop_nothing(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_las(Path("new/a.las"), *scene(53, 300))
    laspy.LasData(laspy.LasHeader(point_format=6, version="1.4")).write("new/sea.las")
    Path("new/README.txt").write_text("Flown in May.\n")
    Path("new/.DS_Store").write_bytes(b"\0")
    predicted(trained, "new")
    assert "left out of new: .DS_Store, README.txt\n" in capsys.readouterr().out
    assert len(laspy.read("out/a.las")["prediction"]) == 300
    assert list(laspy.read("out/sea.las").point_format.extra_dimension_names) == ["prediction", "probability"]
    test = ["test", "--run_dir", str(trained / "run"), "--data.root", "new", "--data.evaluate", "all", *SMALL[:4]]
    cli.main(test)
    assert "left out of new: .DS_Store, README.txt, sea.las (no points)\n" in capsys.readouterr().out
    Path("new/a.las").unlink()
    with pytest.raises(SystemExit):
        cli.main(test)
    assert "hold a cloud with a point that has a place" in capsys.readouterr().err


def test_outputs_are_written_again_and_nothing_else_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places, codes = scene(51, 300)
    write_las(Path("new/a.las"), places, codes)
    predicted(trained, "new/a.las")
    predicted(trained, "new/a.las")
    before = Path("new/a.las").read_bytes()
    for root, output, said in (
        ("new", "new", "another folder than that of the input"),
        ("new", "other", "no a.las.json"),
    ):
        Path("other").mkdir(exist_ok=True)
        Path("other/a.las").write_bytes(b"mine")
        capsys.readouterr()
        with pytest.raises(SystemExit):
            cli.main(["predict", "--run_dir", str(trained / "run"), "--data.root", root, "--output", output])
        assert said in capsys.readouterr().err
    assert Path("new/a.las").read_bytes() == before
    assert Path("other/a.las").read_bytes() == b"mine"
    with pytest.raises(SystemExit):  # the output of a run is no input without another name for the fields
        cli.main(["predict", "--run_dir", str(trained / "run"), "--data.root", "out", "--output", "again"])
    assert "names that are free, got prediction, probability" in capsys.readouterr().err


def test_points_that_were_trained_on_are_no_test(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "tiles", "renamed")
    with pytest.raises(SystemExit):
        cli.main(["test", "--run_dir", str(trained / "run"), "--data.root", "renamed", "--data.evaluate", "all"])
    assert "that were trained on" in capsys.readouterr().err


def test_a_label_that_training_never_saw_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places, codes = scene(52, 300)
    codes[:20] = 9
    write_las(Path("new/a.las"), places, codes)
    command = ["test", "--run_dir", str(trained / "run"), "--data.root", "new", "--data.evaluate", "all"]
    with pytest.raises(SystemExit):
        cli.main(command)
    said = capsys.readouterr().err
    assert "ground (2), building (6)" in said
    assert "got water (9)" in said
    assert "--data.ignore 0 9" in said
    cli.main([*command, "--data.ignore", "0", "water", "--trainer.enable_progress_bar", "false"])
    assert json.loads((trained / "run" / "test_all" / "metrics.json").read_text())["labelled points"] == 280


# ------------------------------------------------------------------------------------------------ parts and pieces


def read(root: str, **options: Any) -> CloudFiles:
    data = CloudFiles(root, **{"terrain": False, "fields": ["intensity"]} | options)
    data.setup("fit")
    return data


def test_files_are_in_one_part_each_and_one_file_is_cut_into_strips() -> None:
    for number in range(6):
        places, codes = scene(number, 200)
        write_las(Path(f"many/{number}.las"), places, codes)
    by_file = read("many", validation=0.2, test=0.3)
    names = {part: {cloud.name for cloud in clouds} for part, clouds in by_file.parts.items()}
    assert [len(names[part]) for part in ("train", "validation", "test")] == [3, 1, 2]
    assert len(set.union(*names.values())) == 6
    one = read("many/0.las", validation=0.2, test=0.3)
    spans = [one.parts[part][0].places[:, 0] for part in ("train", "validation", "test")]
    assert spans[0].max() < spans[1].min() <= spans[1].max() < spans[2].min()
    assert [len(span) for span in spans] == [100, 40, 60]


@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 400),
    width=st.floats(0, 400),
    height=st.floats(0, 400),
    radius=st.floats(2, 60),
)
@settings(max_examples=60, deadline=None)
def test_pieces_answer_each_point_once_with_all_its_neighbours(
    seed: int, count: int, width: float, height: float, radius: float
) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (count, 3)) * [width, height, 5]
    answered = np.zeros(count, int)
    near = cKDTree(places[:, :2]).query_ball_point(places[:, :2], 0.99 * radius)
    for piece in pieces(places, radius):
        rows = piece.read[piece.answered]
        answered[rows] += 1
        assert set(np.concatenate([near[row] for row in rows])) <= set(piece.read)
        assert np.ptp(places[piece.read, :2], axis=0).max() <= 8.01 * radius
    assert (answered == 1).all()


def test_what_is_held_at_once_does_not_grow_with_the_tile() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for side in (3, 6):  # one density, four times the area
        places = rng.uniform(0, 100 * side, (4000 * side**2, 3))
        sizes.append(max(len(piece.read) for piece in pieces(places, 10.0)))
    assert sizes[1] < 1.3 * sizes[0]


def test_weights_are_areas_whatever_lies_farther_away() -> None:
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(0, 50, (5000, 2)), np.zeros(5000)])
    weights = measures(places, "surface")
    inner = (np.abs(places[:, :2] - 25) < 20).all(1)
    assert weights[inner].sum() == pytest.approx(1600, rel=0.03)
    half = places[:, 0] < 40
    deep = places[half, 0] < 35
    np.testing.assert_array_equal(measures(places[half], "surface")[deep], weights[half][deep])
    twice = measures(np.concatenate([places, places]), "surface")
    np.testing.assert_allclose(twice[:5000] + twice[5000:], weights)
    assert measures(places, "even").sum() == pytest.approx(weights.sum())


def test_answers_do_not_depend_on_the_order_of_the_file(trained: Path) -> None:
    places, codes = scene(60, 500)
    order = np.random.default_rng(1).permutation(500)
    write_las(Path("new/a.las"), places, codes)
    write_las(Path("new/b.las"), places[order], codes[order])
    predicted(trained, "new")
    first, second = (laspy.read(f"out/{name}.las") for name in "ab")
    np.testing.assert_allclose(np.asarray(second["probability"]), np.asarray(first["probability"])[order], atol=1e-4)


def is_disc(places: NDArray[np.float64], middle: NDArray[np.float64], radius: float, disc: NDArray[np.float64]) -> bool:
    """Whether a disc holds the points of a tile within the radius of a place, and no others."""
    near = places[np.hypot(*(places - middle)[:, :2].T) <= radius] - middle
    return near.shape == disc.shape and np.allclose(near[np.lexsort(near.T)], disc[np.lexsort(disc.T)], atol=1e-9)


def test_discs_hold_all_points_around_a_labelled_one() -> None:
    places, codes = scene(3, 500)
    codes[100:] = NEVER
    write_las(Path("tile.las"), places, codes)
    data = read("tile.las", radius=6.0, discs=8)
    batch = data.training_batch(torch.arange(8), 0)
    (cloud,) = data.parts["train"]
    for begin, end in zip(batch.domain.splits[:-1].tolist(), batch.domain.splits[1:].tolist(), strict=True):
        disc = batch.domain.coordinates[begin:end].numpy()
        (middle,) = np.flatnonzero((disc == 0).all(1))
        assert int(batch.labels[begin + middle]) != UNLABELLED
        away = cloud.places[None] - disc[:, None]  # where the middle would be, were a point of the disc this one
        matches = np.flatnonzero([is_disc(cloud.places, place, 6.0, disc) for place in away[0]])
        assert len(matches) == 1
        assert np.hypot(*disc[:, :2].T).max() <= 6.0
    assert len(batch) == int((batch.labels != UNLABELLED).sum()) < batch.domain.count


def test_a_batch_counts_its_labelled_points() -> None:
    from ccnn_irregular.domains import Points

    labels = torch.tensor([0, UNLABELLED, 1])
    assert len(LabelBatch(torch.zeros(3, 1), Points(torch.zeros(3, 3, dtype=torch.float64)), labels)) == 2


# ----------------------------------------------------------------------------------------------------------- labels


def test_classes_are_told_by_codes_words_and_names() -> None:
    counts = {"0": 5, "2": 100, "6": 50, "9": 3}
    assert chosen_classes("classification", counts, None, None).codes == ("2", "6", "9")
    typed = chosen_classes("classification", counts, ["ground", 6], None)
    assert typed.codes == ("2", "6")
    labels = Labels.of(np.array([0, 9, 6, 2], np.uint8))
    assert typed.numbers(labels, "a.las").tolist() == [UNLABELLED, UNLABELLED, 1, 0]
    assert chosen_classes("label", {"wall": 1, "door": 2, "roof": 1, "": 7}, None, ["door"]).codes == ("roof", "wall")
    with pytest.raises(ValueError, match=r"two classes at least .* got never classified \(0\): 5, ground \(2\): 100"):
        chosen_classes("classification", counts, None, [0, "building", 9])
    with pytest.raises(ValueError, match=r"be labels that points have .* got rail|got 10"):
        chosen_classes("classification", counts, ["ground", "rail"], None)


def test_labels_come_back_as_the_file_has_them() -> None:
    codes = PointClasses("classification", ("2", "6"), (), False)
    number = np.array([1, 0, -1])
    assert codes.values(number, words=True).tolist() == [6, 2, -1]
    words = PointClasses("label", ("door", "wall"), (), False)
    assert words.values(number, words=True).tolist() == ["wall", "door", ""]
    assert words.values(number, words=False).tolist() == [1, 0, -1]
    assert Labels.of(np.array([True, False])).codes == ("0", "1")
    assert Labels.of(np.array([2.0, np.nan, 0.5])).codes == ("0.5", "2", "")


def test_organised_points_without_a_place_have_no_answer(trained: Path) -> None:
    places, codes = scene(70, 300)
    places[[3, 200]] = np.nan
    np.savez("a.npz", xyz=places, intensity=np.where(codes == BUILDING, 900, 300))
    predicted(trained, "a.npz")
    with np.load("out/a.npz") as content:
        assert np.flatnonzero(content["prediction"] == -1).tolist() == [3, 200]
        assert np.flatnonzero(np.isnan(content["probability"])).tolist() == [3, 200]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fields": ["height"]}, "hold a field 'height'"),
        ({"label": "kind"}, "hold a field 'kind'"),
        ({"split": "file"}, "be 'area' for fewer than 3 files"),
        ({"classes": [2, 17]}, r"be labels that points have .* got 17"),
        ({"fields": [], "terrain": False}, "points need a value"),
        ({"validation": 0.6, "test": 0.5}, "be below 1"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], said: str) -> None:
    places, codes = scene(1, 100)
    write_las(Path("a.las"), places, codes)
    with pytest.raises(ValueError, match=said):
        read("a.las", **options)


def test_labels_of_a_gzipped_table_in_words() -> None:
    places, codes = scene(1, 100)
    lines = [
        f"{x} {y} {z} {'roof' if one == BUILDING else 'soil'}" for (x, y, z), one in zip(places, codes, strict=True)
    ]
    Path("a.csv.gz").write_bytes(gzip.compress("\n".join(["x y z label", *lines]).encode()))
    data = read("a.csv.gz", terrain=True, fields=None, test=0.3)
    assert data.reading.classes.codes == ("roof", "soil")
    assert data.sizes() == {"classes": 2, "in_channels": 9}


def test_the_recipe_of_the_documents_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "own_files.md").read_text(encoding="utf-8")
    section = page.partition("## Clouds")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in section.partition("```sh\n")[2].partition("```")[0].splitlines()]
    for number in range(4):
        write_las(Path(f"tiles/{number}.laz"), *scene(number, 200))
    write_las(Path("new/a.las"), *scene(9, 200))
    for words in commands:
        if words[0] == "ccnn":
            short = [*SMALL, "--trainer.max_epochs", "1"] if words[1] == "fit" else SMALL[:4]
            cli.main([*words[1:], *short])
    assert len(laspy.read("labelled/a.las")["prediction"]) == 200
