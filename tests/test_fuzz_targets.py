"""What is fuzzed: good files are answered with what they hold, and wrong answers are noticed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzz_recipes import mutator, packed_numbers
from fuzz_targets import TARGETS, WrongResultError, abf_again, numpy_again, table_again

from quantal.errors import MissingLibraryError, MissingRuntimeError
from quantal.readers import read


@pytest.fixture(autouse=True)
def _models_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTAL_MODELS", os.environ["QUANTAL_MODELS"])


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_file_is_answered_with_what_it_holds(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    given = {"matrix-csv": 1}.get(name, 0)  # a good file that needs no word of the user's
    try:
        answer = target.attempt(target.seeds(tmp_path)[given], tmp_path)
    except (ModuleNotFoundError, MissingLibraryError, MissingRuntimeError) as missing:
        pytest.skip(str(missing))
    if target.known is not None:
        for samples, known in zip(answer, target.known(), strict=True):
            np.testing.assert_allclose(samples, known, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "suffix", "again"),
    [("abf1", "abf", abf_again), ("npy", "npy", numpy_again), ("csv", "csv", table_again)],
)
def test_a_wrong_sample_is_noticed(name: str, suffix: str, again: object, tmp_path: Path) -> None:
    path = tmp_path / f"cell.{suffix}"
    path.write_bytes(TARGETS[name].seeds(tmp_path)[0])
    traces = read(path, rate_hz=1e4, unit="pA")
    assert callable(again)
    again(path, traces, None)
    samples = traces[0].samples.copy()
    samples[7] += 1
    with pytest.raises(WrongResultError):
        again(path, [replace(traces[0], samples=samples)], None)


def test_mutations_are_those_of_their_seed_and_within_bounds() -> None:
    change = mutator(packed_numbers(), lambda data, most: data[:most])
    data = bytes(range(256)) * 8
    changed = [change(data, 3_000, seed) for seed in range(200)]
    assert changed == [change(data, 3_000, seed) for seed in range(200)]
    assert all(len(one) <= 3_000 for one in changed)
    assert len(set(changed)) > 80
