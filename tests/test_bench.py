"""`quantal bench`: what it measures, what it advises, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quantal.bench import Bench, Timing, advice, doublings, render, run_bench
from quantal.cli import main
from quantal.errors import MissingRuntimeError, UsageError
from quantal.runtime import available_providers

ONE = Timing(
    model="minis",
    device="cpu",
    threads=1,
    events=3,
    seconds=2.0,
    times_real_time=30.0,
    scores_per_s=1e5,
)


def bench_of(*timings: Timing, cores: int = 4) -> Bench:
    return Bench(
        machine="a machine",
        cores=cores,
        recording_s=60.0,
        rate_hz=50_000.0,
        events_hz=0.7,
        runs=3,
        timings=timings,
        absent=(),
    )


def test_what_is_measured_agrees_with_itself() -> None:
    told: list[Timing] = []
    measured = run_bench(["minis"], seconds=4, events_hz=5, threads=[1, 2], progress=told.append)
    assert told == list(measured.timings)
    assert [timing.threads for timing in told] == [1, 2]
    for timing in told:
        assert timing.times_real_time == pytest.approx(4 / timing.seconds)
        assert timing.scores_per_s * timing.seconds == pytest.approx(4 * 25_000 / 10)
    assert told[0].events == told[1].events > 5


def test_a_device_that_is_not_there_is_told_beside_what_is() -> None:
    measured = run_bench(["minis"], seconds=1, devices=["cpu", "cuda"], threads=[1], runs=1)
    devices = {timing.device for timing in measured.timings}
    assert "cpu" in devices
    assert ("cuda" in devices) != any(why.startswith("cuda: CUDA") for why in measured.absent)


def test_without_any_device_there_is_nothing_to_measure() -> None:
    if "CUDAExecutionProvider" in available_providers():
        pytest.skip("this ONNX Runtime may have CUDA")
    with pytest.raises(MissingRuntimeError, match="CUDA cannot be used"):
        run_bench(["minis"], seconds=1, devices=["cuda"])


@pytest.mark.parametrize(
    ("most", "tried"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_threads_are_doubled_up_to_all_cores(most: int, tried: list[int]) -> None:
    assert doublings(most) == tried


def test_the_fastest_setting_is_advised() -> None:
    two = replace(ONE, threads=2, seconds=1.0)
    four = replace(ONE, threads=4, seconds=1.5)
    cuda = replace(ONE, device="cuda", threads=4, seconds=0.1)
    other = replace(ONE, model="cnn-lstm", threads=4, seconds=40.0)
    assert advice(bench_of(ONE, two, four)) == ["minis: fastest with --threads 2."]
    assert advice(bench_of(ONE, two, four, cuda)) == ["minis: fastest with --device cuda."]
    assert advice(bench_of(ONE, replace(four, seconds=0.5))) == [
        "minis: fastest as it is, with all 4 threads."
    ]
    assert "Of these models minis is the fastest." in advice(bench_of(ONE, other))


def test_the_table_names_the_machine_and_what_could_not_be_measured() -> None:
    text = render(replace(bench_of(ONE), absent=("cuda: no driver",)))
    assert "a machine, 4 cores" in text
    assert "not measured: cuda: no driver" in text
    header, row = text.splitlines()[1:3]
    assert len(header) == len(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.5}, "must be 1 to 3600 s long"),
        ({"seconds": float("nan")}, "must be 1 to 3600 s long"),
        ({"rate_hz": 10}, "rate_hz must be 100"),
        ({"events_hz": -1}, "0 to 100 events a second"),
        ({"runs": 0}, "1 run or more"),
        ({"threads": [0]}, "threads must be"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_bench(["minis"], **{"seconds": 1, **options})


def test_the_command_writes_json_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    arguments = ["bench", "--seconds", "1", "--threads", "1", "--runs", "1", "--json"]
    result = CliRunner().invoke(main, [*arguments, "--picture", str(picture)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["timings"][0]["model"] == "minis"
    assert told["advice"]
    assert picture.read_bytes().startswith(b"\x89PNG")
