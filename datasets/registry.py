"""The data sets by name: what each is, how it is read, and where its files come from.

A module declares a data set by one call of :func:`register`, at its end; nothing else has to know of it. Your own data
sets are registered by the same call, before their names are used.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ccnn_irregular._checks import reject, require

__all__ = ["DataSet", "describe", "fetch", "get", "load", "names", "register"]

# Arguments of a loader that are no options.
_GIVEN_APART = ("root", "part")
_PACKAGE = "ccnn_irregular.datasets"
_SIMULATED = {"files": "nothing: made on the spot", "size": "none", "licence": "none needed"}


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a data set is and how it is read.

    Attributes:
        name: in ``load``, in configurations and in ``--data.dataset``.
        about: what it is, in one line.
        load: ``load(root, part=..., **options)`` -> samples. It has an argument ``root`` if it reads files, an argument
            ``part`` if ``parts`` are published, and keyword arguments for its options. What is simulated has the
            options ``count`` and ``seed``.
        samples: what ``load`` returns: one of the classes in :mod:`ccnn_irregular.datasets.samples`.
        shape: of a sample.
        parts: what ``part`` may be: "train", "validation" and "test", as far as they are published, and "all".
        random_split: split all samples at random for training, although parts are published.
        ordered: the order of the samples is part of the data set. False = they may lie in files and rows of any order,
            so that training sorts them by what they hold before it splits.
        training: options that training sets unless it is told otherwise.
        content: ``content(**options)`` -> what the numbers of a sample are by word ("channels", "range", how they are
            made of the files), with the options of the loader, for whoever brings samples of his own to a trained
            network; None = ``shape`` says all there is.
        features: what :func:`load` makes of the samples at the end, or None. Training makes it after it has brought
            samples to another rate.
        files: what ``root`` holds.
        size: of the files.
        licence: of the data.
        source: where the files and their description are published.
        fetch: ``fetch(root, **options)`` downloads official files and keeps them only if their checksums are right;
            None where no checksum is published.
        checksum: which ones, and who lists them.
    """

    name: str
    about: str
    load: Callable[..., Any]
    samples: type
    shape: str = "not stated"
    parts: tuple[str, ...] = ()
    random_split: bool = False
    ordered: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)
    content: Callable[..., Mapping[str, Any]] | None = None
    features: Callable[[Any], Any] | None = None
    files: str = "the files that its loader reads"
    size: str = "not stated"
    licence: str = "not stated"
    source: str = "not stated"
    fetch: Callable[..., None] | None = None
    checksum: str = "none"

    @property
    def module(self) -> str:
        """Name of the module that holds the loader."""
        loader = self.load
        while isinstance(loader, partial):
            loader = loader.func
        return loader.__module__ or ""  # of what exec defines it is None

    @property
    def needs_root(self) -> bool:
        """Whether files are read."""
        return "root" in _parameters(self.load)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that the loader takes."""
        return _options(self.load)

    @property
    def split(self) -> tuple[str, ...]:
        """Published parts that training follows; () = the samples are split at random."""
        return () if self.random_split else tuple(part for part in self.parts if part != "all")

    def taken(self, **given: Any) -> dict[str, Any]:
        """Those of the ``given`` options that the loader takes."""
        return {name: value for name, value in given.items() if name in self.options}

    def in_training(self, options: Mapping[str, Any], *, download: bool = False, **defaults: Any) -> dict[str, Any]:
        """Options of the loader in training.

        Args:
            options: that the user sets; they come first.
            download: fetch missing files.
            defaults: what the options of a data module say, such as ``seed``; only what the loader takes is handed on.
        """
        return {**self.training, **self.taken(**defaults), **({"download": True} if download else {}), **options}

    def read(self, root: str | Path | None = None, part: str | None = None, **options: Any) -> Any:
        """The samples as the loader returns them, without :attr:`features`; arguments and errors as of :func:`load`."""
        self.require_root(root)
        self.require_options(options)
        _require_needed(f"options of {self.name}", self.load, options)
        parts = f"be one of {', '.join(self.parts)}" if self.parts else f"be left out: {self.name} has no parts"
        require(part is None or part in self.parts, "part", parts, repr(part))
        placed = {} if root is None else {"root": root}
        return self.load(**placed, **({} if part is None else {"part": part}), **options)

    def require_root(self, root: str | Path | None) -> None:
        """Refuse the lack of a folder where files are read, and a folder where none are."""
        rule = f"be given (--data.root) for {self.name}; it holds {self.files}"
        require(root is not None or not self.needs_root, "root", rule, root)
        require(root is None or self.needs_root, "root", f"be left out for {self.name}, which reads no files", root)

    def require_options(self, given: Mapping[str, Any]) -> None:
        """Refuse options that the loader does not take, and ``download=True`` where there is nothing to check it by."""
        self._require_downloadable(bool(given.get("download")) and "download" not in self.options)
        _require_known(f"options of {self.name}", self.load, given)

    def fetch_files(self, root: str | Path, **options: Any) -> None:
        """Download official files, see :func:`fetch`."""
        self._require_downloadable(self.fetch is None)
        assert self.fetch is not None
        _require_known(f"options of fetching {self.name}", self.fetch, options)
        self.fetch(root, **options)

    def values(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What the numbers of a sample are, as plain values; ``options`` are those of the loader."""
        told = {} if self.content is None else dict(self.content(**options))
        return {"data set": self.name, "sample": self.shape, **told}

    def _require_downloadable(self, lacking: bool) -> None:
        if lacking:
            if not self.needs_root:
                reject(self.name, "be loaded without fetching: it reads no files", "a request to download")
            rule = f"be downloaded by hand, for no checksum is published; its root holds {self.files}"
            reject(self.name, f"{rule} (source: {self.source})", "a request to download")

    def describe(self) -> dict[str, Any]:
        """What :func:`describe` tells."""
        return {
            "name": self.name,
            "about": self.about,
            "samples": self.samples.__name__,
            "shape": self.shape,
            "parts": ", ".join(self.parts) if self.parts else "none published",
            **({"files": self.files, "size": self.size, "licence": self.licence} if self.needs_root else _SIMULATED),
            "checksum": self.checksum,
            "source": self.source if self.needs_root else "made by the module",
            "options": ", ".join(self.options),
            "module": self.module,
        }


def load(
    dataset: str | ModuleType | DataSet, root: str | Path | None = None, part: str | None = None, **options: Any
) -> Any:
    """The samples of a data set.

    Args:
        dataset: name of a registered data set, the module of one, or the data set itself.
        root: folder (or file) of the official files, see ``describe(name)["files"]``; None for what is simulated.
        part: one of the published parts; None = the loader's own choice, "train" where parts are published.
        options: of the loader, see ``describe(name)["options"]``.

    Returns:
        One of the classes in :mod:`ccnn_irregular.datasets.samples`: ``describe(name)["samples"]``.

    Raises:
        ValueError: an unknown name, part or option, with those that are known; a file that breaks its format.
        FileNotFoundError: files that are not there, with what ``root`` must hold.
    """
    chosen = get(dataset)
    samples = chosen.read(root, part, **options)
    return samples if chosen.features is None else chosen.features(samples)


def fetch(dataset: str | ModuleType | DataSet, root: str | Path, **options: Any) -> None:
    """Download the official files that ``root`` lacks, and keep them only if their checksums are right.

    Args:
        dataset: see :func:`load`.
        root: folder to download to, made if need be.
        options: of the module's ``fetch``, ``progress=False`` for instance.

    Raises:
        ValueError: no checksum is published (with the files to put into ``root`` by hand), an unknown option, or a
            downloaded file with another checksum.
        OSError: the server cannot be reached or refuses.
    """
    get(dataset).fetch_files(root, **options)


def describe(dataset: str | ModuleType | DataSet) -> dict[str, Any]:
    """What a data set is: name, content, shape, published parts, files, size, licence, source, options."""
    return get(dataset).describe()


def names(*kinds: type) -> tuple[str, ...]:
    """Names of the registered data sets, sorted: of all, or of those whose samples are of these classes."""
    _import_packaged()
    return tuple(sorted(name for name, known in _REGISTERED.items() if not kinds or issubclass(known.samples, kinds)))


def get(dataset: str | ModuleType | DataSet, *kinds: type) -> DataSet:
    """A registered data set by its name or its module.

    Args:
        dataset: name, module, or the data set itself.
        kinds: classes that the samples may be of; none = any.

    Raises:
        ValueError: no such data set, or one of other samples, with the names there are; a module of several ones.
    """
    if isinstance(dataset, DataSet):
        return dataset
    known = names(*kinds)
    if isinstance(dataset, ModuleType):
        held = [name for name in known if _REGISTERED[name].module == dataset.__name__]
        require(len(held) > 0, "dataset", "be a module that registers a data set", dataset.__name__)
        rule = f"be one of the names in {dataset.__name__}: {', '.join(held)}"
        require(len(held) == 1, "dataset", rule, "the module")
        return _REGISTERED[held[0]]
    require(dataset in known, "dataset", f"be one of {', '.join(known)}", repr(dataset))
    return _REGISTERED[dataset]


def register(dataset: DataSet, *, replace: bool = False) -> DataSet:
    """Make a data set known by its name.

    Args:
        dataset: its name must be free.
        replace: put it in place of another one of that name, as in a notebook whose cells run twice.

    Returns:
        The data set.

    Raises:
        ValueError: a name that is taken, or that is no identifier; parts that training cannot follow, or a loader
            without ``part`` although parts are named.
    """
    if not dataset.module.startswith(f"{_PACKAGE}."):
        _import_packaged()
    require(dataset.name.isidentifier(), "name", "hold letters, digits and underscores only", repr(dataset.name))
    free = replace or dataset.name not in _REGISTERED
    require(free, "name", "be free (replace=True takes it over)", f"{dataset.name!r}, which is registered")
    split = not dataset.parts or "part" in _parameters(dataset.load)
    require(split, "load", "have an argument 'part' where parts are named", f"{inspect.signature(dataset.load)}")
    whole = not dataset.split or {"train", "test"} <= set(dataset.split)
    require(whole, "parts", "hold 'train' and 'test', or be split at random (random_split=True)", dataset.parts)
    _REGISTERED[dataset.name] = dataset
    return dataset


_REGISTERED: dict[str, DataSet] = {}
_imported: set[str] = set()


def _import_packaged() -> None:
    """Import the modules of this package, each of which registers its data sets."""
    package = importlib.import_module(_PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _imported:
            _imported.add(module.name)
            importlib.import_module(f"{_PACKAGE}.{module.name}")


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Arguments of a function that are still to be given; those that a ``partial`` gives are left out."""
    bound = function.keywords if isinstance(function, partial) else {}
    return {name: parameter for name, parameter in inspect.signature(function).parameters.items() if name not in bound}


def _options(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name in _parameters(function) if name not in _GIVEN_APART)


def _require_known(argument: str, function: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse options that a function does not take."""
    known = _options(function)
    unknown = [name for name in given if name not in known]
    require(not unknown, argument, f"be among {', '.join(known) or 'none'}", ", ".join(unknown))


def _require_needed(argument: str, function: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse the lack of options that a function needs."""
    parameters = _parameters(function)
    needed = [name for name in _options(function) if parameters[name].default is inspect.Parameter.empty]
    lacking = [name for name in needed if name not in set(given)]
    require(not lacking, argument, f"hold {', '.join(needed)}", f"no {', '.join(lacking)}")
