"""The order of the files: each imports only from files above it in ``ORDER``, and a plain import stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "ccnn_irregular"

# A file may import from lines above its own, never from lines below it. Two names on one line do not know each other.
# A name that is a folder of the package stands for every file in it that has no line of its own.
ORDER: tuple[tuple[str, ...], ...] = (
    ("_transforms",),
    ("_checks", "_files", "_optional", "_cache_folder", "_autocast", "_sums", "_reprs"),
    ("_registry",),
    ("quadrature", "longitudes"),
    ("domains",),
    ("kernels.formula", "kernels.buffers", "kernels.substitution"),
    ("kernels.generators", "kernels.masks"),
    ("kernels.isotropic", "kernels.box_masks"),
    ("kernels.kernel",),
    ("kernels.spec", "kernels.spectrum", "kernels.taps"),
    ("kernels",),
    ("operators.arguments", "operators.layout", "operators.evenness"),
    ("operators.check",),
    ("operators.numerics.transforms", "operators.numerics.windows"),
    ("operators.numerics.lattice", "operators.numerics.splitting", "operators.numerics.uniform"),
    ("operators.numerics.axiswise", "operators.numerics.bands", "operators.numerics.box"),
    ("operators.numerics.direct", "operators.numerics.sizes"),
    ("operators.numerics.nufft",),
    ("operators.numerics.filtering",),
    ("operators.numerics",),
    ("operators.planning.memory", "operators.planning.rates"),
    ("operators.planning.work",),
    ("operators.engines.engine",),
    ("operators.engines.registry",),
    ("operators.engines.reference",),
    ("operators.engines.keops", "operators.engines.fft", "operators.engines.neighbours"),
    ("operators.engines.spectral.factors",),
    ("operators.engines.spectral.boxes", "operators.engines.spectral.refinement"),
    ("operators.engines.spectral.separable",),
    ("operators.engines.spectral.geometry",),
    ("operators.engines.spectral.transfer", "operators.engines.spectral.pairs", "operators.engines.spectral.grids"),
    ("operators.engines.spectral.accuracy",),
    ("operators.engines.spectral.engine",),
    ("operators.engines.spectral",),
    ("operators.engines",),
    ("operators.planning.measure", "operators.planning.planner"),
    ("operators.planning",),
    ("operators.replanning",),
    ("operators.convolution",),
    ("operators",),
    ("solver",),
    ("batch_statistics",),
    ("layers.positions", "layers.dropout", "layers.strides"),
    ("layers.pointwise", "layers.norms", "layers.scale"),
    ("layers.convolutions",),
    ("layers.sampled",),
    ("layers",),
    ("networks.blocks", "convolution_blocks"),
    ("networks.ccnn",),
    ("networks.published",),
    ("networks",),
    ("networks_unet",),
    ("optimisation",),
    ("integral",),
    ("shiftwise",),
    ("adapters",),
    ("consistency",),
    ("plotting",),
    ("plotting_maps", "plotting_volumes", "plotting_kernels"),
    ("testing",),
    ("",),  # ccnn_irregular/__init__.py itself: it may offer everything above, and nothing above may import it
    ("datasets",),
    ("pipelines",),
    ("estimators",),
)
# Lines whose files form one unit: inside it they may import one another.
FOLDERS = ("quadrature", "domains", "integral", "shiftwise", "adapters", "consistency", "datasets", "pipelines")
# In these folders the order of the files matters, so each file needs a line.
ORDERED_FOLDERS = ("kernels", "operators", "layers", "networks")
HEAVY = ("pykeops", "torch_geometric", "xarray", "h5py", "lightning", "pytorch_lightning", "matplotlib", "sklearn")


def module_files() -> dict[str, Path]:
    """Each module of the package, named without ``ccnn_irregular.`` in front, and its file."""
    roots = {
        "": REPOSITORY / PACKAGE,
        "datasets": REPOSITORY / "datasets",
        "pipelines": REPOSITORY / "pipelines",
    }
    files: dict[str, Path] = {}
    for prefix, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            parts = [prefix] if prefix else []
            parts += path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts.pop()
            files[".".join(parts)] = path
    return files


def position(module: str) -> tuple[int, str]:
    """The line of ``ORDER`` that holds ``module``, and the name that stands there."""
    lines = {name: line for line, names in enumerate(ORDER) for name in names}
    if module in lines:
        return lines[module], module
    folder = module.partition(".")[0]
    if folder in lines and folder not in ORDERED_FOLDERS and "." in module:
        return lines[folder], folder
    raise LookupError(
        f"{PACKAGE}.{module} has no place in the order of the files: add {module!r} to ORDER in {Path(__file__).name}, "
        f"below everything it imports and above everything that imports it"
    )


def imported_modules(source: str, module: str, is_package: bool, known: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The line and the name of each module of the package that ``source`` imports, inside functions too.

    Imports below ``if TYPE_CHECKING:`` count: a type that is needed from below shows the same wrong order.
    """
    names = set(known)
    here = [PACKAGE, *(module.split(".") if module else [])]
    for node in ast.walk(ast.parse(source)):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = here[: len(here) - node.level + (1 if is_package else 0)]
                base = ".".join([*parents, *([base] if base else [])])
            # "from package import name": name is a module of the package, or else something the package defines.
            inside = base.removeprefix(PACKAGE).removeprefix(".")
            for alias in node.names:
                candidate = f"{inside}.{alias.name}" if inside else alias.name
                targets.append(f"{base}.{alias.name}" if candidate in names else base)
        for target in targets:
            if target == PACKAGE:
                yield node.lineno, ""
            elif target.startswith(f"{PACKAGE}."):
                yield node.lineno, target.removeprefix(f"{PACKAGE}.")


def violations(source: str, module: str, is_package: bool, known: Iterable[str]) -> list[str]:
    """One sentence for each import in ``source`` that goes against ``ORDER``."""
    found: list[str] = []
    own_line, own_name = position(module)
    for line, target in imported_modules(source, module, is_package, known):
        target_line, target_name = position(target)
        same_unit = own_name == target_name and own_name in FOLDERS
        if target != module and target_line >= own_line and not same_unit:
            found.append(
                f"{PACKAGE}.{module} line {line} imports {PACKAGE}.{target}, which does not stand above it in ORDER"
            )
    return found


FILES = module_files()


@pytest.mark.parametrize("module", sorted(FILES), ids=lambda module: module or PACKAGE)
def test_each_file_imports_only_from_files_above_it(module: str) -> None:
    path = FILES[module]
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", FILES) == []


def test_the_package_has_files() -> None:
    assert {"_checks", "_optional"} <= set(FILES)


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("quadrature", False, "from ccnn_irregular.domains import Grid"),
        ("quadrature", False, "from .domains import Grid"),
        ("quadrature", False, "from . import domains"),
        ("quadrature", False, "def f():\n    import ccnn_irregular.layers"),
        ("quadrature", False, "if TYPE_CHECKING:\n    from ccnn_irregular import domains"),
        ("kernels.masks", False, "from .kernel import Kernel"),
        ("kernels.masks", False, "from ..operators.engines.engine import Plan"),
        ("kernels.masks", False, "from .generators import Siren"),
        ("kernels.masks", False, "from . import Kernel"),
        ("kernels", True, "from ..operators import engine"),
        ("operators.engines.engine", False, "from ccnn_irregular import Grid"),
        ("layers", False, "import ccnn_irregular.datasets.physionet2012"),
        ("", True, "from ccnn_irregular.pipelines import cli"),
        ("datasets.physionet2012", False, "from ccnn_irregular.pipelines import cli"),
    ],
)
def test_a_wrong_import_is_found(module: str, is_package: bool, source: str) -> None:
    known = ("domains", "layers", "operators.engines.engine", "pipelines.cli", "datasets.physionet2012")
    assert len(violations(source, module, is_package, known)) == 1


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("domains", False, "import math\nimport numpy as np\nfrom .quadrature import trapezoid"),
        ("kernels", True, "from .kernel import Kernel\nfrom .masks import Gaussian"),
        ("kernels.kernel", False, "from . import masks"),
        ("layers", False, "from .operators import Plan, engines, convolve"),
        ("", True, "from .domains import Grid\nfrom . import operators"),
        ("datasets.physionet2012", False, "from ccnn_irregular import Points\nfrom ._files import download"),
        ("pipelines.cli", False, "from ccnn_irregular.datasets import physionet2012"),
        ("pipelines.cli", False, "from datasets import load_dataset  # another package"),
    ],
)
def test_a_right_import_is_accepted(module: str, is_package: bool, source: str) -> None:
    known = ("domains", "operators", "operators.engines", "kernels.masks", "datasets", "datasets.physionet2012")
    assert violations(source, module, is_package, known) == []


def test_a_file_without_a_place_is_named() -> None:
    with pytest.raises(LookupError, match=r"add 'operators\.magic' to ORDER in test_layering\.py"):
        position("operators.magic")
    with pytest.raises(LookupError, match="add 'magic' to ORDER"):
        position("magic")


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a new interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    # -P: a folder of the same name in the working directory must not be taken for the package.
    process = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.splitlines()[-1].split())


def test_a_plain_import_loads_no_heavy_package() -> None:
    loaded = loaded_after(f"import {PACKAGE}")
    assert "torch" in loaded
    assert loaded.isdisjoint(HEAVY), f"import {PACKAGE} loads {sorted(loaded.intersection(HEAVY))}"


def test_a_loaded_heavy_package_is_seen() -> None:
    assert "h5py" in loaded_after("import h5py")
