"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings and reference results, kept beside the project and not within it."""
    if not _SHARED.is_dir():
        pytest.skip(f"needs the reference recordings in {_SHARED.name}/ beside the project")
    return _SHARED
