"""Real recordings, and writers of small ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from abf_files import abf1_bytes, abf2_bytes


@pytest.fixture(scope="session")
def shared_abf(shared: Path) -> Path:
    """The folder of real ABF files."""
    folder = shared / "data" / "abf"
    if not folder.is_dir():
        pytest.skip("needs the real ABF files in shared/data/abf beside the project")
    return folder


@pytest.fixture(params=[abf1_bytes, abf2_bytes], ids=["abf1", "abf2"])
def abf_bytes(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """A writer of ABF1 files, then one of ABF2 files."""
    return request.param
