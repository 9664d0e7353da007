"""What the accuracy benchmark compares: networks, classical methods, the ideal observer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ideal import CLOSEST_S, best_choice, explain, filtered
from scenes import MEASURES, Floats, Known, Scene

import quantal
from quantal import classical
from quantal.events import Events
from quantal.kinetics import measure
from quantal.model import Model, load_model

IDEAL, MINIML = "ideal", "miniML 1.1"
WINDOW_DECAYS = 12  # the window, in decay constants, that a method is told if it needs one
SLOW = {"bayesian": 10.0}  # seconds of each recording that these are given
_LOWEST, _HIGHEST = 0.02, 0.98  # thresholds of what lies between 0 and 1


class UnavailableError(Exception):
    """This detector cannot be run here, or not on such a scene."""


class Detector(Protocol):
    """Finds events at its default threshold, or at so many per cent of it."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def identity(self) -> str:
        """Results of another identity are out of date."""

    def find(self, scene: Scene, percent: float = 100.0) -> Known:
        """The events of a scene; raises UnavailableError where it cannot say."""
        ...


@dataclass(frozen=True)
class Network:
    """A model, told the window if it reads windows; a trace network is told nothing."""

    name: str
    model: Model

    @property
    def identity(self) -> str:
        """Changes with the graph and with what the card says of detection."""
        card = self.model.card
        return f"{card.graphs['model.onnx'][:12]} {card.threshold:g} {card.window_ms:g}"

    def percent_of(self, threshold: float) -> float:
        """A threshold in per cent of the default one."""
        return 100 * threshold / self.model.card.threshold

    def find(self, scene: Scene, percent: float = 100.0) -> Known:
        """What `quantal.detect` finds with the model."""
        windows = self.model.card.kind == "windows"
        return self.find_at(scene, window(scene) if windows else None, percent)

    def find_at(self, scene: Scene, window_ms: float | str | None, percent: float = 100.0) -> Known:
        """The same at another time scale, or at the one that is read from the recording."""
        card = self.model.card
        threshold = float(np.clip(card.threshold * percent / 100, _LOWEST, _HIGHEST))
        return known(
            quantal.detect(
                scene.trace,
                model=self.model,
                window_ms=window_ms,
                direction=scene.direction,
                threshold=card.threshold if percent == 100.0 else threshold,
            )
        )


@dataclass(frozen=True)
class Classical:
    """One of the methods that `quantal.detect` has besides networks."""

    name: str
    identity: str = quantal.__version__

    def find(self, scene: Scene, percent: float = 100.0) -> Known:
        """What `quantal.detect` finds with the method, told the window."""
        options: dict[str, Any] = {}
        if percent != 100.0:
            kind = classical.DETECTORS[self.name]
            highest = min(_HIGHEST * kind.highest, kind.threshold * percent / 100)
            options["threshold"] = float(highest)
        return known(
            quantal.detect(
                scene.trace,
                detector=self.name,
                window_ms=window(scene),
                direction=scene.direction,
                **options,
            )
        )


@dataclass(frozen=True)
class Ideal:
    """The ideal observer; it measures nothing but when events begin."""

    name: str = IDEAL
    identity: str = "2"

    def find(self, scene: Scene, percent: float = 100.0) -> Known:
        """Events above the threshold that is best here (or where there are events: the twin)."""
        found_s, heights = observed(scene)
        judged, like = (found_s, heights), scene
        if not len(scene.true_s):
            if scene.twin is None:
                raise UnavailableError("there is nothing that the ideal observer could be told")
            like = scene.twin()
            judged = observed(like)
        choice = best_choice(like.true_s, *judged, tolerance_s=like.tolerance_s)
        return Known(location_s=choice.of(found_s, heights, percent), measures={})


@dataclass(frozen=True)
class OnRecord:
    """miniML 1.1, where what it found is on record."""

    name: str = MINIML
    identity: str = "1"

    def find(self, scene: Scene, percent: float = 100.0) -> Known:
        """What was found with its default settings."""
        if scene.miniml is None or percent != 100.0:
            raise UnavailableError("miniML 1.1 is not run here")
        return scene.miniml


def observed(scene: Scene) -> tuple[Floats, Floats]:
    """Steepest rises (s) of all that the ideal observer could call an event, and their heights."""
    if scene.noise is None or scene.waveform is None:
        raise UnavailableError("there is nothing that the ideal observer could be told")
    trace = scene.trace
    heights, response = filtered(trace.samples, trace.rate_hz, scene.waveform, scene.noise)
    if scene.swell is not None:
        heights = heights / scene.swell
    starts, found = explain(heights, response, round(CLOSEST_S * trace.rate_hz))
    at_s = (starts + scene.lead) / trace.rate_hz + scene.steepest_s
    inside = np.clip(np.round(at_s * trace.rate_hz).astype(np.int64), 0, len(trace) - 1)
    kept = trace.wanted()[inside]
    return trace.start_s + at_s[kept], found[kept]


def measures_at(scene: Scene, location_s: Floats) -> dict[str, Floats]:
    """What the kinetics room measures of events at these times."""
    trace, sign = scene.trace, -1 if scene.direction == "negative" else 1
    location = np.round((location_s - trace.start_s) * trace.rate_hz).astype(np.int64)
    location = np.clip(location, 0, len(trace) - 1)
    samples = round(window(scene) * trace.rate_hz / 1000)
    found = measure(sign * trace.samples, trace.rate_hz, location, samples)
    columns = {name: np.asarray(getattr(found, name), np.float64) for name in MEASURES}
    return {n: sign * v if n in ("amplitude", "area") else v for n, v in columns.items()}


def known(events: Events) -> Known:
    """Locations and measures of a table of events."""
    return Known(
        location_s=events.location_s, measures={name: getattr(events, name) for name in MEASURES}
    )


def window(scene: Scene) -> float:
    """The window (ms) that suits a scene's events."""
    return 1000 * WINDOW_DECAYS * scene.decay_s


def open_detector(name: str) -> Detector:
    """A detector by its name, or a model by its folder; raises UnavailableError."""
    if name == IDEAL:
        return Ideal()
    if name == MINIML:
        return OnRecord()
    if name in classical.DETECTORS:
        return Classical(name)
    try:
        return Network(Path(name).name, load_model(name))
    except quantal.QuantalError as error:
        raise UnavailableError(str(error)) from None
