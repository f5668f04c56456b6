"""Labels of scans in the format of the input, on its voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.scan_files import SCANS, is_scan, scan_files, scan_name
from ccnn_irregular.adapters.scans import WRITTEN, read_scan, write_scan
from ccnn_irregular.datasets.decathlon import Volume, canonical, label_dtype, like_file
from ccnn_irregular.pipelines.tasks.segmentation.batch import VolumeBatch
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.outputs import earlier, record, require_own, sha256
from ccnn_irregular.pipelines.train.progress import followed

__all__ = ["FileJob", "file_jobs", "jobs_of", "labels_name", "predict_files"]


@dataclass(frozen=True)
class FileJob:
    """An image, and where its labels go."""

    image: Path
    output: Path


def file_jobs(source: Path, output: Path) -> list[FileJob]:
    """One job for a scan, or one for each in a folder.

    Args:
        source: a scan, or a folder of them.
        output: for a scan, the file to write, of any suffix in ``WRITTEN``; for a folder, the folder, made if need be.

    Raises:
        FileNotFoundError: nothing is at ``source``.
        ValueError: a folder without scans, an output of another suffix, or one that is the input itself.
    """
    if not source.exists():
        raise FileNotFoundError(f"predict.input must be a scan or a folder of them, got {source}")
    if not is_scan(source):
        files = scan_files(source) if source.is_dir() else []
        require(bool(files), f"predict.input {source}", f"be or hold scans: {SCANS}", "none")
        return jobs_of(files, output)
    require(output.name.endswith(WRITTEN), "output", f"end in one of {', '.join(WRITTEN)}", str(output))
    require(output.resolve() != source.resolve(), "output", "be another file than the input", str(output))
    return [FileJob(source, output)]


def jobs_of(images: Sequence[Path], output: Path) -> list[FileJob]:
    """One job for each image, whose labels go into a folder, in its format.

    Raises:
        ValueError: the folder of an image, or images that differ in their suffixes alone.
    """
    folders = {image.parent.resolve() for image in images}
    require(output.resolve() not in folders, "output", "be another folder than the input's", str(output))
    jobs = [FileJob(image, output / labels_name(image)) for image in images]
    twice = sorted(name for name, count in Counter(job.output.name for job in jobs).items() if count > 1)
    require(not twice, "scans", "have names that differ in more than their suffixes", twice[:3])
    return jobs


def labels_name(image: Path) -> str:
    """The name of the labels of a scan: in its format, of pairs of header and data as one file, else as NIfTI."""
    suffix = next((suffix for suffix in (".nrrd", ".mha") if image.name.endswith(suffix)), ".nii.gz")
    suffix = {".nhdr": ".nrrd", ".mhd": ".mha"}.get(image.suffix, suffix)
    return scan_name(image) + suffix


def predict_files(model: Segmentation, jobs: Sequence[FileJob], checkpoint: Path, codes: Sequence[int]) -> list[Path]:
    """Write the labels of each image; those that this checkpoint wrote, younger than the image, are left as they are.

    So a run over a folder that was interrupted goes on where it stopped: a file is written under another name and
    renamed when it is complete.

    Args:
        model: with its weights.
        jobs: what is labelled.
        checkpoint: of the weights.
        codes: what is written for each class.

    Returns:
        The files that were written.

    Raises:
        ValueError: see ``read_scan`` and ``canonical``; an image of other channels than the network reads; a file in
            place of an output that ``ccnn predict`` did not write.
    """
    by = sha256(checkpoint)
    waiting = [job for job in jobs if not _is_done(job, by)]
    for job in waiting:
        require_own(job.output)
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} written before by this checkpoint, younger than their input")
    table = torch.tensor(codes).to(label_dtype(max(codes)))
    was_training = model.training
    model.eval()
    for job in followed(waiting, "labels"):
        image = read_scan(job.image)
        values, grid = canonical(image)
        expected = int(model.network.in_channels)  # type: ignore[arg-type]  # an attribute of every such network
        require(len(values) == expected, f"channels of {job.image}", f"be the network's {expected}", len(values))
        batch = VolumeBatch.of(Volume(scan_name(job.image), values, grid)).to(model.device)
        with torch.inference_mode():
            labels = table[model.predict_step(batch, 0).labels.long()]
        job.output.parent.mkdir(parents=True, exist_ok=True)
        # The encoding says what the image's values mean: none of that holds for labels.
        write_scan(like_file(labels, image).drop_encoding(), job.output)
        record(job.output, "segmentation", checkpoint)
    model.train(was_training)
    return [job.output for job in waiting]


def _is_done(job: FileJob, checkpoint: str) -> bool:
    """Whether the labels are there, by the checkpoint of this checksum, and no older than the image."""
    before = earlier(job.output)
    if before is None or before["checkpoint sha256"] != checkpoint:
        return False
    return job.output.stat().st_mtime >= job.image.stat().st_mtime
