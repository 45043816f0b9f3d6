from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.power.wake.house import Card, House


@pytest.fixture
def card() -> Iterator[Card]:
    card = Card()
    yield card
    card.close()


@pytest.fixture
def house(tmp_path: Path, card: Card) -> House:
    return House(tmp_path, card)


@pytest.fixture
def make(tmp_path: Path, card: Card) -> Callable[..., House]:
    """Make a house with settings of its own."""

    def make_house(**wake: Any) -> House:
        return House(tmp_path, card, **wake)

    return make_house
