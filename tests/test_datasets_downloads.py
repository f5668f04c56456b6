"""Downloads of the data sets: what is fetched, from where, and what becomes of a file with another checksum."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ccnn_irregular.datasets import cifar, mnist, speech_commands, stl10

pytest.importorskip("pooch", reason="the extra 'files' is not installed")

FETCHES: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "mnist": (mnist.fetch, tuple(mnist.SHA256)),
    "cifar10": (partial(cifar.fetch, name="cifar10"), ("cifar-10-binary.tar.gz",)),
    "cifar100": (partial(cifar.fetch, name="cifar100"), ("cifar-100-binary.tar.gz",)),
    "stl10": (stl10.fetch, tuple(stl10.SHA256)),
    "speech commands": (speech_commands.fetch, tuple(speech_commands.SHA256)),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Address of a file server, the folder it serves, and the paths it was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", FETCHES)
def test_missing_files_are_fetched_and_checked(tmp_path: Path, server: tuple[str, Path, list[str]], kind: str) -> None:
    url, folder, asked = server
    fetch, names = FETCHES[kind]
    contents = {name: f"content of {name}".encode() for name in names}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    root = tmp_path / "new" / "root"
    fetch(root, url=url, sha256=sha256, progress=False)
    assert {path.name: path.read_bytes() for path in root.iterdir()} == contents
    count = len(asked)
    (root / names[0]).write_bytes(b"my own file")
    fetch(root, url=url, sha256=sha256, progress=False)  # what is there is left alone
    assert (root / names[0]).read_bytes() == b"my own file"
    assert len(asked) == count


@pytest.mark.parametrize("kind", FETCHES)
def test_another_file_is_not_kept(tmp_path: Path, server: tuple[str, Path, list[str]], kind: str) -> None:
    url, folder, _ = server
    fetch, names = FETCHES[kind]
    (folder / names[0]).write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"{names[0]} must have the published SHA256 [0-9a-f]{{64}}, got another file"):
        fetch(tmp_path / "root", url=url, progress=False)  # against the published checksums
    assert list((tmp_path / "root").iterdir()) == []


def test_load_fetches_only_where_asked_and_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(root: Path, *arguments: Any, **options: Any) -> None:
        asked.append(Path(root).name)

    loads: dict[Any, tuple[str, Callable[..., object]]] = {
        mnist: ("", mnist.load),
        cifar: ("cifar-10-batches-bin", cifar.load),
        stl10: ("stl10_binary", stl10.load),
        speech_commands: ("speech_commands_v0.02", speech_commands.load),
    }
    for module, (folder, load) in loads.items():
        monkeypatch.setattr(module, "fetch", note)
        for download, unpacked, expected in ((False, False, 0), (True, False, 1), (True, True, 0)):
            root = tmp_path / module.__name__ / f"{download}{unpacked}"
            (root / folder if unpacked else root).mkdir(parents=True)
            if unpacked and not folder:
                continue
            asked.clear()
            with pytest.raises(FileNotFoundError, match="must hold"):
                load(root, download=download, progress=False)
            assert len(asked) == expected, (module.__name__, download, unpacked)


def test_checksums_and_addresses_are_complete() -> None:
    for module in (mnist, cifar, stl10, speech_commands):
        assert module.URL.startswith("http")
        for name, checksum in module.SHA256.items():
            assert name.endswith(".gz")
            assert len(bytes.fromhex(checksum)) == 32
