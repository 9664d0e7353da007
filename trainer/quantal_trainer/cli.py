"""The command line of the trainer: quantal-train."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantal import __version__
from quantal.errors import ModelError, QuantalError, ReadError, UsageError
from quantal.model import Card, Model

if TYPE_CHECKING:
    from quantal_trainer.importer import KerasFile

_USAGE, _UNREADABLE = 2, 3  # exit codes


class _Group(click.Group):
    """Commands that end a user's error with one line and an exit code, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ModelError, ReadError) as error:
            code, message = _UNREADABLE, str(error)
        except (QuantalError, OSError) as error:
            code, message = _USAGE, str(error)
        click.echo(f"quantal-train: {message}", err=True)
        raise click.exceptions.Exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quantal-train")
def main() -> None:
    """Train, fine-tune, import and export the networks that quantal detects events with."""


@main.command("import-keras")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Model folder to write."
)
@click.option("--name", help="Name on the card; default: the folder's.")
@click.option(
    "--polarity",
    type=click.Choice(["negative", "positive"]),
    default="negative",
    show_default=True,
    help="Which way events point in the windows it was trained on (miniML: negative).",
)
@click.option(
    "--direction",
    type=click.Choice(["negative", "positive", "both"]),
    default="negative",
    show_default=True,
    help="Which way events point in your recordings; where they differ, traces are turned over.",
)
@click.option(
    "--window-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Length of a window of 600 samples. Default: 12 ms, as for miniML's mEPSCs at 50 kHz.",
)
@click.option(
    "--rate-hz",
    type=click.FloatRange(min=0, min_open=True),
    help="Sampling rate of the windows, resampled to 600 samples; follows from --window-ms.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Score from which a stretch holds an event.",
)
@click.option("--licence", default="", help="Licence of the weights, such as MIT.")
@click.option("--citation", default="", help="What to cite when the model is used.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_keras_command(
    file: Path,
    out: Path,
    name: str | None,
    polarity: str,
    direction: str,
    window_ms: float | None,
    rate_hz: float | None,
    threshold: float,
    licence: str,
    citation: str,
    as_json: bool,
) -> None:
    """Turn a CNN-LSTM saved by Keras 2 or 3 (FILE.h5 or FILE.keras) into a model folder.

    For imaging, say how long a window was: a network that read 60 frames of 100 Hz, resampled to
    600 samples, and rising transients takes  --window-ms 600 --direction positive.
    """
    from quantal_trainer.export import export_model  # TensorFlow takes seconds to import
    from quantal_trainer.importer import read_keras
    from quantal_trainer.network import WINDOW_SAMPLES

    source = read_keras(file)
    length_ms, rate = window_and_rate(WINDOW_SAMPLES, window_ms, rate_hz)
    card = Card(
        name=name or out.resolve().name,
        window_samples=WINDOW_SAMPLES,
        window_ms=length_ms,
        rate_hz=rate,
        polarity=polarity,
        direction=direction,
        threshold=threshold,
        training=_origin(source),
        licence=licence,
        citation=citation,
    )
    model = export_model(source.network(), out, card=card)
    assumed = window_ms is None and rate_hz is None
    click.echo(_as_json(model) if as_json else _summary(model, assumed))


def window_and_rate(
    window_samples: int, window_ms: float | None, rate_hz: float | None
) -> tuple[float, float]:
    """The window's length (ms) and its sampling rate (Hz), either from the other.

    Raises UsageError if the two contradict each other by more than 1 %.
    """
    usual = Card(name="")
    if window_ms is None:
        window_ms = usual.window_ms if rate_hz is None else 1e3 * window_samples / rate_hz
    follows = 1e3 * window_samples / window_ms
    if rate_hz is not None and abs(rate_hz / follows - 1) > 0.01:
        raise UsageError(
            f"{window_samples} samples in {window_ms:g} ms are {follows:g} Hz, not {rate_hz:g}: "
            "the rate is that of the windows after resampling; leave out --rate-hz."
        )
    return window_ms, follows if rate_hz is None else rate_hz


def _origin(source: KerasFile) -> dict[str, Any]:
    return {
        "imported_from": source.path.name,
        "sha256": source.sha256,
        "keras": source.keras_version,
        "dropout": round(source.dropout, 6),
    }


def _as_json(model: Model) -> str:
    card = model.card
    facts = ("name", "window_samples", "window_ms", "rate_hz", "polarity", "direction", "threshold")
    return json.dumps(
        {
            "folder": os.fspath(model.folder),
            **{fact: getattr(card, fact) for fact in facts},
            **{part: getattr(card, part) for part in ("graphs", "training", "versions")},
        }
    )


def _summary(model: Model, assumed: bool) -> str:
    card = model.card
    note = " (assumed; --window-ms says otherwise)" if assumed else ""
    return (
        f"{card.name}: {model.folder}\n"
        f"  window {card.window_samples} samples = {card.window_ms:g} ms "
        f"at {card.rate_hz:g} Hz{note}\n"
        f"  trained on {card.polarity} events, looks for {card.direction} ones, "
        f"threshold {card.threshold:g}\n"
        f"  from {card.training['imported_from']} (Keras {card.training['keras']}); "
        "ONNX Runtime scores as Keras does"
    )


if __name__ == "__main__":
    main()
