"""Five kills of trainings, a few of caches and predictions; ``make faults`` makes a hundred."""

from __future__ import annotations

from scripts import output_of


def test_what_is_killed_goes_on_to_the_same_end() -> None:
    found = output_of("kills.py", "--kills", "5", "--seed", "3")
    counts = {name: int(count) for count, name in (line.split(maxsplit=1) for line in found.splitlines()[1:])}
    assert int(found.split()[0]) >= 5
    assert counts["trainings compared bit by bit"] >= 1
    assert counts["predictions compared bit by bit"] >= 1
    assert counts["caches compared bit by bit"] == 1
