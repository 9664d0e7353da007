"""`quantal stream`: every sample searched, every event written, and nothing lost in silence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import quantal
from quantal import commands, load_events
from quantal.backlog import Backlog
from quantal.cli import main
from quantal.errors import ReadError, SaveError, UsageError
from quantal.events import COLUMNS, Events, no_events
from quantal.online import OnlineDetector
from quantal.outlets import Outlets, Screen
from quantal.readers import Reading
from quantal.simulate import simulate_recording
from quantal.sinks import CsvRows, JsonLines
from quantal.sources import Piece, Signal, channel_names, find_source, split_address
from quantal.stream import FirstLook, StreamJob
from quantal.watch import Finished, WatchJob

Samples = NDArray[np.float32]
RATE_HZ = 50_000.0
RAW = ("--rate-hz", "50000", "--unit", "pA")
RIG = ("--seconds", 4, "--channels", 2, "--events-hz", 5, "--amplitude", -25)
ONE = Signal(rate_hz=RATE_HZ, unit="pA")
SLOW = Signal(rate_hz=100.0, unit="pA")
PROGRAM = [sys.executable, "-c", "from quantal.cli import main; main(prog_name='quantal')"]


def command(*arguments: object) -> list[str]:
    return [*PROGRAM, *map(str, arguments)]


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), input=stdin, capture_output=True, timeout=120)


def lines(stdout: bytes) -> dict[str, list[dict[str, Any]]]:
    """Lines of JSON by their kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in stdout.decode().splitlines():
        one = json.loads(line)
        found.setdefault(one.pop("kind"), []).append(one)
    return found


def pushed(channels: Samples, **options: Any) -> Events:
    """Events by the detector itself, all samples at once."""
    names: Any = 1 if len(channels) == 1 else [str(k) for k in range(len(channels))]
    detector = OnlineDetector(rate_hz=RATE_HZ, channels=names, **options)
    return quantal.join([detector.push(channels), detector.finish()])


def busy(seed: int = 4, seconds: float = 4.0) -> Samples:
    """One channel with clear events."""
    trace, _ = simulate_recording(seconds=seconds, frequency_hz=8, amplitude=-25, seed=seed)
    return trace.samples[None]


def processor_share(pid: int, seconds: float) -> float:
    """The part of a core that a process takes; 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0

    def used_s() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used_s()
    time.sleep(seconds)
    return (used_s() - before) / seconds


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Samples, Path]:
    """Four seconds of a simulated rig of two channels: raw bytes, samples, its true onsets."""
    truth = tmp_path_factory.mktemp("rig") / "truth.csv"
    done = run("simulate-rig", *RIG, "--speed", 0, "--truth", truth)
    assert done.returncode == 0, done.stderr
    samples = np.ascontiguousarray(np.frombuffer(done.stdout, "<f4").reshape(-1, 2).T)
    return done.stdout, samples, truth


@pytest.fixture(scope="module")
def expected(rig: tuple[bytes, Samples, Path]) -> Events:
    events = pushed(rig[1])
    assert len(events) > 20
    return events


def assert_events(found: list[dict[str, Any]], expected: Events) -> None:
    """The same events, in whatever order the channels came."""
    own = sorted((one["channel"], one["location_s"], one["amplitude"]) for one in found)
    columns = (expected.channel, expected.location_s, expected.amplitude)
    assert own == sorted(zip(*(column.tolist() for column in columns), strict=True))


# The whole command -------------------------------------------------------------------------------


def test_stdin_gives_the_events_of_the_detector_on_stdout_and_in_the_table(
    rig: tuple[bytes, Samples, Path], expected: Events, tmp_path: Path
) -> None:
    table = tmp_path / "events.csv"
    options = ("--channels", 2, "--csv", table, "--recording", "a")
    done = run("stream", "-", *RAW, *options, stdin=rig[0])
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    assert_events(told["event"], expected)
    assert told["end"][0]["events"] == len(expected)
    assert told["end"][0]["seconds"] == pytest.approx(4.0)
    assert told["end"][0]["ended_by"] == "source"
    assert told["start"][0]["delay_s"] == OnlineDetector(rate_hz=RATE_HZ).delay_s
    rows = load_events(table)
    assert set(rows.recording.tolist()) == {"a"}
    np.testing.assert_allclose(np.sort(rows.location_s), np.sort(expected.location_s), rtol=1e-11)
    assert b"up to 226 ms" in done.stderr
    assert f"{len(expected)} events in 4 s of 2 channels".encode() in done.stderr


def test_events_are_told_early_and_each_is_then_decided_or_withdrawn(
    rig: tuple[bytes, Samples, Path], expected: Events
) -> None:
    done = run("stream", "-", *RAW, "--channels", 2, "--provisional", stdin=rig[0])
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    assert_events(told["event"], expected)
    early = [(one["channel"], one["location_s"]) for one in told["provisional"]]
    assert 0 < len(early) == len(set(early))
    later = [
        (one["channel"], one["location_s"]) for one in told["event"] + told.get("withdrawn", [])
    ]
    for channel, at in early:
        assert any(channel == name and abs(at - time) < 1.2e-3 for name, time in later)


def test_the_simulated_rig_tells_the_truth(
    rig: tuple[bytes, Samples, Path], expected: Events
) -> None:
    rows = [line.split(",") for line in rig[2].read_text().splitlines()[1:]]
    for channel in ("0", "1"):
        true = [float(time_s) for name, time_s in rows if name == channel]
        found = expected[expected.channel == channel].onset_s
        hits = sum(bool((np.abs(found - time_s) < 1e-3).any()) for time_s in true)
        assert hits >= 0.8 * len(true) > 5


@pytest.mark.parametrize("kind", ["tcp", "zmq"])
def test_a_publisher_is_followed_to_its_end(kind: str, expected: Events) -> None:
    if kind == "zmq":
        pytest.importorskip("zmq")
    publisher = subprocess.Popen(
        command("simulate-rig", "--to", f"{kind}://127.0.0.1:0", *RIG, "--speed", 4),
        stderr=subprocess.PIPE,
    )
    assert publisher.stderr is not None
    with publisher, publisher.stderr:
        address = publisher.stderr.readline().decode().split()[-1]
        done = run("stream", address, *RAW, "--channels", 2)
        assert publisher.wait(20) == 0
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    assert_events(told["event"], expected)
    assert "missing" not in told


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send a Ctrl-C to one process")
def test_ctrl_c_writes_what_came_and_ends_well(
    rig: tuple[bytes, Samples, Path], expected: Events, tmp_path: Path
) -> None:
    table = tmp_path / "events.csv"
    with subprocess.Popen(
        command("stream", "-", *RAW, "--channels", 2, "--csv", table, "--status-s", 0.2),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(rig[0])
        process.stdin.flush()
        assert any(line.startswith(b"4.0 s") for line in process.stderr)
        while_waiting = processor_share(process.pid, 1.5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    told = lines(stdout)
    assert_events(told["event"], expected)
    assert told["end"][0]["ended_by"] == "user"
    assert while_waiting < 0.05
    assert len(load_events(table)) == len(expected)
    assert b"Traceback" not in stderr


def test_events_are_published_to_other_programs(rig: tuple[bytes, Samples, Path]) -> None:
    zmq = pytest.importorskip("zmq")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    subscriber.setsockopt(zmq.RCVTIMEO, 30_000)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"event")
    subscriber.connect(address)
    try:
        with subprocess.Popen(
            command("stream", "-", *RAW, "--channels", 2, "--publish", address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert any(b"up to 226 ms" in line for line in process.stderr)
            time.sleep(0.5)  # a subscriber looks for its publisher ten times a second
            stdout, _ = process.communicate(rig[0], timeout=60)
        told = lines(stdout)["event"]
        assert len(told) > 20
        for one in told:
            kind, body = subscriber.recv_multipart()
            assert kind == b"event"
            assert json.loads(body) == {"kind": "event", **one}
    finally:
        subscriber.close(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-",), "--rate-hz and --unit"),
        (("-", "--rate-hz", 5e4), "add --unit"),
        (("tcp://host", *RAW), "127.0.0.1:5555"),
        (("ftp://host:1", *RAW), "which is none of them"),
        (("nowhere", *RAW), "a folder of recordings"),
        ((__file__, *RAW), "is a file: search it with quantal detect"),
        (("-", *RAW, "--rate-hz", -1), "--rate-hz must be a positive number"),
        (("-", *RAW, "--scale", 0), "other than 0"),
        (("-", *RAW, "--channels", "a,a"), "--channels takes"),
        (("-", *RAW, "--channels", 0), "--channels takes"),
        (("-", *RAW, "--threshold", 3), "threshold"),
        (("-", *RAW, "--model", "cnn-lstm"), "reads windows"),
        (("-", *RAW, "--backlog-s", 0), "--backlog-s"),
        (("-", *RAW, "--status-s", 0), "--status-s"),
        (("zmq://127.0.0.1:1", *RAW, "--when-late", "wait"), "cannot be made to wait"),
        ((".", "--channels", 2), "--channel says"),
        ((".", "--still-s", 0), "--still-s must"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_type(
    arguments: tuple[object, ...], words: str
) -> None:
    if "zmq" in str(arguments[0]):
        pytest.importorskip("zmq")
    result = CliRunner().invoke(main, ["stream", *map(str, arguments)], input=b"")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "error:" in result.stderr
    assert result.stdout == ""


def test_a_file_of_recordings_is_not_taken_for_samples() -> None:
    done = run("stream", "-", *RAW, stdin=b"ABF2" + bytes(4_000))
    assert done.returncode == 3
    assert b"not raw samples but a file (ABF): search it with quantal detect" in done.stderr
    assert lines(done.stdout)["end"][0]["events"] == 0


def test_a_reader_that_leaves_ends_a_stream_without_a_table(
    rig: tuple[bytes, Samples, Path],
) -> None:
    with subprocess.Popen(
        command("stream", "-", *RAW, "--channels", 2),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        with suppress(BrokenPipeError):  # it may have ended before it has read all
            process.stdin.write(rig[0])
            process.stdin.flush()
        assert process.wait(60) == 0  # though stdin is open still
        stderr = process.stderr.read()
    assert stderr.count(b"stdout cannot be written any more") == 1
    assert b"Traceback" not in stderr


def test_a_rig_that_makes_no_sense_is_refused() -> None:
    for wrong in (("--seconds", 0), ("--speed", -1), ("--channels", 0), ("--to", "udp://x:1")):
        result = CliRunner().invoke(main, ["simulate-rig", *map(str, wrong)])
        assert result.exit_code == 2
        assert wrong[0] in result.stderr


def test_samples_that_are_not_what_they_are_said_to_be_are_told_once() -> None:
    channels = Signal(rate_hz=1_000.0, unit="pA", channels=("soma", "tip"))
    noise = np.random.default_rng(0).normal(0, 1, (2, 5_000)).astype(np.float32)
    noise[1] *= 1e-12  # amps
    look = FirstLook(channels)
    told = [look.at(piece) for piece in np.array_split(noise, 25, axis=1)]
    assert [k for k, texts in enumerate(told) if texts] == [9]  # after two seconds
    assert [text.split(":")[0] for text in told[9]] == ["channel tip"]
    assert "add --unit A;" in told[9][0]


# Sources -----------------------------------------------------------------------------------------


class Given:
    """A source of pieces that are there already."""

    def __init__(self, pieces: list[Piece], *, can_wait: bool = True) -> None:
        self._pieces, self.signal, self.can_wait = pieces, ONE, can_wait

    def open(self) -> Signal:
        return self.signal

    def pieces(self) -> Iterator[Piece]:
        yield from self._pieces

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "uint16"])
def test_raw_samples_of_any_kind_are_read_and_scaled(dtype: str) -> None:
    ticks = np.array([[1, 20], [3, 40], [5, 60]])
    signal = Signal(rate_hz=1.0, unit="pA", channels=("a", "b"), dtype=dtype, scale=0.5)
    samples = signal.decoded(ticks.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    np.testing.assert_array_equal(samples, [[0.5, 1.5, 2.5], [10, 20, 30]])
    assert samples.dtype == np.float32


def test_channels_are_counted_or_named() -> None:
    assert channel_names(None) == channel_names("1") == ("",)
    assert channel_names("2") == ("0", "1")
    assert channel_names("soma, dendrite") == ("soma", "dendrite")


def test_bytes_may_be_cut_anywhere_but_at_the_end(rig: tuple[bytes, Samples, Path]) -> None:
    raw = rig[0][:80_000]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        given = {"rate_hz": RATE_HZ, "unit": "pA", "channels": "2"}
        source = find_source(f"tcp://127.0.0.1:{port}", given)

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                for start in range(0, len(raw), 1_237):
                    connection.sendall(raw[start : start + 1_237])
                connection.sendall(b"abc")

        thread = threading.Thread(target=send)
        thread.start()
        source.open()
        pieces: list[Piece] = []
        with pytest.raises(ReadError, match="last 3 bytes are less than one sample"):
            pieces.extend(source.pieces())
        thread.join()
    samples = np.concatenate([piece.samples for piece in pieces], axis=1)
    np.testing.assert_array_equal(samples, rig[1][:, :10_000])


def test_a_stop_ends_a_source_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = {"rate_hz": RATE_HZ, "unit": "pA"}
        source = find_source(f"tcp://127.0.0.1:{server.getsockname()[1]}", given)
        source.open()
        timer = threading.Timer(0.1, source.stop)
        timer.start()
        assert list(source.pieces()) == []
        timer.join()


def test_zeromq_messages_without_numbers_and_of_a_wrong_size() -> None:
    zmq = pytest.importorskip("zmq")
    publisher = zmq.Context.instance().socket(zmq.XPUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    try:
        given = {"rate_hz": RATE_HZ, "unit": "pA", "channels": "2"}
        source = find_source(f"zmq://127.0.0.1:{port}", given)
        source.open()
        publisher.recv()
        publisher.send(np.arange(6, dtype="<f4").tobytes())
        publisher.send(bytes(12))
        pieces = source.pieces()
        first = next(pieces)
        np.testing.assert_array_equal(first.samples, [[0, 2, 4], [1, 3, 5]])
        assert first.first is None
        with pytest.raises(ReadError, match="12 bytes, which are not whole samples of 8 bytes"):
            next(pieces)
    finally:
        publisher.close(0)


def test_addresses() -> None:
    assert split_address("tcp://[::1]:80") == ("::1", 80)
    for wrong in ("tcp://:80", "tcp://host:0", "tcp://host:99999", "tcp://host:x"):
        with pytest.raises(UsageError, match="an address is such as tcp://"):
            split_address(wrong)


@pytest.mark.slow
def test_a_stream_of_the_lab_streaming_layer_is_followed(
    rig: tuple[bytes, Samples, Path], expected: Events
) -> None:
    pylsl = pytest.importorskip("pylsl")
    info = pylsl.StreamInfo("quantal test", "ephys", 2, RATE_HZ, "float32", f"test {os.getpid()}")
    info.set_channel_labels(["0", "1"])
    info.set_channel_units(["pA", "pA"])
    outlet = pylsl.StreamOutlet(info)
    with subprocess.Popen(
        command("stream", "lsl://quantal test"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if not outlet.wait_for_consumers(60):
            process.kill()
            pytest.skip("this machine does not let the Lab Streaming Layer find its streams")
        for start in range(0, rig[1].shape[1], 5_000):
            outlet.push_chunk(np.ascontiguousarray(rig[1][:, start : start + 5_000].T))
            time.sleep(0.1)
        time.sleep(1.0)
        del outlet
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert_events(lines(stdout)["event"], expected)


# What waits, what is late, what is lost ----------------------------------------------------------


def ramp(start: int, count: int) -> Samples:
    return np.arange(start, start + count, dtype=np.float32)[None]


def drained(backlog: Backlog, wait_s: float = 0.0) -> tuple[Samples, list[tuple[float, float]]]:
    """All samples to the end, and the stretches that are told to be missing."""
    parts, missing = [np.empty(0, np.float32)], []
    while (batch := backlog.take(wait_s)) is not None:
        parts.append(batch.samples[0])
        missing += [(one.from_s, one.to_s) for one in batch.missing]
    return np.concatenate(parts), missing


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from([0, 0, 0, 5, 250]), st.booleans()),
        max_size=30,
    ),
    start=st.sampled_from([0, 1_000]),
)
def test_every_sample_comes_out_at_its_place_or_is_told_to_be_missing(
    steps: list[tuple[int, int, bool]], start: int
) -> None:
    backlog = Backlog(SLOW, 5.0, "drop")
    at, out, missing = start, [np.empty(0, np.float32)], []
    for size, lost, is_taken in steps:
        at += lost if size and at > start else 0
        backlog.put(Piece(samples=ramp(at, size), first=at if size else None))
        at += size
        assert backlog.waiting_s <= 5.0
        if is_taken:
            batch = backlog.take(0.0)
            assert batch is not None
            out.append(batch.samples[0])
            missing += [(one.from_s, one.to_s) for one in batch.missing]
    backlog.end()
    rest, last = drained(backlog)
    samples = np.concatenate([*out, rest])
    assert len(samples) == at - start
    there = np.isfinite(samples)
    np.testing.assert_array_equal(samples[there], start + np.flatnonzero(there))
    told = np.zeros(len(samples), bool)
    for from_s, to_s in [*missing, *last]:
        told[round(from_s * 100) - start : round(to_s * 100) - start] = True
    np.testing.assert_array_equal(~there, told)


def test_whole_seconds_are_dropped_and_named() -> None:
    backlog = Backlog(SLOW, 3.0, "drop")
    for k in range(13):
        backlog.put(Piece(samples=ramp(25 * k, 25)))
    backlog.end()
    samples, missing = drained(backlog)
    assert missing == [(0.0, 3.0)]
    np.testing.assert_array_equal(samples[300:], np.arange(300, 325))


def test_the_reader_waits_where_nothing_is_to_be_dropped() -> None:
    backlog = Backlog(SLOW, 1.0, "wait")
    put: list[int] = []

    def read() -> None:
        for k in range(10):
            backlog.put(Piece(samples=ramp(50 * k, 50)))
            put.append(k)
        backlog.end()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.2)
    assert len(put) == 2  # and the third waits
    samples, missing = drained(backlog, 1.0)
    np.testing.assert_array_equal(samples, np.arange(500))
    assert missing == []
    reader.join(5)


def test_numbers_that_go_back_or_far_ahead_are_an_error() -> None:
    for number in (10, 10**12):
        backlog = Backlog(SLOW, 1.0, "drop")
        backlog.put(Piece(samples=ramp(50, 50), first=50))
        with pytest.raises(ReadError, match=f"after sample 99 comes number {number}"):
            backlog.put(Piece(samples=ramp(0, 5), first=number))


def job(source: Given, **options: Any) -> StreamJob:
    screen = Screen(status_s=None, quiet=True)
    return StreamJob(
        source=source,
        outlets=Outlets([JsonLines()], screen),
        screen=screen,
        detection={},
        recording="test",
        **options,
    )


def test_lost_samples_are_missing_and_what_follows_keeps_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples, first, second = busy(), 70_000, 110_000
    pieces = [
        Piece(samples=samples[:, start : start + 5_000], first=start + 50_000)
        for start in range(0, 200_000, 5_000)
        if not first <= start < second
    ]
    samples[:, first:second] = np.nan
    expected = pushed(samples, start_s=1.0)
    assert len(expected) > 5
    assert job(Given(pieces, can_wait=False)).run() == 0
    out, err = capsys.readouterr()
    told = lines(out.encode())
    assert_events(told["event"], expected)
    assert [(one["from_s"], one["to_s"]) for one in told["missing"]] == [(2.4, 3.2)]
    assert "samples from 2.400 to 3.200 s are missing: lost on the way" in err
    assert told["end"][0]["searched_s"] == pytest.approx(3.2)


def test_samples_that_are_sent_as_no_numbers_count_as_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples = busy().copy()
    samples[:, 50_000:75_000] = np.nan
    samples[:, 125_000:130_000] = np.inf
    pieces = [Piece(samples=part) for part in np.array_split(samples, 9, axis=1)]
    assert job(Given(pieces)).run() == 0
    out, err = capsys.readouterr()
    assert err.count("samples come that are no numbers") == 1
    end = lines(out.encode())["end"][0]
    assert end["missing_s"] == pytest.approx(0.6)
    assert end["searched_s"] == pytest.approx(3.4)


def test_a_detector_that_is_too_slow_says_so_and_what_it_drops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push = OnlineDetector.push

    def slow(self: OnlineDetector, samples: Samples) -> Events:
        time.sleep(0.1)
        return push(self, samples)

    monkeypatch.setattr(OnlineDetector, "push", slow)
    noise = np.random.default_rng(0).normal(0, 1, (1, 600_000)).astype(np.float32)
    pieces = [Piece(samples=noise[:, a : a + 5_000]) for a in range(0, 600_000, 5_000)]
    assert job(Given(pieces), when_late="drop", backlog_s=2.0).run() == 0
    out, err = capsys.readouterr()
    told = lines(out.encode())
    assert "are missing: dropped: detection fell behind" in err
    missing_s = sum(one["to_s"] - one["from_s"] for one in told["missing"])
    end = told["end"][0]
    assert end["missing_s"] == pytest.approx(missing_s)
    assert end["seconds"] == pytest.approx(12.0)
    assert end["searched_s"] == pytest.approx(12.0 - missing_s)


def test_being_behind_a_live_source_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push = OnlineDetector.push
    naps = iter([0.0, 0.0, 0.0, 1.4])

    def stuck(self: OnlineDetector, samples: Samples) -> Events:
        time.sleep(next(naps, 0.0))
        return push(self, samples)

    monkeypatch.setattr(OnlineDetector, "push", stuck)

    class Live(Given):
        def pieces(self) -> Iterator[Piece]:
            for _ in range(22):
                time.sleep(0.1)
                yield Piece(samples=np.zeros((1, 5_000), np.float32))

    assert job(Live([])).run() == 0
    err = capsys.readouterr().err
    assert "s behind; when 10 s wait, the sender waits" in err
    assert "caught up" in err
    assert "missing" not in err


def test_a_source_that_breaks_ends_the_stream_with_its_events_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples = busy(seconds=3.0)

    class Breaks(Given):
        def pieces(self) -> Iterator[Piece]:
            yield Piece(samples=samples)
            raise OSError("pulled out")

    assert job(Breaks([])).run() == 3
    out, err = capsys.readouterr()
    assert_events(lines(out.encode())["event"], pushed(samples))
    assert "the source broke: pulled out" in err


# The table ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some(expected: Events) -> Events:
    return expected[:5]


def appended(path: Path, events: Events) -> CsvRows:
    rows = CsvRows(path)
    rows.write(events)
    rows.close()
    return rows


def test_the_table_goes_on_where_it_was(tmp_path: Path, some: Events) -> None:
    path = tmp_path / "new folder" / "events.csv"
    appended(path, no_events())
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    appended(path, some[:2])
    assert appended(path, some[2:]).repaired == ""
    some.save(tmp_path / "whole.csv")
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_row_torn_anywhere_is_cut_off_and_no_whole_row_is_lost(
    tmp_path: Path, some: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "events.csv"
    appended(path, some[:2])
    whole = path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole) + 1, 3):
        path.write_bytes(whole[:cut])
        rows = appended(path, no_events())
        kept = max([end for end in ends if end <= cut], default=0)
        assert path.read_bytes() == whole[: max(kept, ends[0])]
        assert bool(rows.repaired) == (kept < cut)


def test_zeros_that_a_power_cut_leaves_are_cut_off(tmp_path: Path, some: Events) -> None:
    path = tmp_path / "events.csv"
    appended(path, some)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(300) + b"5,0,false,found\n" + b"torn")
    assert "were no whole row" in appended(path, some[:1]).repaired
    assert path.read_bytes().startswith(whole)
    assert len(load_events(path)) == 6


def test_another_table_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    header = ",".join(COLUMNS)
    for text in ("cell,comment\n1,good\n", f"{header},more\n", f"{header}\n1,2\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match="Give --csv another name"):
            CsvRows(path)
        assert path.read_text() == text


def test_an_empty_table_that_another_program_saved_goes_on(tmp_path: Path, some: Events) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(f"{','.join(COLUMNS)}\r\n".encode())
    assert appended(path, some).repaired == ""
    assert len(load_events(path)) == len(some)


def test_a_torn_header_with_zeros_after_it_is_written_anew(tmp_path: Path, some: Events) -> None:
    path = tmp_path / "events.csv"
    line = f"{','.join(COLUMNS)}\n".encode()
    for cut in (0, 7, len(line) - 1, len(line)):
        path.write_bytes(line[:cut] + bytes(4096))
        lost = 4096 + (cut if cut < len(line) else 0)
        assert f"the last {lost} bytes" in appended(path, some).repaired
        assert len(load_events(path)) == len(some)
        path.unlink()


def test_two_runs_do_not_write_one_table_at_a_time(tmp_path: Path, some: Events) -> None:
    path = tmp_path / "events.csv"
    first = CsvRows(path)
    first.write(some[:2])
    with pytest.raises(UsageError, match="another run is writing"):
        CsvRows(path)
    assert len(load_events(path)) == 2  # whoever only reads is not kept away
    first.write(some[2:3])
    first.close()
    appended(path, some[3:])
    assert load_events(path).location_s.tolist() == pytest.approx(some.location_s.tolist())


def test_rows_wait_while_the_disk_is_full(
    tmp_path: Path, some: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.csv"
    rows = CsvRows(path)
    write = os.write

    def full(file: int, raw: bytes) -> int:
        if len(raw) < 200:
            raise OSError(28, "No space left on device")
        return write(file, raw[: len(raw) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SaveError, match="2 rows wait: the disk is full"):
        rows.write(some[:2])
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    monkeypatch.setattr(os, "write", write)
    rows.write(some[2:])
    rows.close()
    assert len(load_events(path)) == len(some)


def test_a_sink_that_fails_is_told_of_once_and_stops_no_other(
    some: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails:
        def write(self, events: Events) -> None:
            raise SaveError(f"the disk is full, {len(events)} rows wait")

        def note(self, kind: str, what: dict[str, Any]) -> None:
            pass

        def close(self) -> None:
            raise SaveError("the disk is full")

    outlets = Outlets([Fails(), JsonLines()], Screen(status_s=None, quiet=True))
    for _ in range(3):
        outlets.write(some)
    outlets.close()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 * len(some)
    assert err.count("the disk is full") == 2  # at first, and in the end
    assert outlets.lost


# A folder ----------------------------------------------------------------------------------------


def test_a_file_is_finished_when_it_stands_still(tmp_path: Path) -> None:
    finished = Finished(folder=tmp_path, still_s=2.0, own=tmp_path / "all.csv")
    path = tmp_path / "cell.abf"
    for name in ("notes.md", "cell.events.csv", ".hidden.abf", "all.csv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.abf").write_bytes(b"")
    assert finished.now(0.0) == []
    path.write_bytes(b"x")
    assert finished.now(1.0) == []
    path.write_bytes(b"xx")
    assert finished.now(2.9) == []  # grown since
    assert finished.now(4.8) == []
    assert finished.now(4.9) == [path]
    assert finished.now(9.0) == []
    path.write_bytes(b"xxx")
    assert finished.now(10.0) == []
    assert finished.now(12.0) == [path]  # written anew


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send a Ctrl-C to one process")
def test_recordings_in_a_folder_are_searched_as_by_detect(tmp_path: Path) -> None:
    np.save(tmp_path / "cell.npy", busy(seconds=3.0)[0])
    (tmp_path / "bad.abf").write_bytes(b"ABF2" + bytes(40))
    options = (tmp_path, *RAW, "--out", tmp_path, "--csv", tmp_path / "all.csv", "--still-s", 0.2)
    with subprocess.Popen(
        command("stream", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = b""
        while b'"kind": "recording"' not in told:
            line = process.stdout.readline()
            assert line
            told += line
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"bad.abf" in stderr
    assert b"Traceback" not in stderr
    found = lines(told + rest)
    expected = quantal.detect(quantal.read(tmp_path / "cell.npy", rate_hz=RATE_HZ, unit="pA")[0])
    assert len(found["event"]) == len(expected) > 5
    assert found["recording"][0]["events"] == len(expected)
    assert found["end"] == [{"recordings": 1, "events": len(expected), "failed": 1}]
    for table in (tmp_path / "all.csv", tmp_path / "cell.events.csv"):
        np.testing.assert_allclose(load_events(table).amplitude, expected.amplitude, rtol=1e-8)
    assert (tmp_path / "cell.png").exists()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(_traces: object, _events: object, path: Path, **_: object) -> None:
        path.write_bytes(b"\x89PNG")

    monkeypatch.setattr("quantal.commands.draw_report", draw)


class Watched:
    """A folder of recordings that is watched, one look at a time, with a table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table, self.out = folder / "all.csv", folder / "results"
        self.samples = busy(seconds=4.0)[0]

    def look(self, *names: str, table: bool = True, **options: Any) -> WatchJob:
        """Search recordings by one run from its start to its end."""
        sinks = [CsvRows(self.table)] if table else []
        outlets = Outlets([*sinks, JsonLines()], Screen(status_s=None, quiet=True))
        nothing = ("model", "window_ms", "direction", "threshold", "smooth_ms", "measure_ms")
        given = {**dict.fromkeys((*nothing, "stride", "method", "channel", "scale")), **options}
        job = WatchJob.of(
            *(self.folder, 1.0, self.table if table else None, outlets),
            Screen(status_s=None, quiet=False),
            **{"rate_hz": RATE_HZ, "unit": "pA", "device": "auto", "threads": 1, **given},
            out=self.out,
        )
        for name in names:
            job._search(self.folder / name)
        outlets.close()
        return job

    def record(self, seconds: float, name: str = "cell.npy") -> None:
        """A recording as it is after so long."""
        np.save(self.folder / name, self.samples[: round(seconds * RATE_HZ)])

    def rows(self) -> list[tuple[str, float]]:
        """Events in the table."""
        table = load_events(self.table)
        return list(zip(table.recording.tolist(), table.location_s.tolist(), strict=True))

    def found(self, name: str = "cell") -> list[float]:
        """Events among the results."""
        table: list[float] = load_events(self.out / f"{name}.events.csv").location_s.tolist()
        return table


@pytest.fixture
def watched(tmp_path: Path, no_pictures: None) -> Watched:
    del no_pictures
    return Watched(tmp_path)


@pytest.mark.parametrize("restart", [False, True])
def test_a_recording_that_grew_is_searched_again_and_no_event_told_twice(
    watched: Watched, capsys: pytest.CaptureFixture[str], restart: bool
) -> None:
    watched.record(2.0)
    job = watched.look("cell.npy")
    first = watched.rows()
    assert len(first) > 5
    watched.record(4.0)
    capsys.readouterr()
    if restart:
        watched.look("cell.npy")
    else:
        job.outlets = Outlets([CsvRows(watched.table), JsonLines()], job.screen)
        job._search(watched.folder / "cell.npy")
        job.outlets.close()
        assert (len(job._searched), job._events) == (1, len(watched.rows()))
    rows = watched.rows()
    assert rows[: len(first)] == first
    assert [at_s for _, at_s in rows] == watched.found()
    out, err = capsys.readouterr()
    one = lines(out.encode())["recording"][0]
    assert (one["events"], one["new_events"]) == (len(rows), len(rows) - len(first))
    assert one["not_found_again"] == 0
    assert f"{len(first)} events were told before" in err
    assert "warning" not in err


def test_another_recording_under_a_known_name_is_told(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.record(2.0)
    watched.look("cell.npy")
    first = watched.rows()
    np.save(watched.folder / "cell.npy", busy(seed=9, seconds=3.0)[0])
    watched.look("cell.npy")
    rows = watched.rows()
    assert rows[: len(first)] == first
    assert [at_s for _, at_s in rows[len(first) :]] == watched.found()
    assert f"{len(first)} of {len(first)} events that were told are not" in capsys.readouterr().err


def test_a_recording_that_grew_while_it_was_searched_is_searched_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.record(2.0)
    read = commands.read_all_told

    def grow(path: Path, **options: Any) -> Reading:
        found = read(path, **options)
        watched.record(4.0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(commands, "read_all_told", grow)
        watched.look("cell.npy")
    assert max(watched.found()) < 2.0
    watched.look("cell.npy")
    assert max(watched.found()) > 3.0
    assert [at_s for _, at_s in watched.rows()] == watched.found()


def test_what_is_done_is_passed_over_unless_settings_differ(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.record(3.0)
    watched.look("cell.npy")
    rows, written = watched.rows(), (watched.out / "cell.summary.json").stat().st_mtime_ns
    watched.look("cell.npy")
    assert "cell.npy: searched before" in capsys.readouterr().err
    assert (watched.out / "cell.summary.json").stat().st_mtime_ns == written
    watched.look("cell.npy", threshold=0.9)
    assert set(watched.rows()) == set(rows)
    summary = json.loads((watched.out / "cell.summary.json").read_text())
    assert summary["settings"]["threshold"] == 0.9


def test_rows_that_a_table_lacks_are_written_when_the_command_is_given_again(
    watched: Watched,
) -> None:
    watched.record(3.0)
    watched.look("cell.npy", table=False)
    watched.look("cell.npy")
    whole = watched.rows()
    assert [at_s for _, at_s in whole] == watched.found()
    text = watched.table.read_text().splitlines(keepends=True)
    watched.table.write_text("".join(text[:4]))  # it was ended while these rows were written
    watched.look("cell.npy")
    assert watched.rows() == whole


def test_no_results_are_replaced_by_those_of_an_equal_stem(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.record(2.0)
    np.savetxt(watched.folder / "cell.csv", watched.samples[:90_000], header="current", comments="")
    os.utime(watched.folder / "cell.csv", (1, 1))
    job = watched.look("cell.npy", "cell.csv")
    assert job._failed == 1
    assert watched.look("cell.csv", "cell.npy")._failed == 1  # in whichever order
    assert capsys.readouterr().err.count("would replace those of cell.npy") == 2
    assert max(watched.found()) < 2.0
    (watched.folder / "cell.npy").unlink()
    assert watched.look("cell.csv")._failed == 0


def test_a_folder_that_is_away_is_waited_for(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    job = watched.look(table=False)
    job.finished = Finished(folder=watched.folder / "drive", still_s=1e-9)
    assert [job._look() for _ in range(3)] == [[], [], []]
    assert capsys.readouterr().err.count("cannot be looked into (No such file") == 1
    (watched.folder / "drive").mkdir()
    np.save(watched.folder / "drive" / "cell.npy", watched.samples)
    job._look()
    time.sleep(0.01)
    assert [path.name for path in job._look()] == ["cell.npy"]
    assert capsys.readouterr().err.count("is there again") == 1
