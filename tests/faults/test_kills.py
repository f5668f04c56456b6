"""Five kills of trainings, a few of caches and predictions; ``make faults`` makes a hundred."""

from __future__ import annotations

import pytest
from kills import run


@pytest.mark.filterwarnings("ignore")
def test_what_is_killed_goes_on_to_the_same_end() -> None:
    tally = run(5, 3)
    assert tally.kills >= 5
    assert tally["trainings compared bit by bit"] >= 1
    assert tally["predictions compared bit by bit"] >= 1
    assert tally["caches compared bit by bit"] == 1
