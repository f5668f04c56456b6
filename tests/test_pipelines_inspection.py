"""``ccnn inspect``, ``ccnn info``, versions and completion: small files of each kind, made in their real formats."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import laspy
import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK
import xarray as xr
from PIL import Image
from pipelines_tasks import write_volumes
from scipy.io import wavfile

import ccnn_irregular
from ccnn_irregular.datasets import simulated_icu, tables
from ccnn_irregular.pipelines import cli
from ccnn_irregular.pipelines.inspection import inspected


def test_long_table(tmp_path: Path) -> None:
    path = tmp_path / "stays.csv.gz"
    times = ["2001-01-01 00:00", "2001-01-01 01:30", "2001-01-01 01:30", "no date", "2001-01-05 03:00"]
    frame = {
        "patient_id": [1, 1, 1, 1, 2],
        "charttime": times,
        "itemid": ["hr"] * 5,
        "valuenum": [80, -9999, 82, 3, 97],
    }
    pd.DataFrame(frame).to_csv(path, index=False)
    found = inspected(path)
    assert found.what == "a table of 5 rows, 4 columns, series in long form"
    assert found.facts["series"] == "2, by the column patient_id"
    assert "01:30:00" in found.facts["gaps"]
    told = "\n".join(found.doubts)
    assert "1 times that are no dates of ISO 8601, such as no date" in told
    assert "1 rows repeat another one's patient_id, charttime, itemid" in told
    assert "valuenum: -9999 or the like" in told
    assert "--data.columns.missing -9999" in told
    command = f"ccnn fit --config series --data.table {path} --data.labels LABELS.csv --run_dir runs/mine"
    assert found.next == f"{command} --data.repeats mean"
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,label\n0012,yes\n0013,no\n")
    assert inspected(labels).next == (
        f"ccnn fit --config series --data.table VALUES.csv --data.labels {labels} --run_dir runs/mine"
    )


def test_stations_and_clouds_in_tables(tmp_path: Path) -> None:
    places = pd.DataFrame(
        {"station": ["a", "b"], "lat": [50.0, 95.0], "lon": [7, 8], "time": [0, 1], "t": [1.0, np.nan]}
    )
    places.to_parquet(tmp_path / "places.parquet")
    found = inspected(tmp_path / "places.parquet")
    assert "values at places" in found.what
    assert found.doubts == ["lat beyond -90 to 90"]
    assert "50.0% missing" in found.facts["t"]
    assert found.next is not None
    assert "--config stations" in found.next
    pd.DataFrame({"x": [0.0, 1], "y": [0.0, 1], "z": [0.0, 2], "label": [0, 1]}).to_csv(tmp_path / "c.csv", index=False)
    assert "a cloud of points" in inspected(tmp_path / "c.csv").what


def test_cube(tmp_path: Path) -> None:
    times = pd.date_range("2001-01-01", periods=4, freq="6h")
    field = xr.DataArray(np.zeros((4, 3)), {"time": times, "what": [0, 1, 2]}, ("time", "what"), name="t2m")
    field[0, 0] = np.nan
    field.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    found = inspected(tmp_path / "cube.nc")
    assert found.facts["time"] == "4 from 2001-01-01T00:00:00 to 2001-01-01T18:00:00, even steps"
    assert found.facts["t2m"] == "float64, time 4 x what 3, unit not stated, 8.3% missing"
    assert found.doubts[0] == "no unit: t2m"
    assert "dimension 'what' must be an axis" in found.doubts[1]
    assert found.next is not None
    # What fills its gaps comes first; of a cube without any it is not told.
    cubes, downscale, _ = found.next.split("; ")
    assert cubes == f"ccnn fit --config cubes --data.root {tmp_path / 'cube.nc'} --run_dir runs/mine"
    assert downscale.startswith("ccnn fit --config downscale_climate")
    assert found.what == "a cube of 1 variable"
    field.fillna(1.0).to_netcdf(tmp_path / "whole.nc", engine="h5netcdf")
    whole = inspected(tmp_path / "whole.nc").next
    assert whole is not None
    assert whole.startswith(f"ccnn consistency {tmp_path / 'whole.nc'} --variable t2m")
    assert "cubes" not in whole


def test_scans_recordings_and_stays(tmp_path: Path) -> None:
    found = inspected(write_volumes(tmp_path / "scans", 3))
    assert (found.what, found.facts["images"], found.facts["with labels"]) == ("scans with labels", "3", "3")
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([1, 1, 5.5, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "one.nii.gz")
    found = inspected(tmp_path / "one.nii.gz")
    assert (found.facts["voxels"], found.facts["steps"]) == ("3 x 4 x 5", "1, 1, 5.5 mm")
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, np.int16))
    assert inspected(tmp_path / "a.wav").facts == {"rate": "8000 Hz", "length": "0.500 s", "channels": "1"}
    simulated_icu.write(tmp_path / "stays", stays=3)
    assert "PhysioNet challenge of 2012" in inspected(tmp_path / "stays").what


def test_formats_without_a_reader_and_what_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    (tmp_path / "a.foo").touch()
    told = inspected(tmp_path / "a.xlsx").facts["convert it"]
    assert told.startswith('pip install openpyxl; python -c "import pandas; pandas.read_excel(')
    assert "suffix '.foo' is not known" in inspected(tmp_path / "a.foo").what
    with pytest.raises(FileNotFoundError, match="path must be a file or a folder"):
        inspected(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="path must hold files"):
        inspected(tmp_path / "empty")


def test_lines_fit_the_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.csv"
    pd.DataFrame({f"column_{number}": ["word " * 9] for number in range(40)}).to_csv(path, index=False)
    cli.main(["inspect", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("looks wrong") for line in lines)


def test_version_info_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out.strip() == ccnn_irregular.__version__ == metadata.version("ccnn-irregular")
    cli.main(["info"])
    shown = capsys.readouterr().out
    for word in ("torch", "compiler", "spectral", "laspy", "(LAS, LAZ and COPC clouds)", "devices"):
        assert word in shown
    cli.main(["--print_completion", "bash"])
    script = capsys.readouterr().out
    assert "simulated_strokes" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    with pytest.raises(SystemExit):
        cli.main(["--print_completion", "fish"])
    assert "--print_completion must be one of bash, zsh, tcsh" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["inspct"])
    assert "did you mean inspect?" in capsys.readouterr().err


def test_decimal_commas_texts_among_numbers_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    rows = ["00001;46,1;7,2;01.07.2023 12:00;15,1", "00002;46,9;8,2;01.07.2023 12:00;14,1"]
    path.write_text("\n".join(["station;lat;lon;wann;temp", *rows, "00002;46,9;8,2;01.07.2023 13:00;<0,5"]))
    found = inspected(path)
    assert "values at places" in found.what
    assert "decimal commas in lat, lon, temp: --data.columns.decimal ," in found.doubts
    assert "texts among numbers: --data.columns.missing '<0,5' where they mean missing" in found.doubts
    assert "dates such as 01.07.2023 12:00: --data.columns.time_format '%d.%m.%Y %H:%M'" in found.doubts
    assert found.facts["wann"].startswith("datetime64")
    assert found.next is not None
    assert found.next.endswith("--data.columns.time 'wann'")
    assert found.facts["lat"] == "float64, 46.1 to 46.9"
    assert found.facts["station"] == "2 words: 00002 (2), 00001 (1)"
    (tmp_path / "none.csv").touch()
    with pytest.raises(ValueError, match=r"must hold a line of names and rows, got an empty file"):
        inspected(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("id;größe\n1;2\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"must be text in UTF-8"):
        inspected(tmp_path / "latin.csv")
    (tmp_path / "days.csv").write_text("id,time,v\n0012,day 1,2\n0012,day 2,3\n")
    assert inspected(tmp_path / "days.csv").facts["gaps"] == "not known: its times are not read"


def write_nrrd_scans(root: Path) -> None:
    """Two images and their labels in NRRD."""
    for folder, kind in (("images", np.float32), ("labels", np.uint8)):
        (root / folder).mkdir(parents=True)
        for name in "ab":
            image = SimpleITK.GetImageFromArray(np.ones((3, 4, 5), kind))
            SimpleITK.WriteImage(image, str(root / folder / f"{name}.nrrd"))


def test_scans_in_other_formats(tmp_path: Path) -> None:
    """Not every folder of scans holds NIfTI."""
    write_nrrd_scans(tmp_path)
    found = inspected(tmp_path)
    assert (found.what, found.facts["with labels"], found.facts["first: voxels"]) == (
        "scans with labels",
        "2",
        "5 x 4 x 3",
    )


SUFFIXES = ("nii", "nii.gz", "nrrd", "mha", "dcm", "las", "laz", "ply", "pcd", "nc", "h5", "npz", "wav", "ts", "csv",
            "parquet", "psv", "grib")  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"no such format\n" * 3, bytes(range(256)) * 4], ids=["empty", "text", "bytes"]
)
def test_damaged_files_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, content: bytes
) -> None:
    """Whatever a library raises: one line that names the file, or what could be read; never a traceback."""
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(SystemExit):
        cli.main(["inspect", str(path)])
    told = capsys.readouterr().err
    assert not told or (told.startswith("ccnn: error: ") and told.count("\n") == 1 and path.name in told)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "las", "nc", "ply"])
def test_truncated_files_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    """A copy that was cut off within its header."""
    path = tmp_path / f"whole.{suffix}"
    if suffix == "nii.gz":
        nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4)), path)
    elif suffix == "nrrd":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.float32)), str(path))
    elif suffix == "las":
        tile = laspy.create()
        tile.x = tile.y = tile.z = np.arange(9.0)
        tile.write(path)
    elif suffix == "nc":
        xr.Dataset({"a": ("x", np.zeros(9))}).to_netcdf(path, engine="h5netcdf")
    else:
        path.write_text("ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1\n", encoding="utf-8")
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(path)])
    told = capsys.readouterr().err
    assert told.startswith("ccnn: error: ")
    assert told.count("\n") == 1
    assert path.name in told


def test_clouds_without_points(tmp_path: Path) -> None:
    """Not one of one class, nor an error of the smallest of no numbers."""
    laspy.create().write(tmp_path / "empty.las")
    head = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "empty.ply").write_text(head, encoding="utf-8")
    for name in ("empty.las", "empty.ply"):
        found = inspected(tmp_path / name)
        assert found.doubts == ["no points"]
        assert found.next is None


def test_a_folder_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert inspected(tmp_path).what == "a folder of 1 file"


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_nifti_cut_off_behind_its_header_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((9, 8, 7)), np.eye(4)), path)
    whole = inspected(path)
    assert not any("bytes" in doubt for doubt in whole.doubts)
    assert whole.next is not None
    path.write_bytes(path.read_bytes()[:-200])
    found = inspected(path)
    assert (found.what, found.next) == ("a NIfTI volume that is cut off", None)
    assert "bytes of the" in found.doubts[0]
    assert found.facts["voxels"] == "9 x 8 x 7"


def write_long(path: Path, variable: str = "Was", value: str = "Messwert") -> Path:
    """A table of a ward: pulse and temperature of four patients at five times each, in the form of a spreadsheet."""
    rows = [
        f"P{patient};{2024013100 + hour};{what};{number},5"
        for patient in range(4)
        for hour in range(5)
        for what, number in (("Puls", 80 + hour), ("Körpertemperatur", 37))
    ]
    text = "\n".join([f"Patientennummer;Messzeitpunkt;{variable};{value}", *rows])
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "way"),
    [("Messwert", "--data.columns.variable Was"),
     ("Zahl", "--data.columns.variable Was --data.columns.value Zahl")],
)  # fmt: skip
def test_a_long_table_of_other_names_is_not_averaged_over_its_variables(tmp_path: Path, value: str, way: str) -> None:
    """Neither ``inspect`` nor ``fit`` advises the mean of a pulse and a temperature; what they advise reads both."""
    path = write_long(tmp_path / "ward.csv", value=value)
    found = inspected(path)
    assert (
        f"20 rows repeat another one's Patientennummer, Messzeitpunkt: looks like a long table: {way}" in found.doubts
    )
    assert found.next is not None
    assert way in found.next
    assert "mean" not in f"{found.doubts} {found.next}"
    frame = pd.read_csv(path, sep=";", decimal=",")
    columns = tables.Columns(time_format="%Y%m%d%H")
    with pytest.raises(ValueError, match=rf"looks like a long table: {way}\)") as told:
        tables.from_frames(frame, columns=columns)
    assert "mean" not in str(told.value)
    chosen = replace(columns, variable="Was", value=value)
    assert tables.from_frames(frame, columns=chosen).series.variables == ("Puls", "Körpertemperatur")
    if value == "Zahl":
        with pytest.raises(ValueError, match=r"data.columns.value must name a column of the table"):
            tables.from_frames(frame, columns=replace(columns, variable="Was"))


def test_words_that_do_not_part_the_repeats_are_no_variables() -> None:
    frame = pd.DataFrame(
        {"id": ["a"] * 8, "time": [0, 0, 1, 1, 2, 2, 3, 3], "ward": ["x", "x", "y", "y"] * 2, "v": 1.0}
    )
    with pytest.raises(ValueError, match="mean, first or last chooses"):
        tables.from_frames(frame)


def test_a_quantity_is_a_usual_name_of_the_variables(tmp_path: Path) -> None:
    for name in ("Größe", "Parameter", "Kenngröße", "Messgröße"):
        found = inspected(write_long(tmp_path / "ward.csv", name))
        assert "series in long form" in found.what
        assert not any("repeat" in doubt for doubt in found.doubts)


def test_the_command_to_type_next_reads_dates_of_numbers_and_decimal_commas(tmp_path: Path) -> None:
    """As training words it; the command then runs up to the table of labels."""
    path = write_long(tmp_path / "ward.csv", "Größe")
    found = inspected(path)
    assert "decimal commas in Messwert: --data.columns.decimal ," in found.doubts
    assert "dates written as numbers (2024013100): --data.columns.time_format '%Y%m%d%H'" in found.doubts
    assert "2024-01-31 00:00:00+00:00 to 2024-01-31 04:00:00+00:00" in found.facts["Messzeitpunkt"]
    assert "01:00:00 the median one" in found.facts["gaps"]
    assert found.next == (
        f"ccnn fit --config series --data.table {path} --data.labels LABELS.csv --run_dir runs/mine "
        "--data.columns.decimal , --data.columns.time_format '%Y%m%d%H'"
    )
    typed = shlex.split(found.next.split("runs/mine ")[1])
    chosen = {name.removeprefix("--data.columns."): word for name, word in zip(typed[::2], typed[1::2], strict=True)}
    read = tables.read(path, columns=tables.Columns(**chosen))
    assert read.series.variables == ("Puls", "Körpertemperatur")
    words = path.read_text(encoding="utf-8").replace("20240131", "31.01.2024 ").replace(" 0", " 10:0")
    path.write_text(words, encoding="utf-8")
    assert str(inspected(path).next).endswith("--data.columns.decimal , --data.columns.time_format '%d.%m.%Y %H:%M'")


def test_a_table_of_labels_is_given_as_one(tmp_path: Path) -> None:
    path = tmp_path / "stay.csv"
    path.write_text("Patientennummer;Verweildauer\nP000;3,5\nP001;12\n", encoding="utf-8")
    found = inspected(path)
    assert "a table of labels? give it to --data.labels" in found.what
    assert found.next == (
        f"ccnn fit --config series --data.table VALUES.csv --data.labels {path} --run_dir runs/mine "
        "--data.columns.decimal ,"
    )
    assert not any("usual names" in doubt for doubt in found.doubts)


def write_pictures(root: Path) -> Path:
    """Two folders of photographs, two of the files broken."""
    draw = np.random.default_rng(0)
    for label, count in (("beech", 4), ("oak", 3)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.{'jpg' if number else 'png'}")
    return root


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    """Classes, counts, sizes and the command; broken ones are named from their beginning and their end alone."""
    root = write_pictures(tmp_path / "photos")
    (root / "notes.csv").write_text("a\n1\n", encoding="utf-8")
    found = inspected(root)
    assert found.what == "pictures in a folder for each class"
    assert found.facts["classes"] == "beech (4), oak (3)"
    assert found.facts["sizes"] == "20 x 30 to 23 x 30 pixels along y and x"
    assert found.doubts == []
    assert found.next == f"ccnn fit --config shiftwise_images --data.root {root}"
    (root / "oak" / "1.jpg").write_bytes((root / "oak" / "2.jpg").read_bytes()[:-100])
    (root / "oak" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9))
    (root / "loose.png").write_bytes((root / "beech" / "0.png").read_bytes()[:-12])
    found = inspected(root)
    assert found.doubts == [
        "pictures outside of a folder of their class: loose.png",
        "no whole pictures: loose.png, oak/0.png, oak/1.jpg",
    ]
    (root / "oak").rename(root / "beech" / "oak")
    assert "beech/oak/2.jpg" in inspected(root).doubts[0]


def test_broken_scans_in_folders_of_classes_are_named(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).random((9, 8, 7))
    for name in ("ill/a.nii.gz", "ill/b.nii", "sound/c.nii.gz", "sound/d.nii", "sound/e.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    assert not any("bytes" in doubt for doubt in inspected(tmp_path).doubts)
    for name in ("ill/b.nii", "sound/c.nii.gz"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
    (tmp_path / "sound/e.nii.gz").write_bytes(b"no scan")
    found = inspected(tmp_path)
    assert found.what == "scans in a folder for each class"
    assert found.facts["classes"] == "ill (2), sound (3)"
    told = "; ".join(found.doubts)
    for name in ("ill/b.nii: ", "sound/c.nii.gz: ", "sound/e.nii.gz: "):
        assert name in told
    assert "ill/a.nii.gz" not in told
    assert "labels.csv" in told
    (tmp_path / "labels.csv").write_text("file,label\nill/a.nii.gz,ill\n", encoding="utf-8")
    found = inspected(tmp_path)
    assert found.next == f"ccnn fit --config scan_classes --data.root {tmp_path} --run_dir runs/mine"
    assert any("sound/c.nii.gz: " in doubt for doubt in found.doubts)
