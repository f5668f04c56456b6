"""The wheel: one import name, everything inside, and it works where the repository is not."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
DISTRIBUTION = PROJECT["project"]["name"]
# The folders of the repository that are packed, and the names they are packed under.
FOLDERS: dict[str, str] = {folder: package for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()}


def run(command: list[str], cwd: Path) -> str:
    """The standard output of ``command``, which neither PYTHONPATH nor the folder of the tests may help."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "PYTEST"))
    }
    process = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{process.stdout}\n{process.stderr}"
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the files that belong to the project."""
    source = tmp_path_factory.mktemp("source")
    # setuptools writes build/ beside the sources and would pack what an earlier version of them left there.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(REPOSITORY)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    output = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(source)], cwd=output)
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an empty environment that holds the wheel, and sees the dependencies installed here.

    The dependencies are reached by a plain path in a .pth file. Python reads .pth files only in its own site-packages,
    so the editable installation of this repository, which is one in there, has no effect in the new environment.
    """
    root = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(root, with_pip=False, symlinks=True)
    python = root / "bin" / "python"
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            str(wheel),
        ],
        cwd=root,
    )
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=root).strip())
    paths = [path for path in dict.fromkeys(sys.path) if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return python


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_every_folder_of_modules_is_listed() -> None:
    """pyproject.toml lists the packages by hand: a new folder with an __init__.py belongs in it."""
    present = set()
    for folder, package in FOLDERS.items():
        root = REPOSITORY / folder
        for init in root.rglob("__init__.py"):
            present.add(".".join([package, *init.parent.relative_to(root).parts]))
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == present, "tool.setuptools.packages in pyproject.toml does not list the folders that exist"


def test_the_wheel_holds_one_import_name(wheel: Path) -> None:
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names(wheel)} == {"ccnn_irregular", f"ccnn_irregular-{version}.dist-info"}


def test_the_wheel_holds_every_module_and_file(wheel: Path) -> None:
    expected = set()
    for folder, package in FOLDERS.items():
        root = REPOSITORY / folder
        for path in (*root.rglob("*.py"), *root.rglob("*.yaml"), *root.rglob("py.typed")):
            expected.add(f"{package.replace('.', '/')}/{path.relative_to(root).as_posix()}")
    packed = set(names(wheel))
    assert expected - packed == set()
    assert any(name.startswith("ccnn_irregular/pipelines/configs/") for name in packed)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_wheel_works_away_from_the_repository(fresh_python: Path, tmp_path: Path) -> None:
    code = """
import importlib.util
import ccnn_irregular, ccnn_irregular.datasets, ccnn_irregular.pipelines
for module in (ccnn_irregular, ccnn_irregular.datasets, ccnn_irregular.pipelines):
    print(module.__file__)
print(importlib.util.find_spec("pipelines"))
print(importlib.util.find_spec("datasets"))
"""
    *files, pipelines, datasets = run([str(fresh_python), "-c", code], cwd=tmp_path).splitlines()[-5:]
    site = fresh_python.parents[1]
    for file in files:
        assert Path(file).is_relative_to(site), f"{file} does not come from the new environment"
    assert pipelines == "None"
    # The well-known package of this name may be among the dependencies; one from this environment would be ours.
    assert str(site) not in datasets
    assert str(REPOSITORY / "datasets") not in datasets


def test_the_command_line_works_away_from_the_repository(fresh_python: Path, tmp_path: Path) -> None:
    text = run([str(fresh_python.with_name("ccnn")), "--help"], cwd=tmp_path)
    for command in ("fit", "validate", "test", "predict", "demo"):
        assert re.search(rf"\b{command}\b", text), f"ccnn --help does not name {command}:\n{text}"


def pins() -> dict[str, str]:
    """Each package in constraints.txt and its version."""
    found = {}
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, separator, version = line.partition("==")
            assert separator, f"constraints.txt holds exact versions only, got {line!r}"
            found[canonicalize_name(name)] = version
    return found


def installed_requirements(root: str, extras: set[str]) -> set[str]:
    """The names of all installed packages that ``root`` with ``extras`` asks for, directly or not."""
    done: set[tuple[str, str]] = set()
    pending = {(canonicalize_name(root), extra) for extra in {"", *extras}}
    while pending:
        name, extra = pending.pop()
        done.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                child = canonicalize_name(requirement.name)
                # torch names the exact versions of the CUDA libraries that its CUDA build brings.
                if not child.startswith(("nvidia-", "cuda-", "triton")):
                    pending |= {(child, wanted) for wanted in {"", *requirement.extras}} - done
    return {name for name, _ in done} - {canonicalize_name(root)}


def test_every_installed_package_is_pinned() -> None:
    needed = installed_requirements(DISTRIBUTION, set(PROJECT["project"]["optional-dependencies"]))
    assert {"torch", "keopscore", "typeshed-client"} <= needed, "the walk over the requirements no longer finds them"
    assert needed - set(pins()) == set(), "add the missing packages to constraints.txt"


def test_pins_satisfy_the_bounds() -> None:
    versions = pins()
    texts = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        texts += extra
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        if name != DISTRIBUTION:
            assert versions[name] in requirement.specifier, f"{requirement} excludes the pinned {versions[name]}"
