"""Waves, sampling rates, cepstral coefficients; Free Spoken Digits and Speech Commands, their files and faults."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from ccnn_irregular import Grid
from ccnn_irregular.datasets import speech_commands, spoken_digits
from ccnn_irregular.datasets.processing.audio import mfcc, read_wave, resample
from ccnn_irregular.datasets.reading.archive import read_archive
from ccnn_irregular.datasets.samples import GriddedSamples
from ccnn_irregular.pipelines.tasks.classification.data import SampleDataModule


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, rate, samples)
    return stream.getvalue()


def ramp(length: int, start: int = 0) -> np.ndarray:
    return (start + np.arange(length)).astype(np.int16)


# ------------------------------------------------------------------------------------------------------------- waves


def test_waves_with_an_extended_format_and_from_a_pipe() -> None:
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, 300).astype(np.int16)
    plain = wav(samples)
    # Format 0xFFFE of 40 bytes: size of the extension, valid bits, speakers, and an identifier that begins with 1, PCM.
    identifier = bytes.fromhex("0100000000001000800000aa00389b71")
    extended = b"\xfe\xff" + plain[22:36] + b"\x16\x00\x10\x00" + (4).to_bytes(4, "little") + identifier
    chunks = b"WAVEfmt " + (40).to_bytes(4, "little") + extended + plain[36:]
    found = read_wave("x.wav", b"RIFF" + len(chunks).to_bytes(4, "little") + chunks, 8000)
    np.testing.assert_array_equal(found, samples)
    for unknown in (b"\xff" * 4, bytes(4)):
        piped = plain[:4] + unknown + plain[8:40] + unknown + plain[44:]
        np.testing.assert_array_equal(read_wave("x.wav", piped, 8000), samples)


def test_rates_of_any_decimal_numbers() -> None:
    values = np.cumsum(np.random.default_rng(2).standard_normal(400))
    for old, new in ((1.0, 0.1), (100.0, 33.3), (1 / 0.03, 10.0)):
        assert len(resample(values, old, new)) == int(np.ceil(400 * round(new / old, 9)))
    with pytest.raises(ValueError, match=r"to_rate must be p / q times 1 .* such as 0\.3141\d+, got 0\.31415926"):
        resample(values, 1.0, 0.31415926)


def test_samples_of_a_wave() -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 500).astype(np.int16)
    np.testing.assert_array_equal(read_wave("x.wav", wav(samples), 8000), samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(ramp(100))[:-7], "x.wav must hold the 100 samples it announces, got 96"),
        (wav(ramp(100))[:30], "x.wav must be a complete wave file, got a damaged one"),
        (b"RIFF but no wave", "x.wav must be a complete wave file, got a damaged one"),
        (b"", "x.wav must be a complete wave file, got a damaged one"),
        (wav(ramp(0)), "x.wav must hold at least one sample, got none"),
        (wav(ramp(100), 16000), "x.wav must have 1 channel, 16 bits, 8000 Hz, got 1 channels, 16 bits, 16000 Hz"),
        (wav(np.zeros((9, 2), np.int16)), "8000 Hz, got 2 channels, 16 bits, 8000 Hz"),
        (wav(np.zeros(9, np.uint8)), "8000 Hz, got 1 channels, 8 bits, 8000 Hz"),
        (
            wav(np.zeros(9, np.float32)),
            "x.wav must be a complete wave file, got a damaged one: Error: unknown format: 3",
        ),
    ],
)
def test_broken_and_foreign_waves_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_wave("x.wav", content, 8000)


# ------------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("to_rate", [4000, 6400, 8000, 12000, 11025])
def test_a_resampled_tone_is_the_tone_at_the_new_times(to_rate: int) -> None:
    times = np.arange(4000) / 8000
    resampled = resample(np.sin(2 * np.pi * 440 * times), 8000, to_rate)
    assert len(resampled) == -(-4000 * to_rate // 8000)
    new_times = np.arange(len(resampled)) / to_rate
    inner = slice(200, -200)
    np.testing.assert_allclose(resampled[inner], np.sin(2 * np.pi * 440 * new_times)[inner], atol=0.01)


def test_what_a_lower_rate_cannot_hold_is_filtered_out_or_aliased_as_asked() -> None:
    tone = np.sin(2 * np.pi * 3000 * np.arange(4000) / 8000)
    assert np.abs(resample(tone, 8000, 4000)[200:-200]).max() < 0.02
    np.testing.assert_array_equal(resample(tone, 8000, 4000, smooth=False), tone[::2])
    assert resample(tone.astype(np.float32), 8000, 4000).dtype == np.float32


@given(
    level=st.floats(-1e30, 1e30),
    slope=st.floats(-10, 10),
    length=st.integers(1, 300),
    rates=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_constants_and_ramps_keep_their_values_up_to_the_ends(
    level: float, slope: float, length: int, rates: tuple[int, int]
) -> None:
    level, slope = (level, 0.0) if abs(level) > 1e3 else (level, slope)
    times = np.arange(length)
    for dtype, rtol in ((np.float64, 1e-10), (np.float32, 1e-4)):
        result = resample((level + slope * times).astype(dtype), *rates)
        new = np.arange(len(result)) * rates[0] / rates[1] * (length > 1)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, level + slope * new, rtol=rtol, atol=rtol * (abs(level) + 10 * length))


@pytest.mark.parametrize("to_rate", [0.25, 0.5, 0.75, 2.0, 3.0])
def test_a_body_temperature_does_not_start_from_the_cold(to_rate: float) -> None:
    times = np.arange(200)
    result = resample(37 + 0.5 * np.sin(2 * np.pi * times / 80), 1.0, to_rate)
    new = np.arange(len(result)) / to_rate
    inside = new <= times[-1]
    np.testing.assert_allclose(result[inside], (37 + 0.5 * np.sin(2 * np.pi * new / 80))[inside], atol=0.05)


@pytest.mark.parametrize("step", [3600.0, 7e-7, 2e6, 1 / 3])
def test_rates_of_any_unit(step: float) -> None:
    """One sample an hour, in seconds, is a rate of 0.00027777...: half of it is half of it."""
    np.testing.assert_allclose(resample(np.full(100, 37.0), 1 / step, 1 / (2 * step)), np.full(50, 37.0))
    np.testing.assert_allclose(resample(np.full(100, 37.0), 1 / step, 1 / step), np.full(100, 37.0))


def test_what_is_missing_is_not_spread() -> None:
    values = np.ones(100)
    values[[3, 50]] = np.nan
    with pytest.raises(ValueError, match="values must be finite to be resampled, got 2 of 100 missing or infinite"):
        resample(values, 8000, 4000)


@pytest.mark.parametrize(
    ("rate", "smooth", "message"),
    [
        (0, True, r"rates must be positive, got \(8000, 0\)"),
        (8000 / np.pi, True, "to_rate must be p / q times 8000 with whole numbers up to 10,000, such as 2546.47887"),
        (6400, False, "to_rate must be 8000 divided by an integer without smoothing, got 6400"),
    ],
)
def test_wrong_rates_are_refused(rate: float, smooth: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(np.zeros(10), 8000, rate, smooth=smooth)


# ------------------------------------------------------------------------------------------------------ coefficients


def recordings(values: np.ndarray, rate: float, unit: str = "s") -> GriddedSamples:
    tensor = torch.from_numpy(np.atleast_2d(values).astype(np.float32))[:, None]
    labels = torch.zeros(len(tensor), dtype=torch.int64)
    return GriddedSamples(tensor, Grid((tensor.shape[2],), (1 / rate,)), labels, ("a",), unit)


# What torchaudio 2.11 computes for the signal below (MFCC, log_mels=True, n_mfcc=20, n_fft=200, n_mels=64): frame ->
# the first six and the last three coefficients, to three decimals.
TORCHAUDIO = {
    0: ([-11.185, 9.117, 0.728, 5.121, -8.703, -13.087], [-0.561, -1.242, 0.969]),
    40: ([-73.65, 11.517, -28.625, -11.891, -1.987, -0.693], [4.783, -3.047, -2.302]),
    80: ([-79.895, -0.998, -35.638, 4.98, 20.876, -8.033], [0.699, -5.825, 1.518]),
    160: ([-17.155, -11.124, -11.336, 4.714, -6.104, -4.833], [3.086, -0.801, -2.312]),
}


def test_coefficients_are_those_of_torchaudio() -> None:
    times = np.arange(16000) / 16000
    signal = 0.4 * np.sin(2 * np.pi * (300 * times + 1500 * times**2)) + 0.1 * np.sin(2 * np.pi * 2500 * times)
    found = mfcc(recordings(signal, 16000))
    assert found.values.shape == (1, 20, 161)
    assert found.grid == Grid((161,), (0.00625,))
    for frame, (first, last) in TORCHAUDIO.items():
        np.testing.assert_allclose(found.values[0, :6, frame], first, atol=1.5e-3)
        np.testing.assert_allclose(found.values[0, 17:, frame], last, atol=1.5e-3)


def test_coefficients_at_another_rate_describe_the_same_sound() -> None:
    def sound(rate: int) -> GriddedSamples:
        times = np.arange(rate) / rate
        return recordings(np.stack([np.sin(2 * np.pi * f * times) for f in (500, 1500)]), rate)

    full, half = (mfcc(sound(rate), mels=32, window=0.025, hop=0.01) for rate in (16000, 8000))
    assert full.grid == half.grid == Grid((101,), (0.01,))
    assert len(half) == 2
    # The batch is cut into parts inside: each recording's result is its own.
    alone = mfcc(sound(8000).subset(torch.tensor([1])), mels=32, window=0.025, hop=0.01)
    np.testing.assert_allclose(alone.values[0], half.values[1], atol=1e-4)
    assert float((half.values[0] - half.values[1]).abs().max()) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficients": 65}, r"coefficients must lie in 1\.\.64, got 65"),
        ({"window": 2.0}, "window must cover 2 to 1000 samples at 1000 Hz, got 2000"),
        ({"window": 0.001}, "window must cover 2 to 1000 samples at 1000 Hz, got 1"),
        ({"window": 0.1, "hop": 0.0001}, "hop must be at least one sample at 1000 Hz, got 0.0001"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mfcc(recordings(np.zeros(1000), 1000), **options)


def test_coefficients_need_one_channel_in_seconds() -> None:
    with pytest.raises(ValueError, match="recordings must have coordinates in seconds, got 'h'"):
        mfcc(recordings(np.zeros(1000), 1000, unit="h"))
    image = GriddedSamples(
        torch.zeros(1, 1, 4, 4), Grid((4, 4), (1.0, 1.0)), torch.zeros(1, dtype=torch.int64), ("a",), "s"
    )
    with pytest.raises(ValueError, match=r"recordings must have values \(B, 1, n\), got \(1, 1, 4, 4\)"):
        mfcc(image)


# ---------------------------------------------------------------------------------------------------- spoken digits


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def digit_files() -> dict[str, bytes]:
    """Indices 0 to 6 of two digits and two speakers; the first value says digit, speaker and index."""
    return {
        f"{digit}_{speaker}_{index}.wav": wav(ramp(10 + index, 1000 * digit + 100 * (speaker == "nicolas") + index))
        for digit in (7, 3)
        for speaker in ("theo", "nicolas")
        for index in range(7)
    }


@pytest.mark.parametrize("kind", ["archive", "folder of an archive", "folder", "recordings"])
def test_spoken_digits_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    root = tmp_path
    if "archive" in kind:
        files = {f"free-spoken-digit-dataset-1.0.10/recordings/{key}": value for key, value in digit_files().items()}
        path = pack(tmp_path / "fsdd.tar.gz", files | {"free-spoken-digit-dataset-1.0.10/README.md": b"text"})
        root = path if kind == "archive" else tmp_path
    else:
        folder = tmp_path / "recordings" if kind == "recordings" else tmp_path
        folder.mkdir(exist_ok=True)
        for name, content in digit_files().items():
            (folder / name).write_bytes(content)
    train, test, everything = (spoken_digits.load(root, part) for part in ("train", "test", "all"))  # type: ignore[arg-type]
    assert (len(train), len(test), len(everything)) == (8, 20, 28)
    assert test.splits.diff().tolist() == [10, 11, 12, 13, 14] * 4
    assert train.splits.diff().tolist() == [15, 16] * 4
    first = (test.values[test.splits[:-1], 0] * 2**15).tolist()
    assert first == [start + index for start in (3100, 3000, 7100, 7000) for index in range(5)]
    assert test.labels.tolist() == [3] * 10 + [7] * 10
    np.testing.assert_allclose(test.coordinates[:10, 0], np.arange(10) / 8000, rtol=1e-15)
    assert (test.unit, test.values.dtype) == ("s", torch.float32)


def test_whole_speakers_can_be_held_out(tmp_path: Path) -> None:
    for name, content in digit_files().items():
        (tmp_path / name).write_bytes(content)
    train, test, everything = (
        spoken_digits.load(tmp_path, part, held_speakers=["nicolas"])  # type: ignore[arg-type]
        for part in ("train", "test", "all")
    )
    first = [(one.values[one.splits[:-1], 0] * 2**15).round().long() for one in (train, test)]
    assert [(one % 1000 // 100).unique().tolist() for one in first] == [[0], [1]]
    assert (len(train), len(test), len(everything)) == (14, 14, 28)
    with pytest.raises(ValueError, match="held_speakers must be of the speakers nicolas, theo, got lucas"):
        spoken_digits.load(tmp_path, held_speakers=["theo", "lucas"])
    data = SampleDataModule("spoken_digits", str(tmp_path), options={"held_speakers": ["theo"]}, validation=0.3)
    data.setup("fit")
    assert data.describe()["samples"]["test"] == 14
    assert data.describe()["options"] == {"held_speakers": ["theo"]}
    with pytest.raises(ValueError, match="options of mnist must be among download, progress, got held_speakers"):
        SampleDataModule("mnist", str(tmp_path), options={"held_speakers": ["theo"]})


NAMES = {
    "0_theo_0.wav": (0, 0),
    "1_Nicolas2_0.wav": (1, 0),
    "2_anne-marie_0.wav": (2, 0),
    "3_O'Neil_11.wav": (3, 11),
    "4_José_0.WAV": (4, 0),
    "5_speaker_7_0.wav": (5, 0),
    "6_mary ann_3.Wav": (6, 3),
    "7_s.b._00.wav": (7, 0),
}


@pytest.mark.parametrize("archive", [False, True])
def test_good_recordings_are_read_whatever_the_speaker_is_called(tmp_path: Path, archive: bool) -> None:
    files = {name: wav(ramp(10 + digit)) for name, (digit, _) in NAMES.items()}
    if archive:
        pack(tmp_path / "all.tar.gz", {f"recordings/{name}": content for name, content in files.items()})
    else:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    series = spoken_digits.load(tmp_path, "all")
    assert series.labels.tolist() == list(range(8))
    assert series.splits.diff().tolist() == list(range(10, 18))
    assert len(spoken_digits.load(tmp_path, "train")) == sum(index >= 5 for _, index in NAMES.values())


def test_recordings_that_are_left_out_are_counted_and_named(tmp_path: Path) -> None:
    for name in ("0_theo_0.wav", "zero_theo_1.wav", "12_theo_2.wav", "1_theo.wav", "._0_theo_0.wav"):
        (tmp_path / name).write_bytes(wav(ramp(10)))
    told = r"3 of 4 wave files of .* by their names: 12_theo_2.wav, 1_theo.wav, zero_theo_1.wav; rename them <digit>_"
    with pytest.warns(UserWarning, match=told):
        assert len(spoken_digits.load(tmp_path, "all")) == 1


def test_spoken_digits_at_another_rate(tmp_path: Path) -> None:
    times = np.arange(2000) / 8000
    tone = 12000 * np.sin(2 * np.pi * 300 * times)
    (tmp_path / "4_theo_0.wav").write_bytes(wav(tone.astype(np.int16)))
    for rate, smooth, length in ((4000, True, 1000), (6400, True, 1600), (4000, False, 1000)):
        series = spoken_digits.load(tmp_path, "test", rate=rate, smooth=smooth)
        assert series.splits.tolist() == [0, length]
        expected = 12000 / 2**15 * np.sin(2 * np.pi * 300 * series.coordinates[:, 0].numpy())
        np.testing.assert_allclose(series.values[100:-100, 0], expected[100:-100], atol=0.005)


def test_missing_and_damaged_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root must be an existing folder or .tar.gz archive, got"):
        spoken_digits.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"must hold recordings <digit>_<speaker>_<index>.wav.*an empty folder"):
        spoken_digits.load(tmp_path)
    with pytest.raises(ValueError, match=r"part must be one of \('train', 'test', 'all'\), got 'dev'"):
        spoken_digits.load(tmp_path, "dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must hold recordings .*, got 1 other files"):
        spoken_digits.load(pack(tmp_path / "other.tar.gz", {"music/song.wav": wav(ramp(5))}))
    twice = {"a/1_theo_0.wav": wav(ramp(5)), "b/1_theo_0.wav": wav(ramp(6))}
    with pytest.raises(ValueError, match=r"must hold every recording once, got 1_theo_0.wav twice"):
        spoken_digits.load(pack(tmp_path / "twice.tar.gz", twice))
    (tmp_path / "0_theo_9.wav").write_bytes(wav(ramp(50))[:-1])
    with pytest.raises(ValueError, match=r"0_theo_9.wav must hold the 50 samples it announces, got 49"):
        spoken_digits.load(tmp_path)
    with pytest.raises(ValueError, match=r"the part test of .* must hold recordings, got none of 1"):
        spoken_digits.load(tmp_path, "test")


def test_the_real_spoken_digits(shared_data: Path) -> None:
    path = shared_data / "audio" / "fsdd_recordings.tar.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    train, test = spoken_digits.load(path), spoken_digits.load(path.parent, "test")
    assert (len(train), len(test)) == (2700, 300)
    lengths = torch.cat([train.splits.diff(), test.splits.diff()])
    assert (int(lengths.min()), int(lengths.max())) == (1148, 18262)
    assert torch.bincount(test.labels).tolist() == [30] * 10
    # One recording against another reader of wave files.
    content = read_archive(path)["recordings/0_george_0.wav"]
    rate, samples = wavfile.read(io.BytesIO(content))
    assert rate == spoken_digits.RATE
    np.testing.assert_array_equal(test.values[: len(samples), 0].numpy(), samples / np.float32(2**15))


# -------------------------------------------------------------------------------------------------- speech commands

LISTS = {"validation_list.txt": b"yes/b_nohash_0.wav\nno/b_nohash_0.wav\n", "testing_list.txt": b"yes/c_nohash_0.wav\n"}


def command_files() -> dict[str, bytes]:
    """Two words with three utterances, and one word that is not asked for; c is short, values say which it is."""
    files = dict(LISTS)
    for number, word in enumerate(("yes", "no", "tree")):
        for position, (speaker, length) in enumerate((("a", 16000), ("b", 16000), ("c", 9000))):
            constant = np.full(length, 100 * number + position + 1, np.int16)
            files[f"{word}/{speaker}_nohash_0.wav"] = wav(constant, 16000)
    files["_background_noise_/noise.wav"] = wav(ramp(100), 16000)
    return files


def place_commands(root: Path, files: dict[str, bytes], packed: bool) -> Path:
    if packed:
        pack(root / "speech_commands_v0.02.tar.gz", {f"./{name}": content for name, content in files.items()})
    else:
        for name, content in files.items():
            path = root / "speech_commands_v0.02" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def load_commands(root: Path, *arguments: Any, **options: Any) -> GriddedSamples:
    return speech_commands.load(root, *arguments, **({"words": ("no", "yes"), "cache": False} | options))


@pytest.mark.parametrize("packed", [True, False])
def test_speech_commands(tmp_path: Path, packed: bool) -> None:
    root = place_commands(tmp_path, command_files(), packed)
    everything = load_commands(root, "all")
    assert everything.values.shape == (4, 1, 16000)
    assert everything.labels.tolist() == [0, 0, 1, 1]
    assert everything.classes == ("no", "yes")
    assert (everything.values[:, 0, 5] * 2**15).tolist() == [101, 102, 1, 2]
    assert everything.grid == Grid((16000,), (1 / 16000,))
    assert (load_commands(root, "train").values[:, 0, 0] * 2**15).tolist() == [101, 1]
    assert (load_commands(root, "validation").values[:, 0, 0] * 2**15).tolist() == [102, 2]
    padded = load_commands(root, "test", short="pad")
    assert (padded.values[0, 0] * 2**15).tolist() == [3] * 9000 + [0] * 7000
    with pytest.raises(ValueError, match="the part 'test of full length' must hold utterances of the words, got none"):
        load_commands(root, "test")


def test_speech_commands_at_half_the_rate_and_at_their_true_lengths(tmp_path: Path) -> None:
    root = place_commands(tmp_path, command_files(), packed=False)
    half = load_commands(root, "all", rate=8000)
    assert half.values.shape == (4, 1, 8000)
    assert half.grid == Grid((8000,), (1 / 8000,))
    np.testing.assert_allclose(half.values[:, 0, 4000] * 2**15, [101, 102, 1, 2], rtol=2e-3)
    ragged = speech_commands.load_ragged(root, "all", ("no", "yes"), cache=False)
    assert ragged.splits.diff().tolist() == [16000, 16000, 9000] * 2
    assert float(ragged.coordinates.max()) == 15999 / 16000
    assert ragged.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_speech_commands_come_from_the_cache_while_the_archive_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place_commands(tmp_path, command_files(), packed=True)
    cache = tmp_path / "cache"
    first = load_commands(root, "all", cache=cache)
    calls: list[Path] = []
    original = speech_commands.read_members
    monkeypatch.setattr(
        speech_commands, "read_members", lambda path, wanted: calls.append(path) or original(path, wanted)
    )
    again = load_commands(root, "validation", cache=cache)
    assert calls == []
    np.testing.assert_array_equal(again.values, first.values[[1, 3]])
    load_commands(root, "all", words=("yes",), cache=cache)
    assert len(calls) == 1
    files = command_files() | {"no/a_nohash_0.wav": wav(np.full(16000, 7, np.int16), 16000)}
    changed = load_commands(place_commands(tmp_path, files, packed=True), "all", cache=cache)
    assert len(calls) == 2
    assert float(changed.values[0, 0, 0]) * 2**15 == 7


def test_wrong_words_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"words must be different ones of the 35 in WORDS, got \['hello'\]"):
        load_commands(tmp_path, words=("yes", "hello"))
    with pytest.raises(ValueError, match=r"words must be different ones of the 35 in WORDS, got \('no', 'no'\)"):
        load_commands(tmp_path, words=("no", "no"))
    with pytest.raises(ValueError, match=r"short must be one of \('drop', 'pad'\), got 'keep'"):
        load_commands(tmp_path, short="keep")
    with pytest.raises(ValueError, match=r"part must be one of \('train', 'validation', 'test', 'all'\), got 'dev'"):
        load_commands(tmp_path, "dev")
    with pytest.raises(FileNotFoundError, match=r"must hold speech_commands_v0.02.tar.gz or the folder .*empty"):
        load_commands(tmp_path)
    place_commands(tmp_path, command_files(), packed=False)
    with pytest.raises(FileNotFoundError, match="and a folder for each of the words, up too, got"):
        load_commands(tmp_path, words=("up",))
    (tmp_path / "speech_commands_v0.02" / "testing_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testing_list.txt too, got"):
        load_commands(tmp_path)


def test_broken_speech_commands_are_refused(tmp_path: Path) -> None:
    files = command_files()
    place_commands(tmp_path, files, packed=True)
    with pytest.raises(ValueError, match=r"speech_commands_v0.02.tar.gz must hold utterances of every word, got none"):
        load_commands(tmp_path, words=("yes", "up"))
    place_commands(tmp_path, files | {"no/d_nohash_0.wav": wav(ramp(16001), 16000)}, packed=True)
    with pytest.raises(ValueError, match="utterances must have at most 16000 samples, got 16001"):
        load_commands(tmp_path)
    place_commands(tmp_path, files | {"no/d_nohash_0.wav": files["no/a_nohash_0.wav"][:-2]}, packed=True)
    with pytest.raises(ValueError, match=r"no/d_nohash_0.wav must hold the 16000 samples it announces, got 15999"):
        load_commands(tmp_path)
    del files["validation_list.txt"]
    place_commands(tmp_path, files, packed=True)
    with pytest.raises(ValueError, match=r"must hold validation_list.txt, got none"):
        load_commands(tmp_path)


def test_the_words_are_those_of_the_papers() -> None:
    assert len(set(speech_commands.WORDS)) == 35
    assert set(speech_commands.TEN_WORDS) <= set(speech_commands.WORDS)
    assert len(speech_commands.TEN_WORDS) == 10
