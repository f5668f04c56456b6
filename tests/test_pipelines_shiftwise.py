"""Shift-wise networks by ``ccnn`` on a folder of images, dense and sparse; what the reader of such folders refuses."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from pipelines_commands import refused
from test_pipelines_classification import NETWORK, QUIET

from ccnn_irregular import datasets
from ccnn_irregular._files import DamagedFileError
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.train.opened import opened
from ccnn_irregular.pipelines.train.run_folder import RunFolder
from ccnn_irregular.shiftwise import ShiftwiseConv

pytestmark = pytest.mark.usefixtures("in_tmp_path")

SMALL = [f"{NETWORK}.depths", "[1]", f"{NETWORK}.channels", "[8]", f"{NETWORK}.lengths", "[7]", f"{NETWORK}.every", "2"]


def picture(path: Path, angle: int, seed: int, size: tuple[int, int] = (16, 12)) -> None:
    """Stripes along an axis, of random phase, and noise."""
    draw = np.random.default_rng(seed)
    places = np.indices(size)[angle]
    waves = 127 + 90 * np.sin(places * 1.5 + draw.uniform(0, 6)) + draw.normal(0, 10, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(waves.clip(0, 255).astype(np.uint8)).save(path)


def pictures(root: Path, each: int = 20) -> Path:
    for number in range(each):
        picture(root / "across" / f"{number:02}.png", 0, number)
        picture(root / "along" / f"{number:02}.png", 1, 100 + number)
    return root


def test_a_folder_of_images_from_fit_to_an_exported_file(tmp_path: Path) -> None:
    root = pictures(tmp_path / "images")
    config = ["--config", "shiftwise_images", "--data.root", str(root), "--data.options", '{"size": [16, 16]}', *SMALL]
    cli.main(["fit", *config, "--trainer.max_epochs", "3", f"{NETWORK}.kept", "0.3", *QUIET])
    run = Path("runs/shiftwise_images")
    model, data = opened(RunFolder(run))
    layers = [layer for layer in model.network.modules() if isinstance(layer, ShiftwiseConv)]
    total, kept = (sum(int(count) for count in counts) for counts in zip(
        *((layer.mask.numel(), layer.mask.sum()) for layer in layers), strict=True
    ))  # fmt: skip
    assert kept == round(0.3 * total)
    for layer in layers:
        assert not layer.weight[:, ~layer.mask].any()
    assert model.network.sparsity.done > 0
    assert model.network.sparsity.steps == 3  # one batch of 28 images an epoch
    cli.main(["test", "--run_dir", str(run), *QUIET])

    other = tmp_path / "others"
    picture(other / "b.png", 0, 7)
    picture(other / "a.png", 1, 8)
    cli.main(["predict", "--run_dir", str(run), "--data.root", str(other), *QUIET])
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a.png", "b.png"]
    assert {"probability_across", "probability_along"} <= set(rows[0])

    cli.main(["export", "--run_dir", str(run), "--format", "onnx", "--output", "net.onnx"])
    data.setup("fit")
    batch = data.typical_batch()
    with torch.no_grad():
        expected = model.network(batch)
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"values": batch.values.numpy()})[0])
    assert (found - expected).norm() <= 1e-4 * expected.norm()

    # What the file tells is enough to answer as predict did.
    told = json.loads(session.get_modelmeta().custom_metadata_map["values"])
    assert (told["channels"], told["range"]) == (["red", "green", "blue"], [0, 1])
    assert told["made of an image by"] == (
        "exif_transpose, convert('RGB'), Pillow's resize to 16 x 16 (width x height), BILINEAR, 8 bits / 255"
    )
    upright = Image.open(other / "b.png").convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    values = np.asarray(upright, np.float32).transpose(2, 0, 1)[None] / 255
    chances = torch.from_numpy(session.run(None, {"values": values})[0]).softmax(1)[0]
    assert float(chances[0]) == pytest.approx(float(rows[1]["probability_across"]), abs=1e-3)


def test_the_recipe_of_the_documents_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "own_files.md").read_text(encoding="utf-8")
    section = page.partition("## A folder of photographs")[2].partition("\n## ")[0]
    assert len(section.strip().splitlines()) <= 10
    pictures(Path("FOLDER"), 10)
    picture(Path("NEW/a.png"), 1, 8)
    for line in section.partition("```sh\n")[2].partition("```")[0].splitlines():
        words = shlex.split(line)
        cli.main([*words[1:], *QUIET, *([*SMALL, "--trainer.max_epochs", "1"] if words[1] == "fit" else [])])
    with Path("answers.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["a.png"]


def test_images_keep_their_sizes_names_and_colours(tmp_path: Path) -> None:
    picture(tmp_path / "b" / "x.png", 0, 0, (5, 4))
    colours = np.random.default_rng(0).integers(0, 256, (3, 7, 3)).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(colours).save(tmp_path / "a" / "z.BMP")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = datasets.load("image_folder", tmp_path)
    assert (found.classes, found.labels.tolist(), found.names) == (("a", "b"), [0, 1], ("a/z.BMP", "b/x.png"))
    assert [grid.sizes for grid in found.grids] == [(3, 7), (5, 4)]
    np.testing.assert_allclose(found.volume(0).numpy(), colours.transpose(2, 0, 1) / 255, atol=1e-7)
    grey = datasets.load("image_folder", tmp_path, colour="grey", size=(2, 2))
    assert grey.stacked().values.shape == (2, 1, 2, 2)
    sideways = Image.fromarray(colours)
    exif = sideways.getexif()
    exif[274] = 6  # to be turned by a quarter when it is shown
    sideways.save(tmp_path / "a" / "z.png", exif=exif)
    assert datasets.load("image_folder", tmp_path).grids[1].sizes == (7, 3)


def test_up_to_three_damaged_files_are_named_with_a_way_out(tmp_path: Path) -> None:
    root = pictures(tmp_path / "images", 3)
    names = sorted(root.glob("*/*.png"))
    for count in (2, 5):
        for path in names[1 : 1 + count]:
            path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(DamagedFileError, match="must be a complete image") as raised:
            datasets.load("image_folder", root)
        said = str(raised.value)
        assert [path in names[1:4] for path in names if str(path) in said] == [True] * min(count, 3)
        assert ("there may be more" in said) is (count > 3)
        assert "mend such files or move them out of the data" in said
        assert raised.value.path == names[1]


def test_other_folders_are_refused_by_name(tmp_path: Path) -> None:
    def said(**options: object) -> str:
        with pytest.raises(ValueError, match=r"must") as raised:
            datasets.load("image_folder", tmp_path, **options)
        return str(raised.value)

    assert "hold folders of images" in said()
    picture(tmp_path / "train" / "cats" / "1.png", 0, 0)
    assert "only folders, such as" in said()
    picture(tmp_path / "train" / "0.png", 0, 0)
    assert "among ('cats',), got ['train']" in said(classes=["cats"])
    picture(tmp_path / "loose.png", 0, 0)
    assert "be in a folder of its class (cats/1.png, dogs/2.png), got loose.png" in said()
    (tmp_path / "loose.png").unlink()
    whole = (tmp_path / "train" / "0.png").read_bytes()
    (tmp_path / "train" / "0.png").write_bytes(whole[: len(whole) // 2])
    assert "0.png must be a complete image, got a damaged one" in said()
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "train" / "0.png")
    assert "have 8 bits a channel, got mode I;16" in said()
    assert "size must be pixels along y and x" in said(size=[3])


def test_what_the_network_cannot_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    config = [
        "--config",
        "shiftwise_mnist",
        "--data.dataset",
        "simulated_shapes",
        "--data.root",
        "null",
        "--data.count",
        "200",
    ]
    wrong = [f"{NETWORK}.axes", "1", f"{NETWORK}.classes", "5", "--trainer.max_epochs", "1", *QUIET]
    assert "network must read samples on a grid of 1 axes" in refused(capsys, "fit", *config, *wrong)
