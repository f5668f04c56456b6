"""Labels of points as files hold them, codes or words, and the classes that a network tells apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular.datasets.cloud_files import ASPRS
from ccnn_irregular.pipelines.tasks.cloud_segmentation.data import UNLABELLED

__all__ = ["LABEL_FIELDS", "Labels", "PointClasses", "chosen_classes", "ignored_codes"]

# Names of fields that hold labels, the first one that all files have is taken; that of LAS holds codes of ASPRS.
LABEL_FIELDS = ("classification", "label", "labels", "class", "semantic", "is_ground", "y")
_ASPRS_FIELD = LABEL_FIELDS[0]
_NAMES = {str(code): name for name, code in ASPRS.items()}


@dataclass(frozen=True)
class Labels:
    """The labels of a file: which ones there are, and which one each point has.

    Attributes:
        codes: as text, whole numbers without a point; "" is a point without label.
        number: int64 ``(N,)``, index into ``codes``.
    """

    codes: tuple[str, ...]
    number: NDArray[np.int64]

    @staticmethod
    def of(column: NDArray[Any]) -> Labels:
        """From a field of numbers or words."""
        words = column if column.dtype.kind in "biuf" else column.astype(str)
        values, number = np.unique(words, return_inverse=True)
        return Labels(tuple(map(_code, values.tolist())), number.reshape(-1))

    def counts(self) -> Counter[str]:
        """Points of each label."""
        found: Counter[str] = Counter()
        for code, count in zip(self.codes, np.bincount(self.number, minlength=len(self.codes)).tolist(), strict=True):
            found[code] += count
        return found


@dataclass(frozen=True)
class PointClasses:
    """The classes of a run.

    Attributes:
        field: that holds labels.
        codes: of the classes, as text.
        ignored: codes of labels that are no class: such points are neither trained on nor counted.
        others: what other labels are: True = ignored too, False = an error.
    """

    field: str
    codes: tuple[str, ...]
    ignored: tuple[str, ...]
    others: bool

    @property
    def titles(self) -> tuple[str, ...]:
        """Names for readers."""
        return tuple(title_of(code, self.field) for code in self.codes)

    def numbers(self, labels: Labels, where: str) -> NDArray[np.int64]:
        """Index into ``codes`` of each point, ``UNLABELLED`` where it has no class.

        Raises:
            ValueError: a label that is neither a class nor ignored.
        """
        known = {code: number for number, code in enumerate(self.codes)}
        strange = [code for code in labels.codes if code not in (*known, *self.ignored, "")]
        if strange and not self.others:
            got = ", ".join(title_of(code, self.field) for code in strange)
            words = " ".join([*self.ignored, *strange])
            rule = f"be among {', '.join(self.titles)} (--data.ignore {words} leaves those points out)"
            reject(f"labels {self.field!r} of {where}", rule, got)
        return np.array([known.get(code, UNLABELLED) for code in labels.codes], np.int64)[labels.number]

    def values(self, number: NDArray[np.int64], words: bool) -> NDArray[Any]:
        """Class numbers as the labels of a file: whole numbers where all codes are, else words if the file has them.

        Args:
            number: index into ``codes``, -1 for points without an answer, which get -1 or no word.
            words: the file may hold words; else numbers of the classes stand for them.
        """
        if all(code.lstrip("-").isdecimal() for code in self.codes):
            return np.array([*map(int, self.codes), -1], np.int32)[number]
        return np.array([*self.codes, ""])[number] if words else number.astype(np.int32)


def code_of(word: object, field: str) -> str:
    """The code of a label that was typed: as it is, or by its ASPRS name in the field of LAS."""
    text = _code(word)
    return str(ASPRS.get(text.lower().replace("_", " "), text)) if field == _ASPRS_FIELD else text


def title_of(code: str, field: str) -> str:
    """The name of a label for readers: "ground (2)"."""
    name = _NAMES.get(code) if field == _ASPRS_FIELD else None
    return code if name is None else f"{name} ({code})"


def chosen_classes(
    field: str, counts: Mapping[str, int], wanted: Sequence[int | str] | None, ignore: Sequence[int | str] | None
) -> PointClasses:
    """The classes of a run by the labels of its training files.

    Args:
        field: that holds labels.
        counts: points of each label.
        wanted: labels to be told apart, all others are ignored; None = all that are not ignored.
        ignore: labels that are no classes; None = those that ASPRS calls "never classified".

    Raises:
        ValueError: fewer than two classes, or one that no point has.
    """
    ignored = ignored_codes(field, ignore)
    found = sorted((code for code in counts if code not in (*ignored, "")), key=_rank)
    codes = found if wanted is None else [code_of(word, field) for word in wanted]
    held = ", ".join(f"{title_of(code, field)}: {counts[code]}" for code in sorted(counts, key=_rank))
    missing = [code for code in codes if code not in found]
    require(not missing, "data.classes", f"be labels that points have ({held})", ", ".join(missing))
    require(len(codes) >= 2, f"labels {field!r}", "be of two classes at least (--data.label names another field)", held)
    return PointClasses(field, tuple(codes), ignored, wanted is not None)


def ignored_codes(field: str, ignore: Sequence[int | str] | None) -> tuple[str, ...]:
    """Codes of labels that are no classes; None = those that ASPRS calls "never classified"."""
    given = ([0] if field == _ASPRS_FIELD else []) if ignore is None else ignore
    return tuple(code_of(word, field) for word in given)


def _rank(code: str) -> tuple[bool, int, str]:
    """Numbers by their size, then words."""
    whole = code.lstrip("-").isdecimal()
    return not whole, int(code) if whole else 0, code


def _code(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return "" if value != value else f"{value:.0f}" if value.is_integer() else repr(value)
    text = str(value).strip()
    return "" if text == "nan" else text
