"""MNIST, CIFAR and STL-10: official formats written byte by byte, what breaks them, archives, the real files."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccnn_irregular import Grid
from ccnn_irregular.datasets import cifar, mnist, stl10

Bytes = np.ndarray  # of dtype uint8

# ------------------------------------------------------------------------------------------------------------- MNIST


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def digits() -> tuple[Bytes, Bytes]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (7, 28, 28), np.uint8), np.array([3, 0, 9, 1, 1, 5, 2], np.uint8)


def write_mnist(root: Path, images: Bytes, labels: Bytes, prefix: str = "t10k", packed: bool = True) -> Path:
    for kind, content in (("images-idx3", idx(images)), ("labels-idx1", idx(labels))):
        name = f"{prefix}-{kind}-ubyte"
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_idx_files(tmp_path: Path, digits: tuple[Bytes, Bytes], packed: bool) -> None:
    images, labels = digits
    loaded = mnist.load(write_mnist(tmp_path, images, labels, packed=packed), "test")
    np.testing.assert_array_equal(loaded.values[:, 0].numpy(), images / np.float32(255))
    assert loaded.values.dtype == torch.float32
    assert loaded.labels.tolist() == labels.tolist()
    assert loaded.grid == Grid((28, 28), (1.0, 1.0))
    assert (loaded.classes, loaded.unit) == (tuple("0123456789"), "pixel")
    with pytest.raises(FileNotFoundError, match=r"must hold train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz"):
        mnist.load(tmp_path, "train")


def test_mnist_npz(tmp_path: Path, digits: tuple[Bytes, Bytes]) -> None:
    images, labels = digits
    np.savez(tmp_path / "mnist.npz", x_train=images[:4], y_train=labels[:4], x_test=images[4:], y_test=labels[4:])
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 7))):
        loaded = mnist.load(tmp_path, part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(loaded.values[:, 0].numpy(), images[rows] / np.float32(255))
        assert loaded.labels.tolist() == labels[rows].tolist()


def broken(content: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "magic": (b"\0\0\x0d\3" + content[4:], "must start with the magic number 0x00000803, got 0x00000d03"),
        "labels": (idx(np.zeros(7, np.uint8)), "must start with the magic number 0x00000803, got 0x00000801"),
        "truncated": (content[:-5], r"must hold 5488 bytes for its sizes \(7, 28, 28\), got 5483"),
        "longer": (content + b"\0", r"must hold 5488 bytes for its sizes \(7, 28, 28\), got 5489"),
        "header": (content[:9], "must hold 3 sizes, got a file that ends after 9 bytes"),
        "empty": (b"", "must start with the magic number 0x00000803, got 0x"),
    }


@pytest.mark.parametrize("fault", ["magic", "labels", "truncated", "longer", "header", "empty"])
def test_broken_idx_files_are_refused(tmp_path: Path, digits: tuple[Bytes, Bytes], fault: str) -> None:
    content, message = broken(idx(digits[0]))[fault]
    write_mnist(tmp_path, *digits)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=rf"t10k-images-idx3-ubyte.gz {message}"):
        mnist.load(tmp_path, "test")


def test_damaged_gzip_labels_out_of_range_and_missing_labels(tmp_path: Path, digits: tuple[Bytes, Bytes]) -> None:
    images, labels = digits
    packed = gzip.compress(idx(images))
    path = write_mnist(tmp_path, images, labels) / "t10k-images-idx3-ubyte.gz"
    for content in (packed[:-20], b"not gzip at all", packed[:50] + b"\xff\xff" + packed[52:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz must be a complete gzip file, got a damaged"):
            mnist.load(tmp_path, "test")
    labels[2] = 10
    write_mnist(tmp_path, images, labels)
    with pytest.raises(ValueError, match=r"labels in t10k-labels-idx1-ubyte.gz must lie in 0..9, got 10 for sample 2"):
        mnist.load(tmp_path, "test")
    write_mnist(tmp_path, images, labels[:6] % 10)
    with pytest.raises(ValueError, match="must hold one label for each of the 7 images, got 6"):
        mnist.load(tmp_path, "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((2, 28, 28), np.uint8)}, r"mnist.npz must hold the arrays x_train, y_train, got \['x_tr"),
        ({"x_train": np.zeros((2, 28, 28)), "y_train": np.zeros(2, np.uint8)}, "x_train must be uint8 of three axes"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8), "y_train": np.zeros(2)}, "y_train must be integers of one axis"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        mnist.load(tmp_path)


def test_pickled_and_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=np.array([{}], object), y_train=np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match=r"mnist.npz must be a complete .npz file of numbers.*allow_pickle=False"):
        mnist.load(tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(
        ValueError, match=r"mnist.npz must be a complete .npz file of numbers, got a damaged one: BadZipFile: File"
    ):
        mnist.load(tmp_path)


def test_missing_folders_and_parts_are_named(tmp_path: Path) -> None:
    for load in (mnist.load, cifar.load, stl10.load):
        with pytest.raises(FileNotFoundError, match=r"root must be an existing folder, got .*nowhere"):
            load(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match=r"must hold .*download=True.*, got an empty folder"):
            load(tmp_path)
    with pytest.raises(ValueError, match=r"part must be one of \('train', 'test'\), got 'valid'"):
        mnist.load(tmp_path, "valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name must be one of \('cifar10', 'cifar100'\), got 'cifar'"):
        cifar.load(tmp_path, "cifar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels must be one of \('fine',\), got 'coarse'"):
        cifar.load(tmp_path, labels="coarse")


def test_the_real_mnist(shared_data: Path) -> None:
    root = shared_data / "mnist"
    if not (root / "mnist.npz").is_file():
        pytest.skip(f"no mnist.npz in {root}")
    train, test = mnist.load(root, "train"), mnist.load(root, "test")
    assert (train.values.shape, test.values.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    # Counts of the digits as the data set's description gives them.
    assert torch.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(train.values.mean()) == pytest.approx(mnist.MEAN[0], abs=5e-5)
    assert float(train.values.std()) == pytest.approx(mnist.STANDARD_DEVIATION[0], abs=5e-5)


# ----------------------------------------------------------------------------------------------------- CIFAR, STL-10


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def place(root: Path, archive: str, folder: str, files: dict[str, bytes], packed: bool) -> Path:
    """The files of a data set in ``root``, as its archive or as the folder in it."""
    if packed:
        others = {f"{folder}/readme.html": b"<html>", f"{folder}/unlabeled_X.bin": bytes(10**6)}
        pack(root / archive, others | {f"{folder}/{name}": content for name, content in files.items()})
    else:
        (root / folder).mkdir(exist_ok=True)
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
    return root


CIFAR10_NAMES = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"


def cifar10_files(per_file: int = 2) -> dict[str, bytes]:
    """Image k of the training part has label k % 10; pixel values are a function of channel, row and column."""
    channel, row, column = np.indices((3, 32, 32))
    files = {"batches.meta.txt": CIFAR10_NAMES}
    for number, name in enumerate([*(f"data_batch_{batch}.bin" for batch in range(1, 6)), "test_batch.bin"]):
        records = [
            bytes([(per_file * number + image) % 10])
            + (60 * channel + row + 2 * column + image).astype(np.uint8).tobytes()
            for image in range(per_file)
        ]
        files[name] = b"".join(records)
    return files


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10(tmp_path: Path, packed: bool) -> None:
    root = place(tmp_path, "cifar-10-binary.tar.gz", "cifar-10-batches-bin", cifar10_files(), packed)
    train, test = cifar.load(root), cifar.load(root, part="test")
    assert train.values.shape == (10, 3, 32, 32)
    assert train.labels.tolist() == list(range(10))
    assert test.labels.tolist() == [0, 1]
    assert float(train.values[1, 2, 5, 7]) == pytest.approx((60 * 2 + 5 + 2 * 7 + 1) / 255)
    assert train.classes[:3] == ("airplane", "automobile", "bird")
    assert train.grid == Grid((32, 32), (1.0, 1.0))


@pytest.mark.parametrize("packed", [True, False])
def test_cifar100(tmp_path: Path, packed: bool) -> None:
    record = bytes([4, 30]) + bytes([200]) * 1024 + bytes([10]) * 1024 + bytes([0]) * 1024
    files = {
        "train.bin": record * 3,
        "test.bin": record,
        "fine_label_names.txt": "".join(f"fine_{number}\n" for number in range(100)).encode(),
        "coarse_label_names.txt": "".join(f"coarse_{number}\n" for number in range(20)).encode(),
    }
    root = place(tmp_path, "cifar-100-binary.tar.gz", "cifar-100-binary", files, packed)
    fine, coarse = cifar.load(root, "cifar100"), cifar.load(root, "cifar100", "test", labels="coarse")
    assert (len(fine), len(fine.classes), fine.labels.tolist()) == (3, 100, [30, 30, 30])
    assert (len(coarse), coarse.classes[4], coarse.labels.tolist()) == (1, "coarse_4", [4])
    np.testing.assert_allclose(fine.values.mean((0, 2, 3)), np.array([200, 10, 0]) / 255, rtol=1e-6)


def test_broken_cifar_files_are_refused(tmp_path: Path) -> None:
    files = cifar10_files()
    folder = place(tmp_path, "", "cifar-10-batches-bin", files, packed=False) / "cifar-10-batches-bin"
    (folder / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"][:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin must hold records of 3073 bytes, got 6145 bytes"):
        cifar.load(tmp_path)
    (folder / "data_batch_3.bin").write_bytes(files["data_batch_1.bin"] + b"\x0a" + bytes(3072))
    with pytest.raises(ValueError, match=r"labels in data_batch_3.bin must lie in 0..9, got 10 for sample 2"):
        cifar.load(tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"must hold data_batch_3.bin \(the binary version: python versions are"
    ):
        cifar.load(tmp_path)
    (folder / "batches.meta.txt").write_bytes(b"airplane\nbird\n")
    with pytest.raises(ValueError, match=r"batches.meta.txt must name 10 classes, got 2"):
        cifar.load(tmp_path, part="test")


def test_archives_without_the_files_are_refused(tmp_path: Path) -> None:
    files = cifar10_files()
    del files["test_batch.bin"]
    place(tmp_path, "cifar-10-binary.tar.gz", "cifar-10-batches-bin", files, packed=True)
    with pytest.raises(ValueError, match=r"must hold test_batch.bin, .* in the folder .*, got no test_batch.bin"):
        cifar.load(tmp_path, part="test")


def stl10_files() -> dict[str, bytes]:
    """Two training images whose red plane is 2 x row, whose green plane is 2 x column; files go column by column."""
    column, row = np.indices((96, 96))
    image = np.stack([2 * row, 2 * column, 0 * row]).astype(np.uint8)
    names = b"airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n"
    return {
        "train_X.bin": image.tobytes() * 2,
        "train_y.bin": bytes([1, 10]),
        "test_X.bin": image.tobytes(),
        "test_y.bin": bytes([3]),
        "class_names.txt": names,
    }


@pytest.mark.parametrize("packed", [True, False])
def test_stl10(tmp_path: Path, packed: bool) -> None:
    root = place(tmp_path, "stl10_binary.tar.gz", "stl10_binary", stl10_files(), packed)
    train, test = stl10.load(root), stl10.load(root, "test")
    assert train.values.shape == (2, 3, 96, 96)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 9], [2])
    assert [train.classes[label] for label in train.labels] == ["airplane", "truck"]
    assert float(train.values[0, 0, 40, 7]) == pytest.approx(80 / 255)  # red: the row
    assert float(train.values[0, 1, 40, 7]) == pytest.approx(14 / 255)  # green: the column
    assert train.values.is_contiguous()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_X.bin", bytes(27647), "train_X.bin must hold images of 27648 bytes, got 27647 bytes"),
        ("train_y.bin", bytes([1]), "train_y.bin must hold one label for each of 2 images, got 1"),
        ("train_y.bin", bytes([1, 0]), r"labels in train_y.bin must lie in 1..10, got 0 for sample 1"),
        ("train_y.bin", bytes([11, 1]), r"labels in train_y.bin must lie in 1..10, got 11 for sample 0"),
        ("class_names.txt", b"one\n", "class_names.txt must name 10 classes, got 1"),
    ],
)
def test_broken_stl10_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    place(tmp_path, "", "stl10_binary", stl10_files() | {name: content}, packed=False)
    with pytest.raises(ValueError, match=message):
        stl10.load(tmp_path)


# ---------------------------------------------------------------------------------------------------- large archives


def read(path: Path) -> object:
    return stl10.load(path.parent, "test")


def test_unsafe_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stl10_binary.tar.gz"
    for name, message in (("../test_X.bin", r"without '\.\.'"), ("/etc/passwd", "relative paths")):
        pack(path, {name: b"x"} | {f"stl10_binary/{key}": content for key, content in stl10_files().items()})
        with pytest.raises(ValueError, match=message):
            read(path)
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("stl10_binary/test_X.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match="must hold plain files and folders only"):
        read(path)
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("stl10_binary/test_X.bin"))
    with pytest.raises(ValueError, match=r"must hold every file once, got entry 'stl10_binary/test_X.bin' twice"):
        read(path)


def test_damaged_archives_are_refused_wherever_they_break(tmp_path: Path) -> None:
    path = tmp_path / "stl10_binary.tar.gz"
    place(tmp_path, path.name, "stl10_binary", stl10_files(), packed=True)
    packed, unpacked = path.read_bytes(), gzip.decompress(path.read_bytes())
    read(path)  # as it is, it can be read
    changes = [packed[: len(packed) // 2], packed[:-4], b"no archive", b""]
    header = unpacked.rindex(b"stl10_binary/class_names.txt")  # the last entry: everything wanted lies before or in it
    changes += [gzip.compress(unpacked[:cut]) for cut in (header, header + 100, header + 512, header + 1024)]
    changes += [gzip.compress(unpacked[:header] + b"\xff" * 512 + unpacked[header + 512 :])]
    for content in changes:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must be a complete .tar.gz archive"):
            read(path)
    path.write_bytes(gzip.compress(unpacked + bytes(10**6)))  # more blocks of zeros at the end do no harm
    read(path)
