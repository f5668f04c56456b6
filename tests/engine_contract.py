"""The contract of every engine, generator and mask: whatever is registered is held to it.

``tests/test_contract.py`` runs ``contract()``. A part that another module registers joins by naming that module:

    python -m pytest -p my_module tests/test_contract.py -k my_engine
"""

from __future__ import annotations

from collections.abc import Iterator

from contract_checks import Check
from contract_engines import (
    COMPILED,
    GENERAL_CHECKS,
    GRID_CHECKS,
    GRID_CHECKS_OF_EXACT,
    POINT_CHECKS,
    POINT_CHECKS_OF_EXACT,
    serves_grids,
    serves_others,
)
from contract_kernels import GENERATOR_CHECKS, MASK_CHECKS

from ccnn_irregular.kernels import GENERATORS, MASKS
from ccnn_irregular.operators import ENGINES

__all__ = ["contract", "engine_checks"]

_SMALL_RTOL = 1e-6


def contract() -> Iterator[tuple[str, Check]]:
    """Every registered part's name with every check that it is held to; KeOps, which compiles, has tests of its own."""
    for name in ENGINES:
        if name not in COMPILED:
            yield from ((name, check) for check in engine_checks(name))
    yield from ((name, check) for name in GENERATORS for check in GENERATOR_CHECKS)
    yield from ((name, check) for name in MASKS for check in MASK_CHECKS)


def engine_checks(name: str) -> Iterator[Check]:
    """The checks of one engine: for the forms of domains it serves, and more of them if it is exact."""
    exact = ENGINES[name].error(_SMALL_RTOL) == 0
    yield from GENERAL_CHECKS
    if serves_grids(name):
        yield from GRID_CHECKS
        yield from GRID_CHECKS_OF_EXACT if exact else ()
    if serves_others(name):
        yield from POINT_CHECKS
        yield from POINT_CHECKS_OF_EXACT if exact else ()
