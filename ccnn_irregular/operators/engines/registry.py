"""All engines by name."""

from __future__ import annotations

from ccnn_irregular import _registry
from ccnn_irregular.operators.engines.engine import Engine

__all__ = ["ENGINES", "register", "require_engine"]

ENGINES: dict[str, Engine] = {}
"""All engines by name, in the order in which ``auto`` looks at them."""

# What stands for the choice among them.
_AUTO = "auto"


def register(engine: Engine) -> Engine:
    """Add an engine, so that it can be named, explained and chosen, and is held to tests/engine_contract.py.

    Args:
        engine: its ``name`` is the key. An engine whose class is defined again replaces the one of before.

    Returns:
        The engine.

    Raises:
        ValueError: a name that is no word in small letters, "auto", or that of another engine.
    """
    return _registry.add(ENGINES, "an engine", getattr(engine, "name", None), engine, reserved=(_AUTO,))


def require_engine(engine: object, argument: str = "engine") -> None:
    """Refuse what is neither "auto" nor the name of an engine.

    Raises:
        ValueError: names the known ones.
    """
    _registry.require_known(ENGINES, argument, engine, besides=(_AUTO,))
