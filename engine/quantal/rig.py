"""A simulated rig: noise and events of known truth, published in real time or faster."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from quantal.disk import replacing
from quantal.errors import UsageError
from quantal.simulate import Rig, simulate_recording
from quantal.sources import load_zmq, split_address
from quantal.trace import is_finite

Samples = NDArray[np.float32]
Send = Callable[[int, bytes], None]

_PART_S = 5.0  # is simulated at a time
_FADE_S = 0.04  # from one part to the next, in which no event begins


@dataclass(frozen=True, kw_only=True)
class SimulatedRig:
    """What is recorded: Poisson events in each channel, on noise of SD 1 pA."""

    rate_hz: float = 50_000.0
    channels: int = 1
    events_hz: float = 1.0
    amplitude: float = -12.0
    seed: int = 0

    def parts(self) -> Iterator[tuple[Samples, list[NDArray[np.float64]]]]:
        """Five seconds after the other, without an end: samples (channels, n), onsets (s) in each.

        Onsets count from the beginning of all.
        """
        n, fade = round(_PART_S * self.rate_hz), round(_FADE_S * self.rate_hz)
        weight = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
        ends: Samples | None = None
        for number in itertools.count():
            made = [self._segment(number, channel) for channel in range(self.channels)]
            samples = np.stack([one for one, _ in made])
            if ends is not None:
                samples[:, :fade] = (1 - weight) * ends + weight * samples[:, :fade]
            ends = samples[:, n : n + fade].copy()
            yield samples[:, :n], [number * n / self.rate_hz + onset_s for _, onset_s in made]

    def _segment(self, number: int, channel: int) -> tuple[Samples, NDArray[np.float64]]:
        seconds = (round(_PART_S * self.rate_hz) + round(_FADE_S * self.rate_hz)) / self.rate_hz
        trace, truth = simulate_recording(
            seconds=seconds,
            frequency_hz=self.events_hz,
            amplitude=self.amplitude,
            rig=replace(Rig(), rate_hz=self.rate_hz),
            seed=self.seed + 1_000 * number + channel,
        )
        return trace.samples, truth.onset_s


def run_rig(
    *,
    address: str,
    seconds: float,
    rate_hz: float,
    channels: int,
    events_hz: float,
    amplitude: float,
    piece_ms: float,
    speed: float,
    seed: int,
    truth: Path | None,
) -> None:
    """Publish a simulated rig until its time is over or nobody listens any more."""
    for name, value, least in (
        ("--seconds", seconds, 0.0),
        ("--rate-hz", rate_hz, 999.9),
        ("--channels", channels, 0),
        ("--piece-ms", piece_ms, 0.0),
    ):
        if not (is_finite(value) and value > least):
            raise UsageError(f"{name} must be more than {least:g}, got {value!r}.")
    for name, value in (("--speed", speed), ("--events-hz", events_hz)):
        if not (is_finite(value) and value >= 0):
            raise UsageError(f"{name} must be 0 or more, got {value!r}.")
    rig = SimulatedRig(
        rate_hz=rate_hz, channels=channels, events_hz=events_hz, amplitude=amplitude, seed=seed
    )
    piece = max(round(piece_ms * rate_hz / 1000), 1)
    onsets: list[tuple[int, float]] = []
    with _sender(address) as send:
        try:
            for first, raw in paced(_pieces(rig, seconds, piece, onsets), rate_hz, speed):
                send(first, raw)
        except (BrokenPipeError, ConnectionError):
            click.echo("nobody listens any more.", err=True)
    if truth is not None:
        lines = ["channel,onset_s", *(f"{c},{t:.6f}" for c, t in sorted(onsets) if t < seconds)]
        with replacing(truth) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def paced(
    pieces: Iterator[tuple[int, bytes]], rate_hz: float, speed: float
) -> Iterator[tuple[int, bytes]]:
    """Pieces, each when its samples would have been recorded; speed 0 is as fast as possible."""
    begin = time.perf_counter()
    for first, raw in pieces:
        if speed:
            time.sleep(max(begin + first / (rate_hz * speed) - time.perf_counter(), 0))
        yield first, raw


def _pieces(
    rig: SimulatedRig, seconds: float, piece: int, onsets: list[tuple[int, float]]
) -> Iterator[tuple[int, bytes]]:
    """Number of the first sample and raw interleaved samples; onsets gather as parts are made."""
    left = round(seconds * rig.rate_hz)
    first, parts = 0, rig.parts()
    with ThreadPoolExecutor(1) as pool:  # the next part is made while one is sent
        coming = pool.submit(next, parts)
        while left > 0:
            samples, at = coming.result()
            onsets += [(c, float(t)) for c, times in enumerate(at) for t in times]
            if left > samples.shape[1]:
                coming = pool.submit(next, parts)
            ticks = np.ascontiguousarray(samples[:, :left].T, "<f4")
            for start in range(0, len(ticks), piece):
                yield first + start, ticks[start : start + piece].tobytes()
            first += len(ticks)
            left -= len(ticks)


@contextmanager
def _sender(address: str) -> Iterator[Send]:
    """A way to send pieces, once somebody listens."""
    kind, _, rest = address.partition("://")
    if address == "-":
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal; type: quantal simulate-rig | quantal stream -")
        yield lambda _, raw: _write_all(sys.stdout.fileno(), raw)
    elif kind == "tcp" and rest:
        with socket.create_server(split_address(address, lowest=0)) as server:
            host, port = server.getsockname()[:2]
            click.echo(f"listening at tcp://{host}:{port}", err=True)
            connection, _ = server.accept()
        with connection:
            yield lambda _, raw: connection.sendall(raw)
    elif kind == "zmq" and rest:
        with _zmq_sender(split_address(address, lowest=0)) as send:
            yield send
    else:
        raise UsageError(
            f"--to takes - (stdout), tcp://HOST:PORT or zmq://HOST:PORT, got {address!r}; port 0 "
            "is any that is free."
        )


def _write_all(file: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(file, view) :]


@contextmanager
def _zmq_sender(address: tuple[str, int]) -> Iterator[Send]:
    """Numbered messages, once there is a subscriber; an empty one is the end."""
    zmq = load_zmq()
    publisher: Any = zmq.Context.instance().socket(zmq.XPUB)
    publisher.setsockopt(zmq.LINGER, 2_000)
    publisher.setsockopt(zmq.SNDHWM, 0)
    try:
        host, port = address
        publisher.bind(f"tcp://{host}:{port or '*'}")
        name = publisher.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        click.echo(f"listening at {name.replace('tcp', 'zmq', 1)}", err=True)
        publisher.recv()
        sent = 0

        def send(first: int, raw: bytes) -> None:
            nonlocal sent
            sent = first
            publisher.send_multipart([first.to_bytes(8, "little", signed=True), raw])

        yield send
        publisher.send_multipart([sent.to_bytes(8, "little", signed=True), b""])
    except zmq.ZMQError as error:
        raise UsageError(f"nothing can be published at zmq://{host}:{port}: {error}.") from None
    finally:
        publisher.close()
