"""What every case starts from: a layer in front of an engine; tests/conftest.py has the home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.layer import Layer
from toolkit.engine.execution import Options


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    with Layer(tmp_path / "server") as layer:
        yield layer


@pytest.fixture
def slow_layer(tmp_path: Path) -> Iterator[Layer]:
    """0.05 s a step: there is a middle in which something can happen."""
    with Layer(tmp_path / "server", Options(0.05, 0.0, 0.0, True, 0.0)) as layer:
        yield layer
