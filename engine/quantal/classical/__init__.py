"""Ways to find events without a network, each from its paper, and the same road after."""

from __future__ import annotations

from typing import Any

from quantal.classical.bayesian import Bayesian
from quantal.classical.deconvolution import Deconvolution
from quantal.classical.detector import Detector, settings_of
from quantal.classical.matched import Matched
from quantal.classical.template import Template, template_criterion
from quantal.classical.threshold import Threshold
from quantal.errors import UsageError

__all__ = [
    "DETECTORS",
    "NETWORK",
    "Bayesian",
    "Deconvolution",
    "Detector",
    "Matched",
    "Template",
    "Threshold",
    "make_detector",
    "template_criterion",
]

NETWORK = "network"  # the detector that is a model
DETECTORS: dict[str, type[Detector]] = {
    kind.name: kind for kind in (Template, Deconvolution, Threshold, Matched, Bayesian)
}


def make_detector(detector: str | Detector, **settings: Any) -> Detector | None:
    """A detector by its name, with these settings; None is the network.

    Settings that are None are left to the detector. Raises UsageError if there is no such
    detector, or it cannot be set so.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if isinstance(detector, Detector):
        return detector
    if detector == NETWORK and not given:
        return None
    if detector == NETWORK:
        raise UsageError(
            f"{', '.join(given)}: a network learned its events and takes no shape; leave it out, "
            f"or choose another detector ({', '.join(DETECTORS)})."
        )
    if not (isinstance(detector, str) and detector in DETECTORS):
        raise UsageError(
            f"detector must be one of {NETWORK}, {', '.join(DETECTORS)}, got {detector!r}."
        )
    kind = DETECTORS[detector]
    for name in given:
        if name not in settings_of(kind):
            raise UsageError(
                f"the {detector} detector has no {name}; it has {', '.join(settings_of(kind))}."
            )
    return kind(**given)
