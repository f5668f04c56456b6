"""The baseline of continuous kernels on clouds: its graph against all distances, its answers, its size."""

from __future__ import annotations

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from ccnn_irregular.domains import Points
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.tasks.classification.data import SampleBatch
from ccnn_irregular.pipelines.tasks.cloud_classification.baselines import PointNetClassifier, nearest_edges
from ccnn_irregular.pipelines.tasks.cloud_classification.data import ShapeDataModule
from ccnn_irregular.pipelines.tasks.cloud_classification.module import CloudClassification


def clouds(*sizes: int) -> Points:
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    return Points(coordinates, splits=torch.tensor([0, *sizes]).cumsum(0))


@pytest.mark.parametrize("neighbours", [1, 4, 9])
def test_edges_come_from_the_nearest_points_of_the_same_cloud(neighbours: int) -> None:
    points = clouds(30, 3, 0, 17)
    found = nearest_edges(points, neighbours)
    wanted = []
    for first, last in zip(points.splits[:-1].tolist(), points.splits[1:].tolist(), strict=True):
        places = points.coordinates[first:last]
        order = torch.cdist(places, places).argsort(1)[:, :neighbours]
        wanted += [(first + int(source), first + target) for target, row in enumerate(order) for source in row]
    assert sorted(map(tuple, found.T.tolist())) == sorted(wanted)


def test_clouds_do_not_see_each_other_or_the_order_of_their_points() -> None:
    torch.manual_seed(0)
    network = PointNetClassifier(1, 4, None, (8, 8), 5).eval()
    points = clouds(40, 25, 31)

    def answers(points: Points) -> torch.Tensor:
        return network(SampleBatch(torch.ones(points.count, 1), points, torch.zeros(points.samples).long()))

    together = answers(points)
    turned = torch.cat([torch.arange(40).flip(0), torch.arange(40, 65), torch.arange(65, 96).roll(7)])
    torch.testing.assert_close(answers(Points(points.coordinates[turned], splits=points.splits)), together)
    torch.testing.assert_close(answers(Points(points.coordinates[40:65])), together[1:2])
    weighed = Points(points.coordinates, torch.rand(points.count, dtype=torch.float64), points.splits)
    torch.testing.assert_close(answers(weighed), together)


def test_solids_are_learned() -> None:
    data = ShapeDataModule("simulated_solids", count=60, points=64, places=256, batch_size=60)
    data.setup("fit")
    batch = data.typical_batch(60)
    torch.manual_seed(0)
    network = PointNetClassifier(1, len(data.classes), 0.1, (16, 16), 8)
    network.prepare(batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(batch), batch.labels).backward()
        optimiser.step()
    assert float((network(batch).argmax(1) == batch.labels).float().mean()) > 0.8


def test_configurations_are_of_one_size_and_differ_in_the_network_alone() -> None:
    found = [yaml.safe_load((cli.CONFIGS / f"modelnet10_points{end}.yaml").read_text()) for end in ("", "_baseline")]
    counts = []
    for options in found:
        parser = ArgumentParser()
        parser.add_class_arguments(CloudClassification, "model")
        network = parser.instantiate(parser.parse_object({"model": options["model"]})).model.network
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
        del options["model"]["network"]
    assert counts[1] == pytest.approx(counts[0], rel=0.15)
    assert found[0] == found[1]


def test_options_that_are_refused() -> None:
    for options, message in (
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"in_channels": 2}, "in_channels must be 1, the constant on the cloud, got 2"),
        ({"reading": 0.0}, "reading must be positive, got 0.0"),
        ({"neighbours": 0}, "neighbours must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PointNetClassifier(**{"in_channels": 1, "classes": 3, "reading": 0.1} | options)  # type: ignore[arg-type]
