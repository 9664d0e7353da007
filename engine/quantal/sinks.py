"""Where events go while they are found: lines of JSON, a table that survives a crash, ZeroMQ."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from quantal.claims import lock
from quantal.errors import QuantalError, SaveError, UsageError
from quantal.events import COLUMNS, Events
from quantal.save import plain, reason, table_rows
from quantal.sources import load_zmq

_TAIL = 1 << 16  # bytes of a table's end in which a row may be torn
_HEADER = ",".join(COLUMNS)
Note = dict[str, Any]


class Sink(Protocol):
    """Something that takes events as they are found, and notes on what else happens."""

    def write(self, events: Events) -> None:
        """Take these events; raises SaveError."""
        ...

    def note(self, kind: str, what: Note) -> None:
        """Take a word about the stream: its start, what is missing, its end."""
        ...

    def close(self) -> None:
        """Nothing more is to come; raises SaveError if something could not be written."""
        ...


def event_notes(events: Events) -> list[Note]:
    """Each event as a dict; what could not be measured is None."""
    columns = [plain(values) for values in events.columns().values()]
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]


class JsonLines:
    """Lines of JSON on stdout, each with `kind`: start, event, missing, recording or end.

    gone: whoever read them has left.
    """

    def __init__(self) -> None:
        self.gone = False
        self._file: Any = sys.stdout

    def write(self, events: Events) -> None:
        """One line an event."""
        self._put([_line("event", one) for one in event_notes(events)])

    def note(self, kind: str, what: Note) -> None:
        """One line."""
        self._put([_line(kind, what)])

    def close(self) -> None:
        """Every line is out already."""

    def _put(self, lines: list[str]) -> None:
        if self.gone:
            return
        try:
            self._file.write("".join(line + "\n" for line in lines))
            self._file.flush()
        except OSError as error:
            self.gone = True
            # Python would flush again at its end, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            raise SaveError(f"stdout cannot be written any more: {reason(error)}") from None


class CsvRows:
    """Rows at the end of a CSV file, on the disk before the next samples are looked at.

    One run at a time may write it. A row that a crash tore is cut off when the file is opened
    again; `repaired` says what it was. Where the disk is full, rows wait for the next attempt.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.repaired = path, ""
        self._waiting = b""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise SaveError(f"{path} cannot be written: {reason(error)}") from None
        try:
            self._lock()
            self._size = self._repair()
            if not self._size:
                self._append(f"{_HEADER}\n".encode())
        except OSError as error:
            os.close(self._file)
            raise SaveError(f"{path} cannot be written: {reason(error)}") from None
        except QuantalError:
            os.close(self._file)
            raise

    def write(self, events: Events) -> None:
        """Append a row for each event, and those that waited."""
        self._waiting += "".join(row + "\n" for row in table_rows(events)).encode()
        self._append_waiting()

    def note(self, kind: str, what: Note) -> None:
        """A table has no room for notes."""

    def close(self) -> None:
        """Write what waited."""
        try:
            self._append_waiting()
        finally:
            os.close(self._file)

    def _append_waiting(self) -> None:
        if not self._waiting:
            return
        try:
            self._append(self._waiting)
        except OSError as error:
            rows = self._waiting.count(b"\n")
            raise SaveError(
                f"{self.path} cannot be written, {rows} rows wait: {reason(error)}"
            ) from None
        self._waiting = b""

    def _append(self, raw: bytes) -> None:
        """All of it, or nothing."""
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            written = 0
            while written < len(raw):
                written += os.write(self._file, raw[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(raw)

    def _lock(self) -> None:
        """Rows of two who write at once would lie over each other."""
        try:
            lock(self._file)
        except BlockingIOError:
            raise UsageError(
                f"another run is writing {self.path}; end it first, or give --csv another name."
            ) from None

    def _repair(self) -> int:
        """Bytes of the file that hold whole rows, once what is torn is cut off."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        os.lseek(self._file, 0, os.SEEK_SET)
        begin = os.read(self._file, _TAIL)
        torn, line = begin.rstrip(b"\0"), f"{_HEADER}\n".encode()
        if size <= _TAIL and len(torn) < len(line) and line.startswith(torn):
            return self._cut(0, size)
        head, end, _ = begin.partition(b"\n")
        if head.rstrip(b"\r").decode("utf-8", "replace") != _HEADER:
            raise UsageError(
                f"{self.path} is another table: rows can be added only to a table of events. Give "
                "--csv another name."
            )
        start = max(size - _TAIL, len(head + end))
        os.lseek(self._file, start, os.SEEK_SET)
        tail = os.read(self._file, size - start)
        whole = _whole_rows(tail)
        last = tail[tail.rfind(b"\n", 0, max(whole - 1, 0)) + 1 : whole]
        if whole and not _is_row(last):
            raise UsageError(
                f"the last row of {self.path} has not {len(COLUMNS)} fields: something else wrote "
                "it. Give --csv another name."
            )
        return self._cut(start + whole, size)

    def _cut(self, kept: int, size: int) -> int:
        if kept < size:
            os.ftruncate(self._file, kept)
            self.repaired = (
                f"the last {size - kept} bytes of {self.path} were no whole row, torn by a crash, "
                "and were cut off."
            )
        return kept


def _whole_rows(tail: bytes) -> int:
    """Bytes of a table's end up to the last row that was written whole.

    A crash leaves a row without its end or, after a power cut, zeros.
    """
    end = tail.rfind(b"\n") + 1
    while b"\0" in tail[(start := tail.rfind(b"\n", 0, max(end - 1, 0)) + 1) : end]:
        end = start
    return end


def _is_row(raw: bytes) -> bool:
    try:
        rows = list(csv.reader(io.StringIO(raw.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return False
    return len(rows) == 1 and len(rows[0]) == len(COLUMNS)


class Publisher:
    """ZeroMQ messages to whoever subscribes: the kind, and then what it is as JSON.

    A subscriber that does not keep up loses messages, as ZeroMQ has it; nothing else does.
    """

    def __init__(self, endpoint: str) -> None:
        zmq = load_zmq()
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 1_000)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise UsageError(
                f"nothing can be published at {endpoint!r} ({error}); an address is such as "
                "tcp://*:5556, and each has one publisher."
            ) from None
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")

    def write(self, events: Events) -> None:
        """One message an event."""
        for one in event_notes(events):
            self.note("event", one)

    def note(self, kind: str, what: Note) -> None:
        """One message."""
        self._socket.send_multipart([kind.encode(), _line(kind, what).encode()])

    def close(self) -> None:
        """Give the last messages a second to leave."""
        self._socket.close()


def _line(kind: str, what: Note) -> str:
    return json.dumps({"kind": kind, **plain(what)}, ensure_ascii=False, allow_nan=False)
