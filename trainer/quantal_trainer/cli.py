"""The command line of the trainer: quantal-train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from quantal import __version__
from quantal.ending import Commands
from quantal.errors import ModelError, QuantalError, UsageError
from quantal.model import DEFAULT_MODEL

F = TypeVar("F", bound=Callable[..., Any])

_UNREADABLE = 3  # exit code
_PATH = click.Path(path_type=Path, readable=False)  # readers say what cannot be read, and why
_POSITIVE = click.FloatRange(min=0, min_open=True)
_SHARE = click.FloatRange(min=0, max=1, min_open=True, max_open=True)
_WAY = click.Choice(["negative", "positive"])


class _Commands(Commands):
    """The trainer's commands."""

    @staticmethod
    def exit_code(error: QuantalError) -> int:
        """That of a file that cannot be read, for a model or Keras file too."""
        return _UNREADABLE if isinstance(error, ModelError) else error.exit_code


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quantal-train")
def main() -> None:
    """Train, fine-tune, import and export the networks that quantal detects events with."""


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_datasets = click.argument("datasets", nargs=-1, required=True, type=_PATH)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_seed = click.option("--seed", type=click.IntRange(min=0), help="Of everything drawn by chance.")
_stated = _options(
    click.option("--rate-hz", type=_POSITIVE, help="Sampling rate, where a dataset does not say."),
    click.option("--unit", help="Unit of the windows, where a dataset does not say."),
)
_training = _options(
    _datasets,
    click.option("--out", type=_PATH, required=True, help="Model folder to write."),
    click.option("--name", help="Name on the card; default: the folder's."),
    click.option("--config", type=_PATH, help="TOML with tables [fit], [split] and [augment]."),
    click.option("--learning-rate", type=float),
    click.option("--decay", type=click.Choice(["constant", "cosine"]), help="Of that rate."),
    click.option("--batch", type=int, help="Windows in a step."),
    click.option("--epochs", type=int, help="At most."),
    click.option("--patience", type=int, help="Epochs without a better loss before the end."),
    click.option("--dropout", type=float),
    _seed,
    click.option("--validation", type=_SHARE, help="Share of the windows held out (0.25)."),
    click.option(
        "--by", type=click.Choice(["cell", "window"]), help="What is held out whole (cell)."
    ),
    click.option(
        "--balance",
        type=click.Choice(["keep", "thin"]),
        help="Thin the more frequent kind of window (keep).",
    ),
    click.option("--direction", type=_WAY, help="Of the events; read from the windows."),
    click.option("--threshold", type=_SHARE, help="Score that an event needs (0.5)."),
    click.option("--folds", "fold_count", type=click.IntRange(min=2), help="Cross-validate first."),
    _stated,
    click.option("--quiet", is_flag=True, help="No progress."),
    _json,
)


@main.command()
@click.argument("recordings", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Dataset to write (.h5).")
@click.option("--window-ms", type=_POSITIVE, required=True, help="About 12 decay time constants.")
@click.option("--direction", type=_WAY, default="negative", show_default=True)
@click.option("--per-cell", type=click.IntRange(min=1), help="Windows of a recording, at most.")
@click.option("--high", type=float, help="Match of a clear event, in SD of the match.")
@click.option("--middle", type=float, help="Match from which a window is worth a look.")
@click.option("--low", type=float, help="Match below which there is noise alone.")
@click.option("--template", "chosen", type=_PATH, help="Dataset whose events make the template.")
@click.option("--channel", help="Number or name of the channel; the first if not given.")
@click.option("--sweeps", default="all", show_default=True, help='"all", or such as "0,2-5".')
@click.option("--exclude-s", "excluded", multiple=True, metavar="A-B", help="Nothing from A to B.")
@_stated
@_seed
@_json
def extract(
    recordings: Sequence[Path],
    out: Path,
    channel: str | None,
    sweeps: str,
    rate_hz: float | None,
    unit: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Cut candidate windows from recordings by template matching, to be scored.

    Clear events are scored 1, stretches of noise 0, and what is unclear 2 until you look at it:
    quantal-train score.
    """
    from quantal.commands import number_or_name
    from quantal_trainer.commands import run_extract

    reading: dict[str, Any] = {"channel": number_or_name(channel), "sweeps": sweeps}
    reading |= {"rate_hz": rate_hz, "unit": unit}
    _tell(run_extract(recordings, out, reading=reading, **options), as_json, _dataset_line)


@main.command()
@click.argument("preparation", type=click.Choice(["mepsc", "epsp", "optical", "nmj"]))
@click.option("--out", type=_PATH, required=True, help="Dataset to write (.h5).")
@click.option("--windows", type=click.IntRange(min=2), default=4000, show_default=True)
@click.option("--cells", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--noise", type=_POSITIVE, default=1.0, show_default=True, help="Times the usual.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_json
def simulate(out: Path, as_json: bool, **options: Any) -> None:
    """Make a dataset of a simulated preparation, scored by the truth."""
    from quantal_trainer.commands import run_simulate

    _tell(run_simulate(out=out, **options), as_json, _dataset_line)


@main.command()
@_datasets
@click.option("--out", type=_PATH, help="Write them as one dataset, each window once.")
@click.option("--balance", type=click.Choice(["keep", "thin"]), default="keep", show_default=True)
@_stated
@_json
def data(
    datasets: Sequence[Path], out: Path | None, balance: str, as_json: bool, **stated: Any
) -> None:
    """Print what datasets hold, and merge them."""
    from quantal_trainer.commands import run_data

    _tell(run_data(datasets, out, balance, **stated), as_json, _dataset_line)


@main.command()
@click.argument("dataset", type=_PATH)
@click.option("--sheets", type=_PATH, help="Draw the windows into this folder, with a table.")
@click.option("--table", type=_PATH, help="Take the scores from this edited table.")
@_stated
@_json
def score(dataset: Path, as_json: bool, **options: Any) -> None:
    """Score windows: 1 an event, 0 noise, 2 not to be used.

    Without options a window opens: the keys 0, 1 and 2 score and go on, the arrows move, u takes
    back, q ends. Without a screen, --sheets draws numbered pictures and scores.csv; edit that, and
    read it with --table.
    """
    from quantal_trainer.commands import run_score

    _tell(run_score(dataset, **options), as_json, _dataset_line)


@main.command()
@click.option(
    "--schedule",
    type=click.Choice(["paper", "short"]),
    default="paper",
    show_default=True,
    help="Defaults of the options below: the paper's, or 16 epochs from a higher learning rate.",
)
@_training
def fit(**options: Any) -> None:
    """Train the paper's network from nothing, with the paper's settings unless told otherwise."""
    _train(None, options)


@main.command()
@click.option(
    "--base", help="Model or Keras file; cnn-lstm if not given, with --times the default model."
)
@click.option(
    "--times",
    "tables",
    multiple=True,
    type=_PATH,
    help="Train on recordings, whose events this table lists, all of them; one table for each, or "
    "one with a column recording.",
)
@click.option("--window-ms", type=_POSITIVE, help="Time scale of a trace network; from the events.")
@click.option("--channel", help="Of recordings: number or name; the first if not given.")
@click.option("--sweeps", default="all", show_default=True, help='Of recordings: such as "0,2-5".')
@click.option(
    "--exclude-s", "excluded", multiple=True, metavar="A-B", help="Of recordings: not from A to B."
)
@click.option(
    "--freeze",
    help='Layers that stay: "convolutions" (if not given), "none", or such as "conv_1,conv_2".',
)
@_training
def transfer(base: str, **options: Any) -> None:
    """Train a model further on a few hundred windows of your own, or on whole recordings.

    DATASETS are files of labelled windows; with --times they are recordings.
    """
    tables, excluded = options.pop("tables"), options.pop("excluded")
    reading = {name: options.pop(name) for name in ("channel", "sweeps")}
    if tables:
        _train_marked(base, tables, reading, excluded, options)
    elif excluded or reading != {"channel": None, "sweeps": "all"}:
        raise UsageError("--channel, --sweeps and --exclude-s are of recordings: give --times.")
    else:
        _train(base or "cnn-lstm", options)


def _train(base: str | None, options: dict[str, Any]) -> None:
    from quantal_trainer.commands import plan_from, run_training

    taken = ("name", "fold_count", "rate_hz", "unit")
    facts = {"window_ms": options.pop("window_ms", None)} | {t: options.pop(t) for t in taken}
    datasets, out, config, as_json = (
        options.pop(t) for t in ("datasets", "out", "config", "as_json")
    )
    say = _voice(options)
    plan = plan_from(base, config, options)
    _tell(run_training(datasets, out, plan, say=say, **facts), as_json, _training_line)


def _train_marked(
    base: str | None,
    tables: Sequence[Path],
    reading: dict[str, Any],
    excluded: Sequence[str],
    options: dict[str, Any],
) -> None:
    from quantal.commands import number_or_name
    from quantal_trainer.commands import plan_from, run_marked_training

    if [options.pop(name) for name in ("fold_count", "balance")] != [None, None]:
        raise UsageError("--folds and --balance are of windows: leave them out with --times.")
    reading |= {name: options.pop(name) for name in ("rate_hz", "unit")}
    reading["channel"] = number_or_name(reading["channel"])
    facts = {name: options.pop(name) for name in ("name", "window_ms")}
    recordings, out, config, as_json = (
        options.pop(t) for t in ("datasets", "out", "config", "as_json")
    )
    facts |= {"reading": reading, "excluded": excluded, "say": _voice(options)}
    plan = plan_from(base or DEFAULT_MODEL, config, options, marked=True)
    result = run_marked_training(recordings, tables, out, plan, **facts)
    _tell(result, as_json, _marked_training_line)


def _voice(options: dict[str, Any]) -> Callable[[str], None]:
    """What tells progress on stderr; with --quiet warnings only."""
    quiet = options.pop("quiet")

    def say(text: str) -> None:
        if not quiet or text.startswith("warning"):
            click.echo(text, err=True)

    return say


@main.command()
@_datasets
@click.option("--model", help="A model's name or folder; the default model if not given.")
@click.option("--out", type=_PATH, default=Path("evaluation"), show_default=True)
@click.option("--direction", type=_WAY, help="Of the events; read from the windows.")
@click.option(
    "--threshold", type=_SHARE, help="If not given, the card's without its shift for detection."
)
@click.option(
    "--place",
    type=click.Choice(["as-is", "reference"]),
    default="as-is",
    show_default=True,
    help="Move all windows so that events rise where the model expects them.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@_stated
@_json
def evaluate(datasets: Sequence[Path], as_json: bool, **options: Any) -> None:
    """Compare a model's scores with yours: OUT.json and one page, OUT.png."""
    from quantal_trainer.commands import run_evaluate

    _tell(run_evaluate(datasets, **options), as_json, _evaluation_line)


@main.command()
@_datasets
@click.option("--model", default="cnn-lstm", show_default=True, help="Model or Keras file.")
@click.option("--out", type=_PATH, default=Path("explanation"), show_default=True)
@click.option("--count", type=click.IntRange(min=1), default=24, show_default=True)
@click.option(
    "--method", type=click.Choice(["auto", "umap", "pca"]), default="auto", show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_stated
@_json
def explain(datasets: Sequence[Path], as_json: bool, **options: Any) -> None:
    """Show what a network looks at: OUT.saliency.png and OUT.embedding.png."""
    from quantal_trainer.commands import run_explain

    _tell(run_explain(datasets, **options), as_json, _explanation_line)


@main.command()
@click.argument("model")
@click.option("--out", type=_PATH, required=True, help="File to write (.keras or .h5).")
@_json
def export(model: str, out: Path, as_json: bool) -> None:
    """Write a model as a Keras file, for other programs."""
    from quantal_trainer.commands import run_export

    _tell(run_export(model, out), as_json, lambda result: f"{result['model']} -> {result['file']}")


@main.command()
@click.argument("model")
@click.option("--out", type=_PATH, help="Model folder to write; the model's own if not given.")
@click.option("--stretches", type=click.IntRange(min=1), help="To learn from, 2.6 s each.")
@click.option("--epochs", type=click.IntRange(min=1))
@click.option("--calibration", type=click.IntRange(min=1), help="Stretches of each of two sets.")
@click.option("--margin", type=click.FloatRange(min=0), help="Taken off the levels, in logits.")
@_seed
@click.option("--quiet", is_flag=True, help="No progress.")
@_json
def distill(model: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Give a model that reads windows a scout, which makes quantal detect faster.

    The scout learns, on simulated recordings, where the model feels an event, and is calibrated on
    others so that no event is missed.
    """
    from quantal_trainer.commands import run_distill

    _tell(run_distill(model, out, say=_voice(options), **options), as_json, _scout_line)


@main.command("import-keras")
@click.argument("file", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Model folder to write.")
@click.option("--name", help="Name on the card; default: the folder's.")
@click.option(
    "--polarity",
    type=_WAY,
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
    type=_POSITIVE,
    help="Length of a window of 600 samples. Default: 12 ms, as for miniML's mEPSCs at 50 kHz.",
)
@click.option(
    "--rate-hz",
    type=_POSITIVE,
    help="Sampling rate of the windows, resampled to 600 samples; follows from --window-ms.",
)
@click.option(
    "--threshold",
    type=_SHARE,
    default=0.5,
    show_default=True,
    help="Score from which a stretch holds an event.",
)
@click.option("--licence", default="", help="Licence of the weights, such as MIT.")
@click.option("--citation", default="", help="What to cite when the model is used.")
@_json
def import_keras_command(file: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Turn a CNN-LSTM saved by Keras 2 or 3 (FILE.h5 or FILE.keras) into a model folder.

    For imaging, say how long a window was: a network that read 60 frames of 100 Hz, resampled to
    600 samples, and rising transients takes  --window-ms 600 --direction positive.
    """
    from quantal_trainer.commands import import_facts, import_line, run_import

    model = run_import(file, out, **options)
    assumed = options["window_ms"] is None and options["rate_hz"] is None
    _tell(import_facts(model), as_json, lambda _: import_line(model, assumed))


# What is told ------------------------------------------------------------------------------------


def _tell(result: dict[str, Any], as_json: bool, in_words: Callable[[dict[str, Any]], str]) -> None:
    if not as_json:
        click.echo(in_words(result))
        return
    from quantal.save import as_json as to_json

    click.echo(to_json(result))


def _dataset_line(result: dict[str, Any]) -> str:
    cells = ", ".join(f"{cell or 'unnamed'} {count}" for cell, count in result["cells"].items())
    kinds = ", ".join(f"{kind} {count}" for kind, count in result["kinds"].items())
    lines = [
        f"{result['dataset']}: {result['windows']} windows of {result['window_ms']:g} ms "
        f"({result['length_samples']} samples at {result['rate_hz']:g} Hz, {result['unit']})",
        f"  {result['events']} events, {result['noise']} noise, {result['excluded']} not used",
        f"  cells: {cells}",
    ]
    if kinds:
        lines.append(f"  kinds: {kinds}")
    return "\n".join(lines + [f"  wrote {file}" for file in result.get("files", [])])


def _training_line(result: dict[str, Any]) -> str:
    held, counts = result["validation"], result["windows"]
    lines = [
        f"{result['model']}: {result['epochs']} epochs on {counts['training']} windows; of "
        f"{counts['validation']} held out, {100 * held['accuracy']:.1f} % are right "
        f"(best threshold {held['best_threshold']:.2f})",
        f"  {result['direction']} events, window {result['window_ms']:g} ms",
        f"  quantal detect RECORDING --model {result['model']}",
    ]
    if "folds" in result:
        folds = result["folds"]["accuracy"]
        lines.insert(
            1, f"  cross-validation: {100 * folds['mean']:.1f} +- {100 * folds['sd']:.1f} % right"
        )
    return "\n".join(lines)


def _marked_training_line(result: dict[str, Any]) -> str:
    held = result["held_out"]
    lines = [
        f"{result['model']}: {result['epochs']} epochs on recordings with {result['events']} "
        f"events; of {held['listed']} held out {held['hits']} are found, and "
        f"{held['found'] - held['hits']} others (F1 {held['f1']:.3f})",
        f"  {result['direction']} events, time scale of a window of {result['window_ms']:g} ms",
        f"  quantal detect RECORDING --model {result['model']}",
    ]
    return "\n".join(lines)


def _scout_line(result: dict[str, Any]) -> str:
    calibration = result["calibration"]
    runs, unseen = (sum(one[0] for one in calibration[name]) for name in ("runs", "unseen"))
    return (
        f"{result['model']}: it sees all but {unseen} of {runs} events on recordings that it had "
        f"not seen, and suspects {100 * result['suspect']:.1f} % of the windows that it looks at"
    )


def _evaluation_line(result: dict[str, Any]) -> str:
    best, files = result["best_threshold"], ", ".join(result["files"].values())
    hint = "" if best is None else f"; F1 is largest at {best:.2f}"
    return f"{result['model']}: {result['in_words']}{hint} -> {files}"


def _explanation_line(result: dict[str, Any]) -> str:
    files = ", ".join(result["files"].values())
    return f"{result['model']}: {result['windows']} windows, {result['method']} -> {files}"


if __name__ == "__main__":
    main()
