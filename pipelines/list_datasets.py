"""``ccnn datasets``: the registered data sets, or all that is known of one of them."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser

from ccnn_irregular import datasets

__all__ = ["run"]

_WIDTH = 120


def run(arguments: list[str]) -> None:
    """Print the names of all data sets and what they are, or the description of the one that is named.

    Raises:
        ValueError: a name that no data set has, with those there are.
    """
    parser = ArgumentParser(
        prog="ccnn datasets", allow_abbrev=False, description="list the data sets, or describe one of them"
    )
    parser.add_argument("name", nargs="?", help="of the data set to describe (default: list all)")
    name = parser.parse_args(arguments).name
    if name is None:
        lines = {known: datasets.describe(known)["about"] for known in datasets.names()}
    else:
        lines = {key: str(value) for key, value in datasets.describe(name).items()}
    margin = max(map(len, lines)) + 2
    for key, text in lines.items():
        print(textwrap.fill(text or "-", _WIDTH, initial_indent=key.ljust(margin), subsequent_indent=" " * margin))
