"""Channels and sweeps as users name them."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence

from quantal.errors import ReadError, UsageError
from quantal.readers.recording import Recording, shortened

ChannelChoice = int | str | Sequence[int | str] | None
SweepChoice = int | str | Iterable[int]

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def choose_channels(recording: Recording, choice: ChannelChoice) -> list[int]:
    """Indices of the channels asked for, each once and in the order asked.

    choice: an index, a name, "all", or a list of indices and names; None is channel 0. A text
    that is no channel's name may be an index.

    Raises ReadError if there is no such channel, or several of that name; UsageError if the
    choice is neither a number nor a text.
    """
    if choice is None:
        return [0]
    if choice == "all" and not _named(recording, "all"):
        return list(range(len(recording.channels)))
    wanted = [choice] if isinstance(choice, str) or not isinstance(choice, Iterable) else choice
    found = list(dict.fromkeys(_channel(recording, one) for one in wanted))
    if not found:
        raise UsageError("no channel was asked for; leave channel out for channel 0, or say 'all'.")
    return found


def _named(recording: Recording, name: str) -> list[int]:
    """Channels of that name; upper and lower case are told apart only where they have to be."""
    names = [channel.name for channel in recording.channels]
    exact = [i for i, known in enumerate(names) if known == name]
    return exact or [i for i, known in enumerate(names) if known.casefold() == name.casefold()]


def _channel(recording: Recording, choice: int | str) -> int:
    if isinstance(choice, str):
        found = _named(recording, choice)
        if len(found) > 1:
            raise ReadError(
                f"{recording.path} has {len(found)} channels named {choice!r} "
                f"({shortened(found)}); give the number instead: channel={found[0]}."
            )
        if found:
            return found[0]
        choice = int(choice) if re.fullmatch(r"\d{1,9}", choice) else choice
    if not isinstance(choice, str):
        index = _integer(choice, "channel")
        if 0 <= index < len(recording.channels):
            return index
    raise ReadError(_no_channel(recording, choice))


def _no_channel(recording: Recording, choice: int | str) -> str:
    listed = shortened(
        [
            f"{i} {channel.name!r} ({channel.unit or 'no unit'})"
            for i, channel in enumerate(recording.channels)
        ]
    )
    name = recording.channels[0].name
    return (
        f"{recording.path} has no channel {choice!r}. It has: {listed}. "
        f"Give a number or a name: channel=0 or channel={name!r} (--channel 0)."
    )


def choose_sweeps(recording: Recording, choice: SweepChoice) -> list[int]:
    """Numbers of the sweeps asked for, each once and in the order asked; the first is 0.

    choice: "all", a text such as "0,2-5", a number, or numbers.

    Raises ReadError if the recording has no such sweep, UsageError if the text cannot be read.
    """
    count = len(recording.sweep_samples)
    if isinstance(choice, str) and choice.strip().lower() == "all":
        return list(range(count))
    found: dict[int, None] = {}
    for first, last in _ranges(choice):
        outside = next((n for n in (first, last) if not 0 <= n < count), None)
        if outside is not None:
            raise ReadError(_no_sweep(recording, outside))
        found.update(dict.fromkeys(range(first, last + 1)))
    if not found:
        raise UsageError(f"no sweep was asked for; give numbers from 0 to {count - 1}, or 'all'.")
    return list(found)


def _no_sweep(recording: Recording, number: int) -> str:
    count = len(recording.sweep_samples)
    if count == 1:
        return f"{recording.path} has no sweep {number}: it has only sweep 0. Give sweeps='all'."
    return (
        f"{recording.path} has no sweep {number}: it has {count}, numbered 0 to {count - 1}. "
        f"Give sweeps='all' or, for example, sweeps='0-{count - 1}' (--sweeps 0-{count - 1})."
    )


def _ranges(choice: SweepChoice) -> list[tuple[int, int]]:
    """First and last sweep of every part of a choice."""
    if not isinstance(choice, str):
        numbers = choice if isinstance(choice, Iterable) else [choice]
        return [(n, n) for n in (_integer(number, "sweeps") for number in numbers)]
    found = []
    for part in choice.split(","):
        match = _RANGE.fullmatch(re.sub(r"\s", "", part))
        if match is None or len(part) > 40:
            raise UsageError(
                f"sweeps must be 'all' or numbers and ranges such as '0,2-5', got {choice[:80]!r}."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"a range of sweeps runs upwards, got {part.strip()!r}.")
        found.append((first, last))
    return found


def _integer(value: object, name: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} must be a number or a text, got {value!r}.") from None
