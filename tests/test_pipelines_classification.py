"""``ccnn`` on labelled series and images, end to end on simulated ones: learn, resume, test at other samplings."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pipelines_commands import history, refused
from scipy.stats import binomtest

from ccnn_irregular.datasets.samples import GriddedSamples, RaggedSeries
from ccnn_irregular.domains import Grid
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch, SampleDataModule
from ccnn_irregular.pipelines.tasks.classification.module import Classification
from ccnn_irregular.pipelines.tasks.classification.sampling import Samples
from ccnn_irregular.pipelines.tasks.classification.sizes import suited_lengths
from ccnn_irregular.pipelines.train.draws import Draws
from ccnn_irregular.pipelines.train.evaluation import wilson_interval
from ccnn_irregular.pipelines.train.registry import TASKS

pytestmark = pytest.mark.usefixtures("in_tmp_path")

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
NETWORK = "--model.network.init_args"
TINY = [f"{NETWORK}.hidden_channels", "8", f"{NETWORK}.blocks", "1", f"{NETWORK}.kernel.hidden", "4"]


def accuracies(folder: str) -> dict[str, float]:
    results = json.loads(Path(folder, "metrics.json").read_text())["results"]
    return {result["sampling"]: result["accuracy"] for result in results}


# ------------------------------------------------------------------------------------------------------ end to end


def test_strokes_are_learned_and_told_apart_with_samples_missing(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "simulated_strokes", "--data.count", "300", *QUIET]
    cli.main(["fit", *config, "--trainer.max_epochs", "6"])
    printed = capsys.readouterr().out
    assert "210 train, 45 validation, 45 test" in printed
    run = Path("runs/simulated_strokes")
    names = {path.name for path in run.iterdir()}
    kept = {"config.yaml", "data.json", "history.csv", "summary.json", "training.png"}
    assert names == kept | {"best.ckpt", "last.ckpt"}
    summary = json.loads((run / "summary.json").read_text())
    best = max(float(row["val_log_likelihood"]) for row in history("runs/simulated_strokes"))
    assert summary["best"]["val_log_likelihood"] == pytest.approx(best)

    cli.main(["test", *config, "--test.drop", "0.3", "0.5"])
    printed = capsys.readouterr().out
    found = accuracies("runs/simulated_strokes/test")
    assert list(found) == ["as trained", "30% dropped", "50% dropped"]
    # Chance is 1 / 6.
    assert min(found.values()) > 0.85
    for name, accuracy in found.items():
        assert any(name in line and f"{100 * accuracy:.2f}" in line for line in printed.splitlines())
    pictures = {path.name for path in (run / "test").glob("*.png")}
    assert pictures - {"mistakes.png"} == {"confusion.png", "samplings.png", "kernels.png"}

    # The CSV says what the JSON says; predict writes the same one.
    rows = list(csv.DictReader((run / "test" / "predictions.csv").read_text().splitlines()))
    assert sum(row["label"] == row["prediction"] for row in rows) / len(rows) == found["as trained"]
    cli.main(["predict", *config, "--data.evaluate", "test", "--output", "again.csv"])
    assert Path("again.csv").read_text() == (run / "test" / "predictions.csv").read_text()
    cli.main(["validate", *config])
    assert "val_accuracy" in capsys.readouterr().out

    # The checkpoint holds plain values only, the normalisation among them, and loads from Python.
    content = torch.load(run / "best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["drop"] == 0.5
    assert not torch.equal(content["state_dict"]["network.standardise.scale"], torch.ones(3))
    model = Classification.load_from_checkpoint(run / "best.ckpt", map_location="cpu")
    assert model.network.classes == 6


def test_a_filter_bank_trained_at_one_rate_answers_at_others() -> None:
    config = ["--config", "simulated_digits", "--data.count", "400", *QUIET]
    cli.main(["fit", *config, "--trainer.max_epochs", "8"])
    cli.main(["test", *config, "--test.rate", "4000", "6400"])
    found = accuracies("runs/simulated_digits/test")
    assert list(found) == ["as trained", "rate 4000", "rate 6400"]
    # Chance is 1 / 10. All of the sound lies below 1,500 Hz: nothing is lost at 4 kHz.
    assert found["as trained"] > 0.5
    for accuracy in found.values():
        assert accuracy == pytest.approx(found["as trained"], abs=0.05)


def test_images_at_other_resolutions() -> None:
    config = ["--config", "simulated_shapes", "--data.count", "300", *QUIET]
    cli.main(["fit", *config, "--trainer.max_epochs", "6"])
    cli.main(["test", *config, "--test.image_size", "14", "14", "42x42", "28x56"])
    found = accuracies("runs/simulated_shapes/test")
    assert list(found) == ["as trained", "14 x 14 pixels", "42 x 42 pixels", "28 x 56 pixels"]
    # Chance is 1 / 5.
    assert found["as trained"] > 0.7
    assert found["42 x 42 pixels"] > found["as trained"] - 0.1
    assert found["28 x 56 pixels"] > found["as trained"] - 0.1


def test_an_interrupted_run_resumes_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", "simulated_strokes", "--data.count", "60", "--trainer.max_epochs", "3", *TINY, *QUIET]
    config += [f"{NETWORK}.dropout", "0.2", "--model.stretch", "0.1", "--data.batch_size", "16"]
    cli.main(["fit", *config, "--run_dir", "runs/whole"])
    step, taken = Classification.training_step, []

    def interrupted(self: Classification, *arguments: Any) -> torch.Tensor:
        taken.append(1)
        if len(taken) == 5:  # in the second epoch of three steps
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Classification, "training_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", *config, "--run_dir", "runs/parts"])
    assert stopped.value.code == 130
    assert "1 epoch is in runs/parts; the same command resumes" in capsys.readouterr().out
    cli.main(["test", *config, "--run_dir", "runs/parts"])
    monkeypatch.setattr(Classification, "training_step", step)
    cli.main(["fit", *config, "--run_dir", "runs/parts"])
    assert "resuming from runs/parts/last.ckpt" in capsys.readouterr().out
    assert history("runs/parts") == history("runs/whole")
    weights = [torch.load(f"runs/{run}/last.ckpt", weights_only=True)["state_dict"] for run in ("parts", "whole")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_averaged_weights_and_penalties() -> None:
    options = yaml.safe_load((cli.CONFIGS / "simulated_strokes.yaml").read_text())
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    options["trainer"]["callbacks"] = [average]
    Path("averaged.yaml").write_text(yaml.safe_dump(options))
    config = ["--config", "averaged.yaml", "--data.count", "60", "--trainer.max_epochs", "2", *TINY, *QUIET]
    penalties = ["--model.norm_penalty", "0.001", "--model.alias_penalty", "0.1", "--model.alias_steps", "[0.02]"]
    cli.main(["fit", *config, *penalties, "--model.label_smoothing", "0.1"])
    cli.main(["test", *config, *penalties])
    content = torch.load("runs/averaged/last.ckpt", weights_only=True)
    name = "network.cnn.output.weight"
    assert (content["state_dict"][name] != content["current_model_state"][name]).any()


# --------------------------------------------------------------------------------------------------- configurations


def classification_configs() -> list[str]:
    contents = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(cli.CONFIGS.glob("*.yaml"))}
    return [name for name, content in contents.items() if content.get("task") == "classification"]


# Data set -> channels, classes, sizes and step of its grid; None for series read as points.
FORMATS: dict[str, tuple[int, int, tuple[int, ...] | None, float]] = {
    "mnist": (1, 10, (28, 28), 1.0),
    "cifar10": (3, 10, (32, 32), 1.0),
    "cifar100": (3, 100, (32, 32), 1.0),
    "stl10": (3, 10, (96, 96), 1.0),
    "speech_commands": (1, 10, (16000,), 1 / 16000),
    "speech_commands_mfcc": (20, 10, (161,), 1 / 160),
    "spoken_digits": (1, 10, (8320,), 1 / 8000),
    "simulated_digits": (1, 10, (4160,), 1 / 8000),
    "simulated_shapes": (1, 5, (28, 28), 1.0),
    "modelnet10_voxels": (1, 10, (30, 30, 30), 1.0),
    "simulated_volumes": (1, 6, (12, 16, 16), 1.5),
    "character_trajectories": (3, 20, None, 1 / 200),
    "simulated_strokes": (3, 6, None, 1 / 200),
    "ts_files": (12, 9, None, 1.0),
    "volume_folder": (1, 3, (12, 16, 16), 1.5),
    "image_folder": (3, 4, (64, 64), 1.0),
}


def samples_like(dataset: str, reading: str) -> Samples:
    """Three random samples in the format of a data set."""
    channels, classes, sizes, step = FORMATS[dataset]
    generator = torch.Generator().manual_seed(0)
    names, labels = tuple(map(str, range(classes))), torch.tensor([0, 1, 2])
    if sizes is None:
        lengths = torch.tensor([0, 20, 25, 15])
        values = torch.randn(60, channels, generator=generator)
        return RaggedSeries.uniform(values, step, lengths.cumsum(0), labels, names, "s")
    if reading != "as_is":
        sizes = (sizes[0] * sizes[1],)
    values = torch.randn(3, channels, *sizes, generator=generator)
    return GriddedSamples(values, Grid(sizes, [step] * len(sizes)), labels, names, "unit")


@pytest.mark.parametrize("name", classification_configs())
def test_each_configuration_builds_its_network_and_takes_a_step(name: str) -> None:
    options = yaml.safe_load((cli.CONFIGS / f"{name}.yaml").read_text())
    init = options["model"]["network"]["init_args"]
    samples = samples_like(options["data"]["dataset"], options["data"].get("reading", "as_is"))
    lengths = suited_lengths(samples)
    told = {"in_channels": samples.values.shape[1], "classes": len(samples.classes), "kernel": lengths["kernel"]}
    init |= {name: value for name, value in told.items() if init.get(name, "none") is None}
    init |= {"latent": lengths["latent"]} if init.get("latent") == "auto" else {}
    full = dict(init)
    kind = options["model"]["network"]["class_path"].rpartition(".")[2]
    few = {"depths": [1, 1], "channels": [4, 4], "lengths": [5, 3]}
    init |= few if kind == "ShiftwiseClassifier" else {"hidden_channels": 8, "blocks": 1}
    if kind == "ContinuousClassifier":
        init["kernel"]["hidden"] = 4
        init |= {"copies": min(2, init.get("copies", 1))}
    parser = ArgumentParser()
    parser.add_class_arguments(Classification, "model")
    parser.add_class_arguments(SampleDataModule, "data")
    built = parser.instantiate(parser.parse_object({"model": options["model"], "data": options["data"]}))
    channels, classes, *_ = FORMATS[built.data.dataset]
    assert (full["in_channels"], full["classes"]) == (channels, classes)
    batch = SampleBatch.of(samples)
    model = built.model
    model.network.prepare(batch, (samples.values, None))
    changed = model.augmentation(batch, Draws(0, 0, torch.arange(len(batch))))
    loss = torch.nn.functional.cross_entropy(model(changed), batch.labels) + model._penalties(changed)
    loss.backward()
    gradients = [parameter.grad for parameter in model.network.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None) > 0


@pytest.mark.parametrize(
    ("name", "baseline"),
    [
        ("character_trajectories_cpu", "character_trajectories_baseline_cpu"),
        ("spoken_digits_cpu", "spoken_digits_baseline_cpu"),
        ("mnist_images_cpu", "mnist_images_baseline_cpu"),
        ("volumes", "volumes_baseline"),
    ],
)
def test_baselines_have_the_same_budget_and_about_as_many_parameters(name: str, baseline: str) -> None:
    found = [yaml.safe_load((cli.CONFIGS / f"{config}.yaml").read_text()) for config in (name, baseline)]
    counts = []
    for options in found:
        parser = ArgumentParser()
        parser.add_class_arguments(Classification, "model")
        network = parser.instantiate(parser.parse_object({"model": options["model"]})).model.network
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
        # What belongs to the kernels, or is tuned for each network.
        for own in ("network", "alias_penalty", "alias_steps", "schedule"):
            options["model"].pop(own, None)
    assert counts[1] == pytest.approx(counts[0], rel=0.15)
    assert found[1] == found[0]


# ------------------------------------------------------------------------------------------------------------ input


def test_input_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strokes, digits = ("--config", "simulated_strokes", *QUIET), ("--config", "simulated_digits", *QUIET)
    small = ("--data.count", "60")
    cases: dict[tuple[str, ...], str] = {
        ("fit", "--config", "mnist_images_cpu", *QUIET, "--data.root", "nowhere"): "root must be an existing folder",
        ("fit", "--config", "mnist_images_cpu", *QUIET, "--data.root", "null"): "root must be given (--data.root",
        ("fit", *strokes, "--task", "regression"): f"task must be one of {', '.join(TASKS)}, or one",
        ("fit", *strokes, "--data.dataset", "mnist2"): "mnist2",
        ("fit", *strokes, "--data.batch_size", "0"): "batch_size must be at least 1, got 0",
        ("fit", *strokes, "--data.validation", "1"): "validation must lie in (0, 1), got 1.0",
        ("fit", *strokes, "--data.reading", "sequence"): "reading must be 'as_is' where the samples are no images",
        ("fit", *digits, "--data.window", "0"): "window must be positive, got 0",
        ("fit", *strokes, "--model.label_smoothing", "1"): "label_smoothing must lie in [0, 1), got 1.0",
        ("fit", *strokes, "--model.alias_penalty", "1"): "alias_steps must be given with alias_penalty",
        ("fit", *strokes, "--model.norm_penalty", "-1"): "norm_penalty must not be negative, got -1.0",
        ("fit", *strokes, "--model.schedule.mask_rate", "0"): "schedule.mask_rate must be positive, got 0.0",
        ("fit", *strokes, "--model.drop", "1"): "drop must lie in [0, 1), got 1.0",
        (
            "fit",
            *strokes,
            *small,
            f"{NETWORK}.classes",
            "7",
        ): "classes must be the data's 6 (--model.network.init_args.classes 6), got 7",
        (
            "fit",
            *strokes,
            *small,
            f"{NETWORK}.in_channels",
            "2",
        ): "in_channels must be the data's 3 (--model.network.init_args.in_channels 3), got 2",
        ("test", *strokes): "ckpt_path must be a trained checkpoint, got no file runs/simulated_strokes/best.ckpt",
    }
    for arguments, message in cases.items():
        assert message in " ".join(refused(capsys, *arguments).split()), arguments
    assert not (tmp_path / "runs").exists()
    run = ["--trainer.max_epochs", "1", *small, *TINY]
    cli.main(["fit", *strokes, *run])
    asked = {
        ("--test.image_size", "14"): "test.image_size must be sizes along 2 axes such as 14x14 28x56, got 14",
        ("--test.image_size", "14x14"): "test.image_size must be asked for images only",
        ("--test.drop", "1"): "fraction must lie in [0, 1), got 1",
        ("--test.rate", "0"): "test.rate must be positive, got 0",
    }
    for words, message in asked.items():
        assert message in refused(capsys, "test", *strokes, *run, *words)
    run += ["--data.count", "100"]
    cli.main(["fit", *digits, *run])
    message = refused(capsys, "test", *digits, *run, "--test.drop", "0.3")
    assert "test.drop must be asked for series read as points only" in message


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (5, 5), (95, 100), (361, 364)])
def test_wilson_interval(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
