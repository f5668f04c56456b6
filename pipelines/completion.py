"""``ccnn --print_completion bash | zsh``: completion of commands, configurations, tasks and common options."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from ccnn_irregular._checks import require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.pipelines.train.registry import TASKS

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "tcsh")
_TRAINED = ("fit", "validate", "test", "predict")


def completion(shell: str, commands: Sequence[str], configs: Sequence[str]) -> str:
    """The script that a shell reads: ``eval "$(ccnn --print_completion bash)"``.

    Raises:
        ValueError: another shell.
        ImportError: shtab is not installed.
    """
    require(shell in _SHELLS, "--print_completion", f"be one of {', '.join(_SHELLS)}", repr(shell))
    shtab = import_optional("shtab", "shell completion", "train")
    parser = ArgumentParser(prog="ccnn")
    parser.add_argument("--version", action="store_true", help="the version")
    parser.add_argument("--print_completion", choices=_SHELLS, help="completion for a shell")
    subparsers = parser.add_subparsers()
    for name in commands:
        command = subparsers.add_parser(name, help=name)
        if name in _TRAINED:
            command.add_argument("--config", choices=configs, help="what is set")
            command.add_argument("--task", choices=list(TASKS), help="what is trained")
            command.add_argument("--help-all", action="store_true", help="every option")
            for option in ("--run_dir", "--data.root", *(("--output",) if name in ("test", "predict") else ())):
                command.add_argument(option, help="a path").complete = shtab.FILE  # type: ignore[attr-defined]  # shtab asks for it
            if name in ("test", "predict"):
                command.add_argument("--data.evaluate", choices=["test", "all"], help="which rows")
        elif name in ("inspect", "consistency"):
            command.add_argument("file", help="a path").complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script
