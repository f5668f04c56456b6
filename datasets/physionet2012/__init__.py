"""PhysioNet/Computing in Cardiology Challenge 2012: mortality of ICU patients from their first 48 hours.

The official layout is read as it comes: a folder with ``set-a.tar.gz`` (or the unpacked folder ``set-a`` of
``<RecordID>.txt`` files) and ``Outcomes-a.txt``, likewise for b and c. Each set holds 4,000 stays.

    Silva I, Moody G, Scott DJ, Celi LA, Mark RG. Predicting In-Hospital Mortality of ICU Patients: The
    PhysioNet/Computing in Cardiology Challenge 2012. Computing in Cardiology 2012; 39:245-248.
    https://physionet.org/content/challenge-2012/1.0.0/ (Open Data Commons Attribution License v1.0)

Units are those of the official description. Values are kept as recorded: implausible ones are not cleaned here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from ccnn_irregular._cache_folder import cache_folder
from ccnn_irregular._checks import require
from ccnn_irregular.datasets.physionet2012.arrays import cache_file, fingerprint, from_arrays, to_arrays
from ccnn_irregular.datasets.physionet2012.cohort import Cohort, LoadReport
from ccnn_irregular.datasets.physionet2012.outcomes import OUTCOMES
from ccnn_irregular.datasets.physionet2012.record import SERIES, STATICS, UNITS
from ccnn_irregular.datasets.physionet2012.sources import checked_sets, find_source
from ccnn_irregular.datasets.physionet2012.stays import OnBadRecord, Repeats, parse
from ccnn_irregular.datasets.reading import cache as stored
from ccnn_irregular.datasets.reading.download import download_file
from ccnn_irregular.datasets.registry import DataSet, register

__all__ = ["OUTCOMES", "SERIES", "SHA256", "STATICS", "UNITS", "URL", "Cohort", "LoadReport", "fetch", "load"]

URL = "https://physionet.org/files/challenge-2012/1.0.0"
SHA256: Mapping[str, str] = {
    "set-a.tar.gz": "8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920",
    "set-b.tar.gz": "b1637a2a423a8e76f8f087896cfc5fdf28f88519e1f4e874fbda69b2a64dac30",
    "set-c.tar.gz": "a4a56b95bcee4d50a3874fe298bf2998f2ed0dd98a676579573dc10419329ee1",
    "Outcomes-a.txt": "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2",
    "Outcomes-b.txt": "1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5",
    "Outcomes-c.txt": "0b32dcb7753c0f18f2f5fde498a28618b8879c5e527ce0dae8ad120dd7e205c9",
}
# Part of every cache fingerprint: raise it when the same files and options should give another cohort.
_PARSER_VERSION = 1


def load(
    root: str | Path,
    sets: Sequence[str] = ("a",),
    *,
    outcomes: bool = True,
    on_bad_record: OnBadRecord = "stop",
    repeats: Repeats = "mean",
    cache: Path | Literal[False] | None = None,
    download: bool = False,
    progress: bool = True,
) -> Cohort:
    """Load whole sets of the challenge.

    Where both ``set-a.tar.gz`` and ``set-a/`` stand in ``root``, they must hold the same records; which of two
    different ones was meant is not guessed.

    Args:
        root: folder with the official files.
        sets: any of "a", "b", "c"; stays come in this order, by record id within a set.
        outcomes: read the outcomes files too; False for a set without labels.
        on_bad_record: "stop" raises at the first record that breaks the format; "skip" leaves such records (and their
            outcomes) out and lists them in the report.
        repeats: what becomes of several values of one parameter at one time: their mean, the first or the last of them.
        cache: folder for the parsed arrays (HDF5); None for ``$CCNN_CACHE`` or the user's cache folder; False for
            none. A cache file counts only while the bytes of all source files and the options are unchanged.
        download: fetch missing files from PhysioNet into ``root`` first, see :func:`fetch`.
        progress: show progress bars.

    Raises:
        FileNotFoundError: ``root``, a set or an outcomes file does not exist.
        ValueError: a file breaks the format (the message names file and line), an archive is damaged or unsafe, or
            the outcomes belong to other records.
    """
    letters = checked_sets(sets)
    require(on_bad_record in get_args(OnBadRecord), "on_bad_record", "be 'stop' or 'skip'", repr(on_bad_record))
    require(repeats in get_args(Repeats), "repeats", "be 'mean', 'first' or 'last'", repr(repeats))
    root = Path(root)
    if download:
        fetch(root, letters, outcomes=outcomes, progress=progress)
    sources = [find_source(root, letter, outcomes) for letter in letters]

    if cache is False:
        return parse(sources, on_bad_record, repeats, progress)
    options = f"physionet2012 version {_PARSER_VERSION}, {on_bad_record}, {repeats}, outcomes {outcomes}"
    digest = fingerprint(sources, options)
    file = cache_file(cache_folder() if cache is None else Path(cache), sources, options)
    arrays = stored.read(file, digest)
    if arrays is not None:
        return from_arrays(arrays)
    cohort = parse(sources, on_bad_record, repeats, progress)
    stored.write(file, digest, to_arrays(cohort))
    return cohort


def fetch(
    root: str | Path,
    sets: Sequence[str] = ("a",),
    *,
    outcomes: bool = True,
    url: str = URL,
    sha256: Mapping[str, str] = SHA256,
    progress: bool = True,
) -> None:
    """Download the official files that ``root`` lacks; files that are there are left alone.

    Args:
        root: folder to download to, made if need be.
        sets: any of "a", "b", "c".
        outcomes: fetch the outcomes files too.
        url: where the files lie, without a final slash; for mirrors.
        sha256: file name -> SHA256 in hexadecimal digits; a file with another checksum is not kept.
        progress: show progress bars.

    Raises:
        ValueError: a downloaded file has another checksum.
        OSError: the server cannot be reached or refuses.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for letter in checked_sets(sets):
        names = [] if (root / f"set-{letter}").is_dir() else [f"set-{letter}.tar.gz"]
        names += [f"Outcomes-{letter}.txt"] if outcomes else []
        for name in names:
            if not (root / name).exists():
                download_file(f"{url}/{name}", sha256[name], root / name, progress=progress)


register(
    DataSet(
        name="physionet2012",
        about="intensive-care stays: vital signs and laboratory values at irregular times, and who died",
        load=load,
        samples=Cohort,
        shape="37 series, 5 descriptors, 48 hours",
        files="set-a.tar.gz (or the folder set-a) and Outcomes-a.txt, likewise for b and c",
        size="20 MB",
        licence="ODC-By 1.0",
        source="https://physionet.org/content/challenge-2012/1.0.0",
        fetch=fetch,
        checksum="SHA256 in the module",
    )
)
