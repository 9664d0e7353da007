"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings and reference results, kept beside the project and not within it."""
    if not _SHARED.is_dir():
        pytest.skip(f"needs the reference recordings in {_SHARED.name}/ beside the project")
    return _SHARED


@pytest.fixture(scope="session", autouse=True)
def _no_installed_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees, or touches, the models of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTAL_MODELS", str(tmp_path_factory.mktemp("installed")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """Programs that are started behind another ignore Ctrl-C, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
