"""Labels of NIfTI files as NIfTI files, on the voxels of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import get_console
from rich.progress import track

from ccnn_irregular._checks import require
from ccnn_irregular.adapters.nifti import read_nifti, write_nifti
from ccnn_irregular.datasets.decathlon import Volume, canonical, like_file, nifti_files, volume_name
from ccnn_irregular.pipelines.tasks.segmentation.data import VolumeBatch
from ccnn_irregular.pipelines.tasks.segmentation.module import Segmentation
from ccnn_irregular.pipelines.train.evaluation import say

__all__ = ["FileJob", "file_jobs", "predict_files"]


@dataclass(frozen=True)
class FileJob:
    """An image, and where its labels go."""

    image: Path
    output: Path


def file_jobs(source: Path, output: Path) -> list[FileJob]:
    """One job for a file, or one for each NIfTI file of a folder.

    Args:
        source: a NIfTI file, or a folder of them.
        output: for a file, the file to write (``.nii`` or ``.nii.gz``); for a folder, the folder, made if need be.

    Raises:
        FileNotFoundError: nothing is at ``source``.
        ValueError: a folder without NIfTI files, an output of another suffix, or one that is the input itself.
    """
    if source.is_dir():
        files = nifti_files(source)
        require(bool(files), f"predict.input {source}", "hold NIfTI files", "none")
        rule = "be another folder than the input's"
        require(output.resolve() != source.resolve(), "output", rule, str(output))
        return [FileJob(file, output / f"{volume_name(file)}.nii.gz") for file in files]
    if not source.is_file():
        raise FileNotFoundError(f"predict.input must be a NIfTI file or a folder of them, got {source}")
    require(output.name.endswith((".nii", ".nii.gz")), "output", "end in .nii or .nii.gz", str(output))
    require(output.resolve() != source.resolve(), "output", "be another file than the input", str(output))
    return [FileJob(source, output)]


def predict_files(model: Segmentation, jobs: Sequence[FileJob], checkpoint: Path) -> list[Path]:
    """Write the labels of each image; what is there and younger than image and checkpoint is left as it is.

    So a run over a folder that was interrupted goes on where it stopped: a file is written under another name and
    renamed when it is complete.

    Returns:
        The files that were written.

    Raises:
        ValueError: see ``read_nifti`` and ``canonical``; an image of other channels than the network reads.
    """
    waiting = [job for job in jobs if not _is_done(job, checkpoint)]
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} written before and younger than their input")
    was_training = model.training
    model.eval()
    for job in track(waiting, "labels", console=get_console(), transient=True, disable=len(waiting) < 2):
        image = read_nifti(job.image)
        values, grid = canonical(image)
        expected = int(model.network.in_channels)  # type: ignore[arg-type]  # an attribute of every such network
        require(len(values) == expected, f"channels of {job.image}", f"be the network's {expected}", len(values))
        batch = VolumeBatch.of(Volume(volume_name(job.image), values, grid)).to(model.device)
        with torch.inference_mode():
            labels = model.predict_step(batch, 0).labels
        job.output.parent.mkdir(parents=True, exist_ok=True)
        # The encoding says what the image's values mean: none of that holds for labels.
        write_nifti(like_file(labels, image).drop_encoding(), job.output)
    model.train(was_training)
    return [job.output for job in waiting]


def _is_done(job: FileJob, checkpoint: Path) -> bool:
    """Whether the labels are there and no older than what they follow from."""
    if not job.output.is_file():
        return False
    return job.output.stat().st_mtime >= max(job.image.stat().st_mtime, checkpoint.stat().st_mtime)
