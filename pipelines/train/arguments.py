"""The words of a command: what names the task and its run, lists of several words, options of the run to be tested."""

from __future__ import annotations

import argparse
import json
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from ccnn_irregular._checks import reject, require
from ccnn_irregular.pipelines.train.earlier import config_argument
from ccnn_irregular.pipelines.train.evaluation import say
from ccnn_irregular.pipelines.train.run_folder import RunFolder, is_free, others_than
from ccnn_irregular.pipelines.train.texts import read_yaml

__all__ = ["Words", "join_lists"]

_DEFAULT_TASK = "series"
_LISTS = (list, tuple, Sequence)
_HELP = {"-h", "--help", "--help-all"}


@dataclass(frozen=True)
class Words:
    """The words of ``ccnn fit | validate | test | predict``.

    Attributes:
        command: the first one.
        configs: configuration files, in their order.
        task: as typed, or None.
        run_dir: likewise.
        ckpt_path: likewise.
        plugins: modules whose classes may be named; typed alone, no configuration can ask for code to be run.
        others: all others, in their order.
    """

    command: str
    configs: tuple[str, ...]
    task: str | None
    run_dir: str | None
    ckpt_path: str | None
    plugins: tuple[str, ...]
    others: tuple[str, ...]

    @staticmethod
    def of(words: Sequence[str]) -> Words:
        """From the words of the command line; the first one is the command."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config", "-c", action="append", default=[])
        for name in ("--task", "--run_dir", "--ckpt_path"):
            parser.add_argument(name)
        parser.add_argument("--plugins", nargs="+", action="extend", default=[])
        known, others = parser.parse_known_args(list(words[1:]))
        plugins = tuple(known.plugins)
        return Words(words[0], tuple(known.config), known.task, known.run_dir, known.ckpt_path, plugins, tuple(others))

    @property
    def tested_run(self) -> RunFolder:
        """The folder of the checkpoint that ``validate``, ``test`` and ``predict`` take; of ``fit`` its own.

        Raises:
            ValueError: nothing names it.
        """
        if self.ckpt_path is not None and self.command != "fit":
            return RunFolder(Path(self.ckpt_path).parent)
        if self.run_dir is None and not self.configs:
            folder = "runs/NAME and the options of a task" if self.command == "fit" else "of a folder of ccnn fit"
            rule = f"be told what to take: --config NAME or FILE (ccnn --help lists them), or --run_dir {folder}"
            reject(f"ccnn {self.command}", rule, "neither")
        return RunFolder(Path(self.run_dir or _run_dir_of(self.configs)))

    @property
    def asks_for_help(self) -> bool:
        """Whether help is wanted and no work."""
        return bool(_HELP & set(self.others))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The configurations that were typed, else the one that the run folder keeps: what a run knows is not asked."""
        if self.configs or (self.asks_for_help and self.run_dir is None):
            return self.configs
        run_config = self.tested_run.config
        rule = "be a folder of ccnn fit (or name a configuration with --config)"
        known = run_config.is_file() or self.command == "fit" or self.task is not None
        require(known, f"run_dir {run_config.parent}", rule, f"no file {run_config}")
        return (str(run_config),) if run_config.is_file() else ()

    def chosen(self) -> dict[str, Any]:
        """What the configurations set."""
        contents: dict[str, Any] = {}
        for path in self.files:
            contents |= _content(path)
        return contents

    def task_name(self) -> str:
        """The task as typed, or as the configurations name it."""
        named = self.task or self.chosen().get("task")
        if named is None and self.command == "fit" and not self.asks_for_help:
            say(f"the task is {_DEFAULT_TASK}, since neither --task nor a configuration names one")
        return named or _DEFAULT_TASK

    def with_options_of_run(self) -> list[str]:
        """All words; those of ``validate``, ``test`` and ``predict`` with the options of the tested run's data put in.

        What is typed comes first, then what the run was trained with, then a configuration file; where the file says
        something else than the run, that is told.
        """
        names = ("task", "run_dir", "ckpt_path")
        known = {name: getattr(self, name) for name in names}
        if self.asks_for_help:
            return [self.command, *self.others]
        tested = self.tested_run
        # Typed, for the content of a file of an earlier version stands in place of its name.
        known["run_dir"] = self.run_dir or str(_run_dir_of(self.configs) if self.configs else tested.path)
        typed = [*self.others, *(f"--{name}={value}" for name, value in known.items() if value is not None)]
        files = [config_argument(path, behind_another=number > 0) for number, path in enumerate(self.files)]
        saved = None if self.command == "fit" else tested.saved_config()
        if saved is None or not {"data", "seed_everything"} <= saved.keys():
            return [self.command, *files, *typed]
        data = {name: value for name, value in saved["data"].items() if not is_free(f"data.{name}")}
        seed = saved["seed_everything"]
        as_run = [f"--data={json.dumps(data, default=str)}", f"--seed_everything={json.dumps(seed)}"]
        for path in self.configs:
            given: dict[str, Any] = _content(path).get("data") or {}
            for name in others_than(given, data):
                if not any(word.startswith(f"--data.{name}") for word in typed):
                    say(f"data.{name} = {data[name]} as in {tested.path}, not {given[name]} as in {path}")
        return [self.command, *files, *as_run, *typed]


def _content(path: str | os.PathLike[str]) -> dict[str, Any]:
    return read_yaml(Path(path))


def _run_dir_of(configs: Sequence[str]) -> Path:
    """The folder that the last one of the configurations that set ``run_dir`` names, else ``runs/`` and the last stem.

    The file that a run keeps stands for the folder it lies in: its own ``run_dir`` may be from before that was moved.
    """
    for path in map(Path, reversed(configs)):
        if RunFolder(path.parent).is_run(path):
            return path.parent
        named = _content(path).get("run_dir")
        if named is not None:
            require(isinstance(named, str) and bool(named), f"run_dir in {path}", "name a folder", repr(named))
            return Path(named)
    return Path("runs") / Path(configs[-1]).stem


def join_lists(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """``words`` with those after a list option of ``parser`` joined into one JSON list: ``--data.sets a b``.

    A written-out list is kept, and so is ``null``. Where an option takes a list or a single value, a single word is
    that value. ``null`` for an option inside another one, ``--...init_args.kernel.threshold null``, is put into that
    one: the parser would take it for the word "None".
    """
    typed = ((option, action) for action in parser._actions for option in action.option_strings)
    kinds = {option: getattr(action, "_typehint", None) for option, action in typed}
    joined: list[str] = []
    left = list(words)
    while left:
        option, equals, first = left.pop(0).partition("=")
        kind = _kind(option, kinds)
        _, inside, name = option.partition(".init_args.")
        if inside and "." in name and (first == "null" or (not equals and left[:1] == ["null"])):
            outer, _, key = option.rpartition(".")
            joined += [outer, json.dumps({key: None})]
            left = left if equals else left[1:]
            continue
        if not _takes_list(kind):
            joined.append(option + equals + first)
            continue
        values = [first] if equals else []
        while left and (not left[0].startswith("-") or isinstance(_number_or_word(left[0]), float | int)):
            values.append(left.pop(0))
        single = len(values) == 1 and (values[0].startswith("[") or values[0] == "null" or _takes_one(kind))
        joined += [option, values[0] if single else json.dumps([_number_or_word(value) for value in values])]
    return joined


def _kind(option: str, kinds: Mapping[str, Any]) -> Any:
    """Type of an option; the parser has none of its own for the fields of a dataclass that may be None."""
    if option in kinds:
        return kinds[option]
    outer, _, name = option.rpartition(".")
    hints = [get_type_hints(member) for member in _members(kinds.get(outer)) if is_dataclass(member)]
    return next((fields[name] for fields in hints if name in fields), None)


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_list(kind: Any) -> bool:
    return kind in _LISTS or get_origin(kind) in _LISTS


def _takes_list(kind: Any) -> bool:
    return any(_is_list(member) for member in _members(kind))


def _takes_one(kind: Any) -> bool:
    return any(not _is_list(member) and member is not type(None) for member in _members(kind))


def _number_or_word(word: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
