"""How many rows of a part a checkpoint was trained on, and why a test may meet them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ccnn_irregular._checks import reject
from ccnn_irregular.pipelines.train.checkpoint import read_checkpoint
from ccnn_irregular.pipelines.train.run_folder import RunFolder, differing_options
from ccnn_irregular.pipelines.train.trained_on import ENTRY, KeyedData, Overlap, TrainedOn

__all__ = ["overlap_with", "provenance", "require_others"]


def overlap_with(data: KeyedData, ckpt_path: str, part: Literal["validation", "test"], allowed: bool) -> Overlap | None:
    """How much of a part was trained on; None where a checkpoint does not tell and that is allowed."""
    checkpoint = read_checkpoint(ckpt_path)
    if allowed and ENTRY not in checkpoint:
        return None
    # The validation part chose the best epoch by design: there, only what was trained on counts.
    return TrainedOn.from_checkpoint(checkpoint, ckpt_path).overlap(data.keys(part), chosen=part == "test")


def require_others(overlap: Overlap, ckpt_path: str, part: str, config: dict[str, Any]) -> None:
    """Refuse rows of a part that were trained on; those that only equal one are counted by the test.

    Raises:
        ValueError: with their number, and the options of the data that are others than the run's.
    """
    if overlap.met > overlap.twins:
        reject(
            f"the {overlap.tested} {overlap.rows_are} of the {part} part",
            f"be others than those that {ckpt_path} was trained on ({differing_data(ckpt_path, config)}; "
            "--allow_overlap true goes on and counts them in the report)",
            str(overlap),
        )


def provenance(ckpt_path: str, overlap: Overlap | None) -> dict[str, Any]:
    """Where tested weights come from, for the JSON of a test: checkpoint, seed, end of training, overlap."""
    run = RunFolder(Path(ckpt_path).parent)
    seed = (run.saved_config() or {}).get("seed_everything")
    return {"checkpoint": ckpt_path, "seed": seed, "training": run.end(), "overlap": overlap}


def differing_data(ckpt_path: str, config: dict[str, Any]) -> str:
    """Options of the data in ``config`` that are others than those of the checkpoint's run, for a message."""
    saved = RunFolder(Path(ckpt_path).parent).saved_config()
    if saved is None:
        return "its run folder holds no config.yaml to compare the options with"
    shown = [text for text in differing_options(saved, config) if text.startswith("data.")]
    return f"the run there, this command here: {'; '.join(shown)}" if shown else "with the options of the run"
