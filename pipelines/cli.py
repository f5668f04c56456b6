"""The ``ccnn`` command.

This file is all that ``ccnn --help`` and a mistyped command load: PyTorch and Lightning are imported by the subcommand
that needs them, once the arguments are known to make sense.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CONFIGS", "main"]

CONFIGS = Path(__file__).parent / "configs"

_TRACEBACK = "CCNN_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``ccnn`` with ``argv`` (default: the arguments of the process).

    Raises:
        SystemExit: status 2 with one line on stderr where an argument or a file is at fault, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    if arguments == ["--version"]:
        from importlib import metadata

        print(metadata.version("ccnn-irregular"))
        return
    word, _, shell = arguments[0].partition("=")
    if word != "--print_completion" and word not in COMMANDS:
        nearest = difflib.get_close_matches(word, COMMANDS, 1)
        meant = f"; did you mean {nearest[0]}?" if nearest else ""
        _fail(f"the command must be one of {', '.join(COMMANDS)}, got {word!r}{meant}")
    try:
        if word == "--print_completion":
            from ccnn_irregular.pipelines.completion import completion

            print(completion(shell or " ".join(arguments[1:]), list(COMMANDS), config_names()))
            return
        with _plain_warnings():
            COMMANDS[arguments[0]][0](packaged_configs(arguments))
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted", status=130)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's way out of Ctrl-C
            _fail("interrupted", status=130)
        raise


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings to a user without the place in the code that gave them, which is for programmers."""
    before = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, UserWarning) and not os.environ.get(_TRACEBACK):
            return f"ccnn: warning: {message}\n"
        return before(message, category, *place, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before


def _fail(message: str, status: int = 2) -> None:
    print(f"ccnn: error: {message}", file=sys.stderr)
    raise SystemExit(status)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: ccnn COMMAND [options]\n\n"
        f"commands:\n{commands}\n\n"
        f"packaged configurations: {', '.join(config_names())}\n\n"
        "ccnn COMMAND --help lists the options of a command, with --config NAME --help those of its task and what it\n"
        "sets, --help-all every one. A configuration (--config NAME or FILE) sets options; any of them can be\n"
        "overridden after it: ccnn fit --config series --data.table FILE --data.labels FILE\n"
        'ccnn --version; ccnn --print_completion bash, zsh or tcsh: eval "$(ccnn --print_completion bash)".\n'
        f"{_TRACEBACK}=1 in the environment shows where an error came from."
    )


def config_names() -> list[str]:
    """Names of the packaged configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def config_path(name: str) -> str:
    """A configuration by its packaged name or its path.

    Raises:
        ValueError: neither a packaged name nor a file.
    """
    packaged = CONFIGS / f"{name}.yaml"
    if packaged.is_file() and packaged.parent == CONFIGS:
        return str(packaged)
    if not Path(name).is_file():
        nearest = difflib.get_close_matches(name, config_names(), 3)
        meant = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise ValueError(f"config must be a YAML file or a name that ccnn --help lists, got {name!r}{meant}")
    return name


def packaged_configs(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the value of every ``--config`` (or ``-c``) resolved to a path."""
    resolved = list(arguments)
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option not in ("--config", "-c"):
            continue
        if equals:
            resolved[place] = f"{option}={config_path(value)}"
        elif place + 1 < len(arguments):
            resolved[place + 1] = config_path(arguments[place + 1])
    return resolved


def _train(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines.train.run import run

    run(arguments)


def _baseline(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines.tasks.series import baselines

    baselines.run(arguments[1:])


def _simulate(arguments: list[str]) -> None:
    from jsonargparse import ArgumentParser

    from ccnn_irregular.datasets import simulated_icu
    from ccnn_irregular.pipelines.train.arguments import join_lists

    parser = ArgumentParser(
        prog="ccnn simulate", allow_abbrev=False, description="write a simulated cohort in the challenge's file format"
    )
    parser.add_function_arguments(simulated_icu.write, as_positional=True)
    options = parser.instantiate(parser.parse_args(join_lists(arguments[1:], parser)))
    simulated_icu.write(**options.as_dict())
    print(f"simulated stays: {options.root}")


def _datasets(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import list_datasets

    list_datasets.run(arguments[1:])


def _demo(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import demo

    demo.run(arguments[1:])


def _consistency(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import consistency

    consistency.run(arguments[1:])


def _resize(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import resize

    resize.run(arguments[1:])


def _export(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import export

    export.run(arguments[1:])


def _machine(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import machine

    machine.run(arguments[1:])


def _info(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import info

    info.run(arguments[1:])


def _inspect(arguments: list[str]) -> None:
    from ccnn_irregular.pipelines import inspection

    inspection.run(arguments[1:])


Command = Callable[[list[str]], None]

COMMANDS: dict[str, tuple[Command, str]] = {
    "fit": (_train, "train a network; the same command resumes an interrupted run"),
    "validate": (_train, "losses and metrics on the validation part"),
    "test": (_train, "metrics of what was held out, beside baselines: tables, JSON and pictures"),
    "predict": (_train, "answers for rows or files: CSV, netCDF, zarr or NIfTI"),
    "resize": (_resize, "a trained run at another width, without training: a folder that test and predict take"),
    "export": (_export, "a trained network on a fixed grid as one file for PyTorch or ONNX, which needs none of this"),
    "baseline": (_baseline, "gradient-boosted trees on statistics of irregular series, same split and metrics"),
    "inspect": (_inspect, "what a file or folder holds, what looks wrong in it, and the command to type next"),
    "info": (_info, "versions, devices, compiler, engines, and what each optional reader needs"),
    "datasets": (_datasets, "list the data sets, or tell what one of them is and where its files come from"),
    "simulate": (_simulate, "write simulated intensive-care stays in the file format of PhysioNet 2012"),
    "machine": (_machine, "measure this machine for the cost model that chooses the engines"),
    "demo": (_demo, "simulate, train, test and plot in about two minutes"),
    "consistency": (_consistency, "how far engines and thinned or jittered samplings of a file are from its full grid"),
}
