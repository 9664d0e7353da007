"""Where samples come from while they are recorded: a pipe, a socket, ZeroMQ, LSL."""

from __future__ import annotations

import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantal.errors import ReadError, UsageError
from quantal.readers import FORMATS
from quantal.trace import is_finite

Samples = NDArray[np.float32]

DTYPES = ("float32", "float64", "int16", "int32", "uint16")
_AT_ONCE = 1 << 18  # bytes that are read at most
_PATIENCE_S = 10.0  # for a publisher that is not there yet
_LOOK_S = 0.5  # how long a wait that nothing else can end may last


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What samples are: their rate, unit and channels, and how they are written as bytes.

    dtype: of raw samples, little-endian, channels interleaved. scale: turns them into the unit.
    """

    rate_hz: float
    unit: str
    channels: tuple[str, ...] = ("",)
    dtype: str = "float32"
    scale: float = 1.0

    def decoded(self, raw: bytes | memoryview) -> Samples:
        """Whole ticks of raw bytes as samples (channels, n)."""
        interleaved = np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<"))
        return self.scaled(interleaved.reshape(-1, len(self.channels)))

    def scaled(self, ticks: NDArray[Any]) -> Samples:
        """Samples (channels, n) in the unit, from ticks (n, channels)."""
        samples = ticks.T.astype(np.float32)
        return samples if self.scale == 1.0 else samples * np.float32(self.scale)

    @property
    def tick_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return np.dtype(self.dtype).itemsize * len(self.channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Piece:
    """Samples (channels, n) that came together; first: the first one's number, where it is told."""

    samples: Samples
    first: int | None = None


class Source(Protocol):
    """Something that gives samples until it ends or is stopped.

    can_wait: whether the sender waits while nobody reads.
    """

    can_wait: bool

    @property
    def signal(self) -> Signal | None:
        """What the samples are; None where only the open source tells."""
        ...

    def open(self) -> Signal:
        """Connect, and say what the samples are; raises ReadError if nothing is there."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """Pieces as they come, blocking in between; raises ReadError if the source breaks."""
        ...

    def stop(self) -> None:
        """From another thread: let `pieces` end soon."""
        ...


def find_source(address: str, given: dict[str, Any]) -> Source:
    """The source at `-`, tcp://HOST:PORT, zmq://HOST:PORT or lsl://NAME, not yet open.

    given: rate_hz, unit, channels, dtype, scale, of which None are not given. Raises UsageError.
    """
    kind, _, rest = address.partition("://")
    if address == "-":
        return _Pipe(_raw_signal(given))
    if kind == "lsl" and rest:
        return _Lsl(rest, given)
    if kind == "tcp" and rest:
        return _Tcp(split_address(address), _raw_signal(given))
    if kind == "zmq" and rest:
        split_address(address)
        return _Zmq(f"tcp://{rest}", _raw_signal(given))
    if Path(address).is_file():
        raise UsageError(
            f"{address} is a file: search it with quantal detect. quantal stream takes samples as "
            "they are recorded, or a folder in which recordings appear."
        )
    raise UsageError(
        f"samples come from - (stdin), tcp://HOST:PORT, zmq://HOST:PORT, lsl://NAME or a folder of "
        f"recordings, got {address!r}, which is none of them."
    )


def channel_names(text: str | None) -> tuple[str, ...]:
    """ "3" as three channels that are numbered, "soma,dendrite" as two with names."""
    if text is None or text.strip() == "1":
        return ("",)
    if text.strip().isdecimal() and 0 < int(text) <= 10_000:
        return tuple(str(k) for k in range(int(text)))
    names = tuple(name.strip() for name in text.split(","))
    if text.strip().lstrip("-").isdecimal() or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"--channels takes how many there are, or their names, such as 4 or soma,dendrite, "
            f"got {text!r}."
        )
    return names


def _raw_signal(given: dict[str, Any]) -> Signal:
    missing = [f"--{name.replace('_', '-')}" for name in ("rate_hz", "unit") if not given.get(name)]
    if missing:
        raise UsageError(
            f"raw samples do not say what they are: add {' and '.join(missing)}, such as "
            "--rate-hz 50000 --unit pA."
        )
    return _checked(
        Signal(
            rate_hz=given["rate_hz"],
            unit=given["unit"].strip(),
            channels=channel_names(given.get("channels")),
            dtype=given.get("dtype") or DTYPES[0],
            scale=1.0 if given.get("scale") is None else given["scale"],
        )
    )


def _checked(signal: Signal) -> Signal:
    if not (is_finite(signal.rate_hz) and signal.rate_hz > 0):
        raise UsageError(f"--rate-hz must be a positive number, got {signal.rate_hz!r}.")
    if not (is_finite(signal.scale) and signal.scale != 0):
        raise UsageError(f"--scale must be a number other than 0, got {signal.scale!r}.")
    if signal.dtype not in DTYPES:
        raise UsageError(f"--dtype must be one of {', '.join(DTYPES)}, got {signal.dtype!r}.")
    return signal


def split_address(address: str, lowest: int = 1) -> tuple[str, int]:
    """Host and port of such an address as tcp://127.0.0.1:5555; raises UsageError."""
    kind, _, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    if not (colon and host and port.isdecimal() and lowest <= int(port) < 65_536):
        raise UsageError(f"an address is such as {kind}://127.0.0.1:5555, got {address!r}.")
    return host.strip("[]"), int(port)


class _Whole:
    """Cuts a line of bytes into whole ticks."""

    def __init__(self, signal: Signal) -> None:
        self._signal, self._rest = signal, b""
        self._begun = False

    def push(self, raw: bytes) -> Samples:
        """Whole ticks; raises ReadError if the first bytes are those of a file of recordings."""
        if not self._begun:
            _refuse_file(raw)
            self._begun = True
        raw = self._rest + raw if self._rest else raw
        whole = len(raw) // self._signal.tick_bytes * self._signal.tick_bytes
        self._rest = raw[whole:]
        return self._signal.decoded(memoryview(raw)[:whole])

    def finish(self) -> None:
        """Raises ReadError if bytes are left: some were lost, or they are not what was said."""
        if self._rest:
            raise ReadError(
                f"the last {len(self._rest)} bytes are less than one sample of every channel "
                f"({self._signal.tick_bytes} bytes): the sender was cut off, or --dtype or "
                "--channels are not what it sends."
            )


def _refuse_file(raw: bytes) -> None:
    kind = next((kind.name for kind in FORMATS if raw.startswith(kind.magic)), None)
    if kind is not None:
        raise ReadError(
            f"what comes is not raw samples but a file ({kind}): search it with quantal detect, or "
            "send its samples alone."
        )


class _Pipe:
    """Raw samples from stdin."""

    can_wait = True

    def __init__(self, signal: Signal) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "stdin is a terminal; send samples into it: acquire | quantal stream -"
            )
        self.signal = signal
        self._stopped = False
        self._file = -1

    def open(self) -> Signal:
        self._file = sys.stdin.fileno()
        return self.signal

    def pieces(self) -> Iterator[Piece]:
        whole = _Whole(self.signal)
        while not self._stopped and (raw := os.read(self._file, _AT_ONCE)):
            yield Piece(samples=whole.push(raw))
        if not self._stopped:
            whole.finish()

    def stop(self) -> None:
        self._stopped = True  # a read that blocks ends with the process


class _Tcp:
    """Raw samples from a publisher that listens at a TCP port."""

    can_wait = True

    def __init__(self, address: tuple[str, int], signal: Signal) -> None:
        self.signal = signal
        self._stopped = False
        self._address = address
        self._socket: socket.socket | None = None

    def open(self) -> Signal:
        self._socket = _connected(self._address)
        return self.signal

    def pieces(self) -> Iterator[Piece]:
        whole, connection = _Whole(self.signal), self._socket
        assert connection is not None, "it must be open"
        try:
            while raw := connection.recv(_AT_ONCE):
                yield Piece(samples=whole.push(raw))
        except OSError as error:
            if not self._stopped:
                raise ReadError(
                    f"the connection to {_said(self._address)} broke: {error.strerror or error}."
                ) from None
        finally:
            connection.close()
        if not self._stopped:
            whole.finish()

    def stop(self) -> None:
        self._stopped = True
        if self._socket is not None:
            with suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)


def _said(address: tuple[str, int]) -> str:
    return f"tcp://{address[0]}:{address[1]}"


def _connected(address: tuple[str, int]) -> socket.socket:
    last = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection = socket.create_connection(address, timeout=_PATIENCE_S)
            connection.settimeout(None)
            return connection
        except OSError as error:
            if time.monotonic() > last or isinstance(error, socket.gaierror):
                raise ReadError(
                    f"nothing publishes at {_said(address)} "
                    f"({error.strerror or error}); start the publisher, then quantal stream."
                ) from None
            time.sleep(0.2)


class _Zmq:
    """Raw samples from a ZeroMQ publisher.

    A message is raw samples, or the number of its first sample (8 bytes, little-endian) and then
    the raw samples; with numbers, lost messages are seen. No samples at all are the end.
    """

    can_wait = False  # ZeroMQ drops what a slow subscriber does not take

    def __init__(self, endpoint: str, signal: Signal) -> None:
        self.signal = signal
        self._zmq, self._endpoint = load_zmq(), endpoint
        self._stopped = threading.Event()
        self._socket: Any = None

    def open(self) -> Signal:
        zmq = self._zmq
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)  # the backlog has the limit
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, round(1000 * _LOOK_S))
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise ReadError(f"ZeroMQ cannot connect to {self._endpoint}: {error}.") from None
        return self.signal

    def pieces(self) -> Iterator[Piece]:
        try:
            while not self._stopped.is_set():
                try:
                    frames = self._socket.recv_multipart()
                except self._zmq.Again:
                    continue
                piece = self._piece(frames)
                if not piece.samples.size:
                    return
                yield piece
        finally:
            self._socket.close()

    def _piece(self, frames: list[bytes]) -> Piece:
        raw = frames[-1]
        if len(frames) > 2 or (len(frames) == 2 and len(frames[0]) != 8):
            raise ReadError(
                f"a message of {self._endpoint} has {len(frames)} frames of "
                f"{', '.join(str(len(frame)) for frame in frames)} bytes; it must be raw samples, "
                "or the number of the first one in 8 bytes and then raw samples."
            )
        if len(raw) % self.signal.tick_bytes:
            raise ReadError(
                f"a message of {self._endpoint} has {len(raw)} bytes, which are not whole samples "
                f"of {self.signal.tick_bytes} bytes: --dtype or --channels are not what it sends."
            )
        first = int.from_bytes(frames[0], "little", signed=True) if len(frames) == 2 else None
        return Piece(samples=self.signal.decoded(raw), first=first)

    def stop(self) -> None:
        self._stopped.set()


class _Lsl:
    """A stream of the Lab Streaming Layer, by its name."""

    can_wait = False

    def __init__(self, name: str, given: dict[str, Any]) -> None:
        self.signal: Signal | None = None
        self._lsl = _load_lsl()
        self._name, self._given = name, given
        self._stopped = threading.Event()
        self._inlet: Any = None

    def open(self) -> Signal:
        found = self._lsl.resolve_byprop("name", self._name, timeout=_PATIENCE_S)
        if len(found) != 1:
            raise ReadError(
                f"{len(found) or 'no'} streams of the Lab Streaming Layer have the name "
                f"{self._name!r}, and there must be one: start it first, and let ports 16571 to "
                "16604 through the firewall."
            )
        # A stream that is lost ends: how much was lost in between could not be told.
        self._inlet = self._lsl.StreamInlet(found[0], recover=False, max_buflen=60)
        self.signal = signal = _lsl_signal(self._inlet.info(_PATIENCE_S), self._given)
        return signal

    def pieces(self) -> Iterator[Piece]:
        try:
            while not self._stopped.is_set():
                ticks, _ = self._inlet.pull_chunk(
                    timeout=_LOOK_S, min_samples=1, max_samples=65_536, as_numpy=True
                )
                if len(ticks) and self.signal is not None:
                    yield Piece(samples=self.signal.scaled(np.asarray(ticks)))
        except self._lsl.util.LostError:
            return
        finally:
            self._inlet.close_stream()

    def stop(self) -> None:
        self._stopped.set()


def _lsl_signal(info: Any, given: dict[str, Any]) -> Signal:
    rate_hz, count = float(info.nominal_srate()), int(info.channel_count())
    wanted = given.get("rate_hz")
    if not rate_hz and not wanted:
        raise UsageError("this stream has no rate; say what it is: --rate-hz 50000.")
    if rate_hz and wanted and not math.isclose(rate_hz, wanted, rel_tol=1e-6):
        raise UsageError(f"this stream has {rate_hz:g} Hz, and --rate-hz says {wanted:g}.")
    labels, units = info.get_channel_labels() or [], info.get_channel_units() or []
    unit = given.get("unit") or next((text for text in units if text), None)
    if not unit:
        raise UsageError("this stream does not say its unit: add --unit pA.")
    names = channel_names(given.get("channels") or str(count))
    if not given.get("channels") and len(set(labels)) == count > 1 and all(labels):
        names = tuple(labels)
    if len(names) != count:
        raise UsageError(f"this stream has {count} channels, and --channels says {len(names)}.")
    scale = 1.0 if given.get("scale") is None else given["scale"]
    signal = Signal(rate_hz=rate_hz or wanted or 0.0, unit=unit, channels=names)
    return _checked(replace(signal, scale=scale))


def load_zmq() -> Any:
    """The zmq module; raises UsageError, with what to type, if it is not there."""
    try:
        import zmq
    except ImportError:
        raise UsageError(
            'ZeroMQ needs pyzmq. Type: python -m pip install pyzmq (or "quantal[stream]").'
        ) from None
    return zmq


def _load_lsl() -> Any:
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:  # RuntimeError: without the library liblsl
        raise UsageError(
            f"the Lab Streaming Layer needs pylsl and liblsl ({str(error).splitlines()[0]}). Type: "
            "python -m pip install pylsl"
        ) from None
    return pylsl


def names_or_count(channels: Sequence[str]) -> int | list[str]:
    """Channels as OnlineDetector takes them."""
    return 1 if tuple(channels) == ("",) else list(channels)
