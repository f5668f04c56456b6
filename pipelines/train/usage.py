"""What a person reads who asks for help or mistypes: the task's own options in one screen, nearest names in a line."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from ccnn_irregular.pipelines.train.run_folder import flat

__all__ = ["explained", "help_asked"]

_WIDTH = 118
# Options of Lightning's, and what is rarely typed; all but a few of the trainer's are left to --help-all.
_HIDDEN = ("trainer.", "early_stopping.", "weights_only", "print_config", "help", "return_predictions", "print_shtab")
_SPECIAL = ("_ActionConfigLoad", "_ActionHelpClassPath")
_SHOWN = ("trainer.max_epochs", "trainer.max_time", "trainer.accelerator", "trainer.precision")
_ORDER = ("test", "predict", "data", "model", "trainer")  # of the groups; what is in none comes first
# Groups that are shown in one line.
_FOLDED = ("schedule", "sizes", "reading", "changes", "discs", "augmentation")
_NEAREST = 3


def help_asked(words: Sequence[str], parser: ArgumentParser, task: str, chosen: dict[str, Any]) -> None:
    """Print help on a command where its words ask for it, and end the process.

    Args:
        words: the first one is the command.
        parser: of the command.
        task: name of the task.
        chosen: what the configurations set.
    """
    if {"-h", "--help"} & set(words):
        print(_short_help(parser, words[0], task, flat(chosen)))
        raise SystemExit(0)
    if "--help-all" in words:
        parser.print_help()
        raise SystemExit(0)


def _short_help(parser: ArgumentParser, command: str, task: str, chosen: Mapping[str, Any]) -> str:
    """Help on a command in less than a screen of 60 lines.

    Args:
        parser: of the command.
        command: its name.
        task: name of the task.
        chosen: what the configurations set, flat: ``{"data.count": 300, ...}``; shown in place of defaults.
    """
    # Whole groups from a file, and help on a class, are no options of their own.
    single = [action for action in parser._actions if type(action).__name__ not in _SPECIAL]
    actions = sorted(single, key=_place)
    lines = [f"usage: ccnn {command} --config NAME or FILE [options]      task: {task} (--task names another)", ""]
    folded: dict[str, list[str]] = {}
    for action in actions:
        name = action.dest
        group = next((f"{before}.{one}" for before in ("data", "model") for one in _FOLDED
                      if name.startswith(f"{before}.{one}.")), None)  # fmt: skip
        if group is not None:
            folded.setdefault(group, []).append(name.removeprefix(f"{group}."))
        elif name in _SHOWN or not (name.startswith(_HIDDEN)):
            lines.append(_line(action, chosen))
    lines += [_cut(f"  --{group}.*  {', '.join(names)}") for group, names in folded.items()]
    arguments = [name for name in chosen if name.startswith("model.network.init_args.")]
    if arguments:
        shown = (f"{name.removeprefix('model.network.init_args.')} {chosen[name]}" for name in arguments)
        lines.append(_cut(f"  --model.network.init_args.*  {', '.join(shown)}"))
    lines += [
        "  --plugins MODULE or FILE.py  your own code, whose classes configurations may name",
        "",
        f"ccnn {command} --help-all lists all {len(actions)} options, those of Lightning's trainer among them;",
        f"ccnn {command} --config NAME --help shows what a configuration sets; ccnn --help names them.",
    ]
    return "\n".join(lines)


def _place(action: Action) -> int:
    group, dot, _ = action.dest.partition(".")
    return 1 + _ORDER.index(group) if dot and group in _ORDER else 0


def _line(action: Action, chosen: Mapping[str, Any]) -> str:
    """An option, its value and the first sentence about it."""
    value = chosen.get(action.dest, action.default)
    shown = "" if value in (None, SUPPRESS) or value == () else f" [{value}]"
    text = re.sub(r"\s+", " ", (action.help or "").replace("``", "").replace("%%", "%"))
    sentence = re.split(r"(?<=[a-z)])[.;](?: |$)", text)[0].removesuffix(".")
    return _cut(f"  --{action.dest}{shown}  {sentence}")


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ..."


def explained(message: str, parser: ArgumentParser, command: str, task: str) -> str:
    """A parser's message in two lines, with the names nearest to a mistyped one."""
    missing = re.search(r"required: (.+)", message)
    if missing:
        options = ", ".join(f"--{name.strip().removeprefix(f'{command}.')}" for name in missing[1].split(","))
        return (
            f"ccnn {command} must be given {options} for the task {task}, or a configuration that sets them:\n"
            f"--config NAME (ccnn --help lists them) or --config FILE; --task names another task"
        )
    if denied := re.search(r"Importing '([\w.]+)' is not allowed", message):
        return (
            f"ccnn {command} takes classes of ccnn_irregular, and Lightning's callbacks, strategies, profilers and "
            f"loggers to files, got {denied[1]}\n--plugins MODULE or FILE.py lets a configuration name those of your "
            "own; importing a module runs its code"
        )
    for word, known in _unknown(message, parser):
        nearest = difflib.get_close_matches(word, known, _NEAREST, cutoff=0.5)
        meant = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        return f"{word} is no option of ccnn {command} for the task {task}{meant}\nccnn {command} --help lists them"
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def _unknown(message: str, parser: ArgumentParser) -> Iterator[tuple[str, Sequence[str]]]:
    """The name that nobody knows, and those it may have been."""
    if found := re.search(r"[Uu]nrecognized arguments: (--?[^\s=]+)", message):
        yield found[1], [option for action in parser._actions for option in action.option_strings]
    if found := re.search(r"class_path '([\w.]+)'[\s\S]*Option '(\w+)' is not accepted", message):
        module, _, name = found[1].rpartition(".")
        yield found[2], list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    if found := re.search(r"(?:[Kk]ey|[Oo]ption) '([\w.]+)'", message):
        yield found[1], [action.dest for action in parser._actions]
