"""What tests draw and commands show while they work: names of files, worst mistakes, progress in one line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rich
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ccnn_irregular import Grid, Points
from ccnn_irregular.pipelines.tasks.classification import figures
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.classification.module import ClassPredictions
from ccnn_irregular.pipelines.train.figures import file_stem, kernels, short_times
from ccnn_irregular.pipelines.train.progress import OneLine, followed

# ---- names ----


@pytest.mark.parametrize(
    ("text", "shown", "stem"),
    [
        ("t2m, time 2020-01-01T00:00:00.000000000", "t2m, time 2020-01-01", "t2m_time_2020-01-01"),
        ("2020-01-01T06:00:00.000000000", "2020-01-01T06:00", "2020-01-01T0600"),
        ("2020-01-01T06:00:30.000000000", "2020-01-01T06:00:30", "2020-01-01T060030"),
        ("2000-02-30 00:00:00", "2000-02-30", "2000-02-30"),  # cftime, 360 days
        ("2020-01-01T10:00:00", "2020-01-01T10:00", "2020-01-01T1000"),
        ("2020-01-01T00:00:00.500000000", "2020-01-01T00:00:00.5", "2020-01-01T000000.5"),
        ("t in Köln/Bonn, level 850", "t in Köln/Bonn, level 850", "t_in_Köln_Bonn_level_850"),
        ("../up", "../up", "up"),
    ],
)
def test_times_lose_their_zeros_and_files_their_colons(text: str, shown: str, stem: str) -> None:
    assert short_times(text) == shown
    assert file_stem(short_times(text)) == stem


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_what_is_left_of_a_time_is_that_time(time: object) -> None:
    given = np.datetime64(time, "ns")  # type: ignore[call-overload]
    assert np.datetime64(short_times(str(given)), "ns") == given


# ---- mistakes ----


def predictions(probabilities: list[list[float]], labels: list[int]) -> ClassPredictions:
    return ClassPredictions(np.array(probabilities, np.float32), np.array(labels), 0.0)


class _Kept:
    """Figures instead of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.figures: list[object] = []
        monkeypatch.setattr(figures, "save", lambda figure, path: (self.figures.append(figure), path)[1])


SERIES = SampleBatch(
    torch.arange(8.0).reshape(8, 1),
    Points(torch.linspace(0, 7, 8, dtype=torch.float64)[:, None], splits=torch.tensor([0, 2, 5, 8])),
    torch.tensor([0, 1, 0]),
)


def test_the_worst_mistakes_come_first_with_truth_and_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _Kept(monkeypatch)
    found = predictions([[0.4, 0.6], [0.1, 0.9], [0.05, 0.95]], [0, 1, 0])  # the second one is right
    figures.mistakes([SERIES], found, ["s0", "s1", "s2"], ("calm", "ill"), "h", Path("m.png"))
    (figure,) = kept.figures
    first, second = figure.axes  # type: ignore[attr-defined]
    assert first.get_title() == "s2: true calm,\npredicted ill (0.95)"
    assert second.get_title() == "s0: true calm,\npredicted ill (0.60)"
    times, values = first.get_lines()[0].get_data()
    assert times.tolist() == values.tolist() == [5.0, 6.0, 7.0]
    assert (first.get_xlabel(), first.get_ylabel()) == ("time (h)", "value")
    assert figure.get_suptitle() == "2 of 3 samples are taken for another class"  # type: ignore[attr-defined]


def test_batches_are_counted_through_and_unknown_labels_are_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _Kept(monkeypatch)
    found = predictions([[0.1, 0.9]] * 3 + [[0.9, 0.1]] * 3, [-1, 1, 1, 0, 0, 1])
    figures.mistakes([SERIES, SERIES], found, list(range(6)), ("a", "b"), "h", Path("m.png"))
    (figure,) = kept.figures
    assert [axes.get_title() for axes in figure.axes] == ["5: true b,\npredicted a (0.90)"]  # type: ignore[attr-defined]
    assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [5.0, 6.0, 7.0]  # type: ignore[attr-defined]


def test_without_a_mistake_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _Kept(monkeypatch)
    assert figures.mistakes([SERIES], predictions([[1, 0]] * 3, [0] * 3), [0, 1, 2], ("a", "b"), "h", Path("m")) == []
    assert kept.figures == []


def test_images_lie_on_their_coordinates_and_volumes_show_their_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _Kept(monkeypatch)
    picture = torch.zeros(1, 1, 3, 4)
    picture[0, 0, 1, 2] = 1.0
    grid = Grid([3, 4], [0.5, 1.0], [10.0, 20.0])
    volume = torch.zeros(1, 1, 3, 4, 5)
    volume[..., 2] = picture[..., None][..., 0]
    wrong = predictions([[0.0, 1.0]], [0])
    space = Grid([3, 4, 5], [0.5, 1.0, 1.0], [10.0, 20.0, 0.0])
    named = {picture: ("column (mm)", "row (mm)"), volume: ("axis 1 (mm)", "axis 0 (mm)")}
    for values, domain in ((picture, grid), (volume, space)):
        batch = SampleBatch(values, domain, torch.tensor([0]))
        figures.mistakes([batch], wrong, ["x"], ("a", "b"), "mm", Path("m.png"))
        image = kept.figures[-1].axes[0].images[0]  # type: ignore[attr-defined]
        assert np.argwhere(np.asarray(image.get_array()) == 1).tolist() == [[1, 2]]
        assert list(image.get_extent()) == [19.5, 23.5, 11.25, 9.75]  # row 0 on top
        assert (image.axes.get_xlabel(), image.axes.get_ylabel()) == named[values]


def test_clouds_are_drawn_in_space(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _Kept(monkeypatch)
    batch = SampleBatch(torch.ones(20, 1), Points(torch.rand(20, 3)), torch.tensor([0]))
    figures.mistakes([batch], predictions([[0.0, 1.0]], [0]), ["x"], ("a", "b"), "m", Path("m.png"))
    axes = kept.figures[0].axes[0]  # type: ignore[attr-defined]
    assert axes.name == "3d"
    assert [axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()] == ["x (m)", "y (m)", "z (m)"]
    axes.figure.canvas.draw()


def test_a_network_without_kernels_has_no_picture_of_them(tmp_path: Path) -> None:
    assert kernels(nn.Linear(2, 2), "h", tmp_path) == []


# ---- progress ----


class _Fit(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.layer(batch[0])

    test_step = validation_step

    def predict_step(self, batch: list[Tensor], _: int) -> Tensor:
        answer: Tensor = self.layer(batch[0])
        return answer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def console() -> Iterator[Console]:
    """The console that all of the pipelines print to, on a stream of ours."""
    known = rich.get_console()
    before = dict(vars(known))
    yield known
    vars(known).clear()
    vars(known).update(before)


def ran(console: Console, terminal: bool) -> str:
    """What is written while a network is fitted, tested and predicts."""
    stream = io.StringIO()
    vars(console).update(vars(Console(file=stream, force_terminal=terminal, width=80, legacy_windows=False)))
    loader = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=2)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, callbacks=[OneLine()], num_sanity_val_steps=0, log_every_n_steps=1, **quiet)  # type: ignore[arg-type]
    model = _Fit()
    trainer.fit(model, loader, loader)
    trainer.test(model, loader, verbose=False)
    trainer.predict(model, loader)
    assert list(followed(["a", "b"], "files")) == ["a", "b"]
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated")
def test_a_terminal_shows_one_line_that_vanishes(console: Console) -> None:
    written = ran(console, terminal=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    for part in ("epoch 0/1", "epoch 1/1", "validating", "testing", "predicting", "files"):
        assert part in plain
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]", plain))
    # Each bar ends with its line erased; no drawing is more than one line high.
    assert "\x1b[1A" in written
    assert "\x1b[2A" not in written
    assert "\x1b[1A\x1b[2K\x1b[1A" not in written


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated")
def test_a_pipe_sees_nothing_of_it(console: Console) -> None:
    assert ran(console, terminal=False) == ""
