"""Events that were rejected by hand stay rejected when a recording's results are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.errors import QuantalError, ReadError, UsageError
from quantal.events import REJECTED, Events, join, no_events
from quantal.save import READABLE, file_name, load_events, load_summary

NOT_FOUND = "rejected_not_found"  # in summaries, beside `rejected`

_SAME_S, _SAME_SAMPLES = 0.5e-3, 2  # how far an event may have moved, whichever is more
_TOLD = 5  # places in a warning
_Kind = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """Events, those rejected that had been before; and what was rejected and is not found now."""

    events: Events
    not_found: Events

    @property
    def warnings(self) -> list[str]:
        """That some of the rejected are not found any more, and where they were."""
        count = len(self.not_found)
        if not count:
            return []
        one = count == 1
        places = [
            f"{at_s:.4f} s of sweep {sweep}"
            for sweep, at_s in zip(
                self.not_found.sweep.tolist(), self.not_found.location_s.tolist(), strict=True
            )
        ]
        listed = ", ".join(places[:_TOLD]) + (", ..." if count > _TOLD else "")
        return [
            f"{'an event' if one else f'{count} events'} that you had rejected "
            f"{'is' if one else 'are'} not found any more: {listed}. Should a later search find "
            f"{'it' if one else 'them'} again, reject {'it' if one else 'them'} again."
        ]


def carry_over(
    events: Events, folder: Path, name: str, *, recording: Path, rate_hz: float
) -> Reviewed:
    """The events, rejected where an older table of the same recording has a rejected one.

    That is the nearest of the same channel, sweep, polarity and region of interest, within half a
    millisecond or two samples, each being that of one event. Older tables are all in the folder
    that are called name.events.* and can be read back: what one of them rejects is rejected.

    Raises ReadError if one cannot be read, UsageError if rejections there are of another recording:
    they must not be replaced.
    """
    rejected = np.zeros(len(events), np.bool_)
    not_found = no_events()
    for path in (folder / f"{name}.events{suffix}" for suffix in READABLE):
        old = _rejected_in(path, folder / f"{name}.summary.json", recording)
        if old is None:
            continue
        partners = _partners(old, events, max(_SAME_S, _SAME_SAMPLES / rate_hz))
        mine = old.status == REJECTED
        rejected[partners[mine & (partners >= 0)]] = True
        missed = old[mine & (partners < 0)]
        known = _partners(missed, not_found, _SAME_S) >= 0  # from another of the tables
        not_found = join([not_found, missed[~known]])
    return Reviewed(events=events.reject(rejected), not_found=not_found)


def said_of(summary: Mapping[str, Any]) -> str:
    """How many stay rejected and how many are not found, for a line for people; "" of none."""
    kept, lost = summary["rejected"], summary[NOT_FOUND]
    said = f", {kept} {'stays' if kept == 1 else 'stay'} rejected" if kept else ""
    return said + (f", {lost} rejected before not found any more" if lost else "")


def _rejected_in(path: Path, summary: Path, recording: Path) -> Events | None:
    """An older table that holds rejected events; None if it holds none, or is not there."""
    if not path.exists():
        return None
    try:
        old = load_events(path)
    except QuantalError as error:
        raise ReadError(
            f"{error} It may hold events that you rejected, and is not replaced: mend it, or move "
            "it away."
        ) from None
    count = int((old.status == REJECTED).sum())
    if not count:
        return None
    owner = (load_summary(summary) or {}).get("recording")
    if isinstance(owner, str) and file_name(owner) != recording.name:
        raise UsageError(
            f"{path} holds {count} rejected {'event' if count == 1 else 'events'} of "
            f"{file_name(owner)}, and is not replaced: choose another --out, or move it away."
        )
    return old


def _partners(old: Events, new: Events, within_s: float) -> NDArray[np.int64]:
    """The row of the same event in `new` for each of `old`, -1 where there is none.

    Where there is a choice the nearest are paired first. All of the old ones take part, so that a
    rejected one does not take the place of its neighbour.
    """
    partners = np.full(len(old), -1, np.int64)
    places = dict(_by_kind(new))
    for kind, rows in _by_kind(old):
        if kind in places:
            there = places[kind]
            for i, k in _nearest(old.location_s[rows], new.location_s[there], within_s):
                partners[rows[i]] = there[k]
    return partners


def _by_kind(events: Events) -> Iterator[tuple[_Kind, NDArray[np.int64]]]:
    """The rows of every channel, sweep, polarity and region of interest."""
    columns = [events.channel, events.sweep, events.polarity]
    columns += [] if events.roi is None else [events.roi]
    rows: dict[_Kind, list[int]] = {}
    for row, kind in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        rows.setdefault(kind, []).append(row)
    yield from ((kind, np.array(those, np.int64)) for kind, those in rows.items())


def _nearest(
    old: NDArray[np.float64], new: NDArray[np.float64], within_s: float
) -> Iterator[tuple[int, int]]:
    """Pairs of times that are near each other, the nearest first, none of them in two pairs."""
    order = np.argsort(new)
    first = np.searchsorted(new[order], old - within_s, side="left")
    stop = np.searchsorted(new[order], old + within_s, side="right")
    near: Sequence[tuple[float, int, int]] = sorted(
        (abs(float(new[k] - old[i])), i, k)
        for i in range(len(old))
        for k in order[first[i] : stop[i]].tolist()
    )
    taken_old: set[int] = set()
    taken_new: set[int] = set()
    for _, i, k in near:
        if i not in taken_old and k not in taken_new:
            taken_old.add(i)
            taken_new.add(k)
            yield i, k
