"""Text files in another encoding than UTF-8 are refused with what to type, whoever reads them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccnn_irregular.datasets import stations, tables
from ccnn_irregular.datasets.cloud_files.formats import open_cloud
from ccnn_irregular.datasets.reading.label_table import read_labels
from ccnn_irregular.pipelines.inspection import inspected
from ccnn_irregular.pipelines.train.groups import read_groups


def labels_of_files(path: Path) -> Any:
    (path.parent / "a.ply").touch()
    return read_labels(path.parent, path.name, lambda _: True, "a cloud")


SERIES = "id,time,variable,value\nK,0,Länge,1\nK,1,Länge,2\n"
# Who reads -> its reader, the name of the file, and what stands in it.
READERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "series": (tables.read, "t.csv", SERIES),
    "packed series": (tables.read, "t.csv.gz", SERIES),
    "stays of 2019": (lambda path: tables.read(path, source="psv"), "p.psv", "Länge|ICULOS\n1|1\n"),
    "stations": (stations.load, "s.csv", "station,lat,lon,t2m\nKöln,50.9,7,1\nBonn,50.7,7,2\n"),
    "cloud": (open_cloud, "c.csv", "x,y,z,art\n0,0,0,Gebäude\n1,1,1,Boden\n"),
    "labels of files": (labels_of_files, "labels.csv", "file,label\na.ply,Gebäude\n"),
    "groups": (lambda path: read_groups(path, ["Köln"]), "g.csv", "name,group\nKöln,a\n"),
    "inspect": (inspected, "t.csv", SERIES),
}


@pytest.mark.parametrize(("read", "name", "text"), READERS.values(), ids=list(READERS))
@pytest.mark.parametrize("encoding", ["latin-1", "windows-1252", "utf-16"])
def test_another_encoding_is_refused_with_what_to_type(
    tmp_path: Path, read: Callable[[Path], Any], name: str, text: str, encoding: str
) -> None:
    path = tmp_path / name
    text = text.replace("ä", "ä€") if encoding == "windows-1252" else text
    path.write_bytes(gzip.compress(text.encode(encoding)) if name.endswith("gz") else text.encode(encoding))
    with pytest.raises(ValueError, match="must be text in UTF-8") as error:
        read(path)
    told = str(error.value)
    of = "utf-16" if encoding == "utf-16" else "windows-1252"
    assert told.startswith(f"{path} must")
    assert f"iconv -f {of} -t utf-8" in told
    if encoding != "utf-16":  # a piece of the file, by which its reader sees that the guess is right
        word = next(one for one in ("Länge", "Köln", "Gebäude") if one in text.replace("€", ""))
        assert (word if encoding == "latin-1" else word.replace("ä", "ä€")) in told


@pytest.mark.parametrize(("read", "name", "text"), READERS.values(), ids=list(READERS))
def test_utf8_is_read_with_and_without_the_mark_of_excel(
    tmp_path: Path, read: Callable[[Path], Any], name: str, text: str
) -> None:
    text = text.replace("Länge|ICULOS\n1|1", "HR|ICULOS|Age|Gender|Unit1|Unit2|HospAdmTime\n1|1|5|0|0|1|0")
    for encoding in ("utf-8", "utf-8-sig"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode(encoding)) if name.endswith("gz") else text.encode(encoding))
        read(path)
