"""Spellings of units in CF files (those of UDUNITS): what they measure, exact factors, and which way degrees count."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

__all__ = ["Quantity", "compass", "measure", "same_unit"]

Quantity = Literal["length", "pressure", "time"]

_DAY = Fraction(86400)
# Base units that take prefixes: names (which have plurals), symbols, and their size in m, Pa or s.
_PREFIXABLE: tuple[tuple[Quantity, tuple[str, ...], tuple[str, ...], Fraction], ...] = (
    ("length", ("metre", "meter"), ("m",), Fraction(1)),
    ("pressure", ("pascal",), ("Pa",), Fraction(1)),
    ("pressure", ("bar",), ("bar",), Fraction(100_000)),
    ("time", ("second", "sec"), ("s",), Fraction(1)),
)
_PLAIN: tuple[tuple[Quantity, tuple[str, ...], tuple[str, ...], Fraction], ...] = (
    ("length", ("international_foot",), ("ft", "foot", "feet"), Fraction(3048, 10_000)),
    ("pressure", ("atmosphere",), ("atm",), Fraction(101_325)),
    ("pressure", (), ("mb", "mbs"), Fraction(100)),
    ("time", ("minute", "min"), (), Fraction(60)),
    ("time", ("hour", "hr"), ("h",), Fraction(3600)),
    ("time", ("day",), ("d",), _DAY),
    ("time", ("week",), (), 7 * _DAY),
    ("time", ("fortnight",), (), 14 * _DAY),
    ("time", ("common_year",), (), 365 * _DAY),
)
_PREFIXES: tuple[tuple[str, str, Fraction], ...] = (
    ("mega", "M", Fraction(10**6)),
    ("kilo", "k", Fraction(1000)),
    ("hecto", "h", Fraction(100)),
    ("deca", "da", Fraction(10)),
    ("deci", "d", Fraction(1, 10)),
    ("centi", "c", Fraction(1, 100)),
    ("milli", "m", Fraction(1, 1000)),
    ("micro", "u", Fraction(1, 10**6)),
    ("nano", "n", Fraction(1, 10**9)),
)
_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}


def _spellings() -> dict[str, tuple[Quantity, Fraction]]:
    """Return every spelling and what it measures, in m, Pa or s."""
    found: dict[str, tuple[Quantity, Fraction]] = {}
    for quantity, names, symbols, size in (*_PREFIXABLE, *_PLAIN):
        found |= {spelt: (quantity, size) for name in names for spelt in (name, f"{name}s")}
        found |= {symbol: (quantity, size) for symbol in symbols}
    for quantity, names, symbols, size in _PREFIXABLE:
        for prefix, letter, factor in _PREFIXES:
            known = (quantity, size * factor)
            found |= {prefix + spelt: known for name in names for spelt in (name, f"{name}s")}
            # "msec" is what many write for "ms".
            found |= {letter + symbol: known for symbol in (*symbols, *(n for n in names if n in ("bar", "sec")))}
    return found


_SPELLINGS = _spellings()
_DEGREES: dict[str, str] = {
    **dict.fromkeys(("", "degree", "degrees", "deg", "°", "arc_degree", "arc_degrees", "angular_degree"), ""),
    **{f"{base}_{way}": way for base in ("degree", "degrees") for way in _COMPASS.values()},
    **{
        f"{base}{gap}{letter}": way
        for base in ("degree", "degrees")
        for gap in ("", "_")
        for letter, way in _COMPASS.items()
    },
}


def measure(unit: str) -> tuple[Quantity, Fraction] | None:
    """Return what a unit measures and its size in m, Pa or s; None = no known length, pressure or time.

    >>> measure("hPa")
    ('pressure', Fraction(100, 1))
    """
    text = unit.strip().replace("µ", "u").replace("μ", "u")
    # Symbols tell capitals apart ("Ms" is no "ms"); names are written "Hours" or "METERS", too.
    return _SPELLINGS.get(text) or (_SPELLINGS.get(text.lower()) if len(text) > len("atm") else None)


def same_unit(first: str, second: str) -> bool:
    """Tell whether two spellings mean one unit."""
    known = measure(first)
    return first.strip() == second.strip() or (known is not None and known == measure(second))


def compass(unit: str) -> str | None:
    """Return the way degrees count: "north", "south", "east", "west", "" if not stated; None = no degrees.

    >>> compass("degreesE"), compass("degreeS"), compass("Degrees_West"), compass("radian")
    ('east', 'south', 'west', None)
    """
    text = unit.strip()
    if text in _DEGREES:
        return _DEGREES[text]
    # Names may be written in capitals; a letter without a gap may not: "degreeS" is south, "degrees" is not.
    text = re.sub(r"_([nsew])$", lambda found: "_" + found[1].upper(), text.lower())
    return _DEGREES.get(text)
