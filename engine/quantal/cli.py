"""The command line: options in, files and lines of text out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from quantal import __version__
from quantal.ending import STOPPED, Commands, say_stopped
from quantal.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

# Spelled out, so that no command waits for the rooms behind another.
_DETECTORS = ("network", "template", "deconvolution", "threshold", "matched", "bayesian")
_DEVICE = "auto|cpu|cuda|..."  # tensorrt, or another provider's name
# Whether it can be read is for those to say who read it: with their words and exit code.
_PATH = click.Path(path_type=Path, readable=False)
# Exit codes: something is wrong here; part of a batch failed.
_WRONG, _PARTLY = 2, 4


class _Window(click.ParamType):  # type: ignore[type-arg]
    """Milliseconds, or "auto"."""

    name = "ms|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """The number, or the word."""
        return "auto" if value == "auto" else float(click.FLOAT.convert(value, param, ctx))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="quantal")
def main() -> None:
    """Find and measure synaptic events in long recordings."""


def _reading_options(command: F) -> F:
    """Options that say how a file is read."""
    for option in (
        click.option("--dataset", help="Which data set of an HDF5 file, or series of HEKA, NWB."),
        click.option("--unit", help="Unit of the samples, where the file does not say."),
        click.option("--scale", type=float, help="Multiply the samples, for a wrong gain."),
        click.option("--rate-hz", type=float, help="Sampling rate, where the file does not say."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("files", nargs=-1, required=True, type=_PATH)
@_reading_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def info(files: Sequence[Path], as_json: bool, scale: float | None, **reading: Any) -> None:
    """Print what is inside recordings: channels, sweeps, rate, protocol, range."""
    from quantal import readers
    from quantal.save import as_json as to_json

    found = [readers.inspect(path, scale=scale, **reading) for path in files]
    if as_json:
        click.echo(to_json({"recordings": [one.to_dict() for one in found]}))
    else:
        click.echo("\n\n".join(readers.describe(one) for one in found))


@main.command()
@click.argument("recordings", nargs=-1, required=True, type=_PATH)
@click.option("--model", help="A model's name (quantal models list) or a model folder.")
@click.option(
    "--detector",
    type=click.Choice(_DETECTORS),
    default=_DETECTORS[0],
    show_default=True,
    help="The network, or a method that needs no model.",
)
@click.option("--tau-rise-ms", type=float, help="Rise of its event; window/60 if not given.")
@click.option("--tau-decay-ms", type=float, help="Its decay; window/12 if not given.")
@click.option("--channel", help="Its number or name, or all; the first if not given.")
@click.option("--sweeps", default="all", show_default=True, help='"all", or such as "0,2-5".')
@_reading_options
@click.option("--window-ms", type=_Window(), help="About 12 decay time constants, or auto.")
@click.option("--direction", type=click.Choice(["negative", "positive", "both"]))
@click.option("--threshold", type=float, help="Score that an event needs.")
@click.option("--stride", type=int, help="Samples of the model's window between scores.")
@click.option(
    "--method",
    type=click.Choice(["screened", "dense"]),
    help="A window network reads what events depend on (screened, the usual way), or everything.",
)
@click.option("--smooth-ms", type=float, help="Smoothing; fitted to the window if not given.")
@click.option("--measure-ms", type=float, help="Window for measuring; from events if not given.")
@click.option("--start-s", type=float, help="Begin here in every sweep.")
@click.option("--stop-s", type=float, help="End here in every sweep.")
@click.option("--exclude-s", multiple=True, metavar="A-B", help="No events from A to B s.")
@click.option("--device", default="auto", show_default=True, metavar=_DEVICE)
@click.option("--threads", type=int, help="Of the CPU; all cores if not given.")
@click.option(
    "--out",
    type=_PATH,
    default=Path(),
    help="Folder for the results; the current one if not given. Older results are replaced.",
)
@click.option(
    "--format",
    "formats",
    default="csv",
    show_default=True,
    help="Of the table: csv, h5, parquet, xlsx, nwb, miniml; several with commas between.",
)
@click.option("--save-scores", is_flag=True, help="Keep the scores too (HDF5).")
@click.option("--picture/--no-picture", default=True, help="Drawing takes most of a short run.")
@click.option("--fit", is_flag=True, help="Fit rise and decay to every event, neighbours at once.")
@click.option("--lowpass-hz", type=float, help="The recording's filter (-3 dB), for --fit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
def detect(recordings: Sequence[Path], as_json: bool, quiet: bool, **options: Any) -> None:
    """Find and measure events: per recording an events table, a summary and a picture."""
    from quantal.commands import DetectJob
    from quantal.save import as_json as to_json

    job = DetectJob.from_options(recordings, progress=not quiet, **options)
    results, errors = job.run_all()
    if as_json:
        click.echo(to_json({"recordings": results, "errors": errors}))
    elif not quiet:
        for result in results:
            click.echo(job.line(result))
    if errors and results:
        sys.exit(_PARTLY)
    if errors:
        sys.exit(max(error["exit_code"] for error in errors))


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take options from a TOML file; what the command line says wins. Raises UsageError."""
    if path is None:
        return
    import tomllib

    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        str(said)  # a number of more digits than Python writes is no setting
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as settings: {error}.") from None
    names = {_config_key(p): p for p in ctx.command.params if p is not param}
    unknown = [key for key in said if key.replace("_", "-") not in names]
    if unknown:
        raise UsageError(
            f"{path} sets {', '.join(map(repr, unknown))}, which is not known; "
            f"allowed are {', '.join(sorted(names))}."
        )
    ctx.default_map = {}
    for key, value in said.items():
        setting = names[key.replace("_", "-")]
        values = value if isinstance(value, list) else [value]
        several = setting.nargs != 1 or getattr(setting, "multiple", False)
        plain = not any(isinstance(one, dict | list) for one in values)
        if not plain or (isinstance(value, list) and not several):
            raise UsageError(f"{path}: {key} takes one value, got {value!r}.")
        flag = getattr(setting, "is_flag", False)
        if any(isinstance(one, bool) != flag for one in values):
            allowed = "true or false" if flag else "a number or text"
            raise UsageError(f"{path}: {key} takes {allowed}, got {value!r}.")
        typed = values if flag else [str(one) for one in values]
        ctx.default_map[setting.name or ""] = typed if several else typed[0]


def _config_key(param: click.Parameter) -> str:
    """What a setting is called in a file: the option without its dashes, or the argument."""
    return param.opts[0].removeprefix("--")


_SEARCHING = [param for param in detect.params if param.name not in ("recordings", "out")]


@main.command(params=_SEARCHING)
@click.argument("recordings", nargs=-1)
@click.option("--group", metavar="folder|COLUMN", help="What groups recordings.")
@click.option(
    "--out",
    type=_PATH,
    default=Path("quantal-batch"),
    show_default=True,
    help="Folder for all results.",
)
@click.option("--tables", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--workers", type=int, help="Processes; as many as there are cores if not given.")
@click.option("--dask", metavar="ADDRESS", help="Of a Dask scheduler, such as tcp://host:8786.")
@click.option(
    "--config",
    type=_PATH,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="A TOML file with any of these settings; options that are given win.",
)
@click.pass_context
def batch(
    ctx: click.Context, /, recordings: Sequence[str], as_json: bool, quiet: bool, **options: Any
) -> None:
    """Search folders, globs in quotes, or a list of recordings; go on where it stopped."""
    from quantal.batch import FAILED, Batch
    from quantal.save import as_json as to_json

    asked = recordings or (ctx.default_map or {}).get("recordings", ())
    job = Batch.from_options(asked, progress=not quiet, **options)
    try:
        report = job.run()
    except KeyboardInterrupt:
        say_stopped("stopped; the same command goes on from here.")
        sys.exit(STOPPED)
    if as_json:
        click.echo(to_json(report))
    elif not quiet:
        click.echo(job.line(report))
    if report[FAILED]:
        sys.exit(_PARTLY)


@main.command()
@click.argument("results", type=_PATH)
@click.option("--measure", "measures", multiple=True, help="A column of the table of recordings.")
@click.option(
    "--group", "column", default="group", show_default=True, help="The column to group by."
)
@click.option("--control", help="The group to compare the others with; all pairs if not given.")
@click.option("--resamples", type=int, default=5_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=_PATH, help="Folder; that of the results if not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def stats(results: Path, as_json: bool, **options: Any) -> None:
    """Compare the groups of a batch: permutation tests, effect sizes, and a picture."""
    from quantal.save import as_json as to_json
    from quantal.stats import render, run_stats

    found, files = run_stats(results, **options)
    if as_json:
        click.echo(to_json({"comparisons": found.rows, "files": files}))
    else:
        click.echo(f"{render(found)}\n-> {', '.join(files.values())}")


@main.command()
@click.argument("path", type=_PATH)
@click.option(
    "--input",
    "kind",
    type=click.Choice(["raw", "dff", "zscored"]),
    help="What the samples are, where the file does not say; raw becomes dF/F.",
)
@click.option("--rate-hz", type=float, help="Frames per second, where the file does not say.")
@click.option("--dataset", help="Which traces of an HDF5 or NWB file.")
@click.option("--rois-in", type=click.Choice(["rows", "columns"]), help="Of a plain matrix.")
@click.option("--labels", type=_PATH, help="Label image, for a TIFF stack.")
@click.option(
    "--cells",
    type=click.Choice(["accepted", "all"]),
    default="accepted",
    show_default=True,
    help="ROIs that suite2p or CaImAn call cells, or all.",
)
@click.option(
    "--neuropil", type=float, default=0.7, show_default=True, help="Part of it to take off."
)
@click.option(
    "--baseline",
    type=click.Choice(["percentile", "exponential"]),
    default="percentile",
    show_default=True,
    help="How F0 is read from raw fluorescence.",
)
@click.option(
    "--baseline-s", type=float, default=30.0, show_default=True, help="Window of the percentile."
)
@click.option("--percentile", type=float, default=20.0, show_default=True, help="Which one.")
@click.option("--model", help="A model's name (quantal models list) or a model folder.")
@click.option(
    "--window-ms",
    type=_Window(),
    default="auto",
    show_default=True,
    help="About 12 decay time constants; auto reads it from all ROIs together.",
)
@click.option(
    "--direction",
    type=click.Choice(["negative", "positive", "both"]),
    default="positive",
    show_default=True,
)
@click.option("--threshold", type=float, help="Score that an event needs.")
@click.option("--exclude-s", multiple=True, metavar="A-B", help="No events from A to B s.")
@click.option("--device", default="auto", show_default=True, metavar=_DEVICE)
@click.option("--threads", type=int, help="Of the CPU; all cores if not given.")
@click.option(
    "--out",
    type=_PATH,
    default=Path(),
    help="Folder for the results; the current one if not given. Older results are replaced.",
)
@click.option(
    "--format",
    "formats",
    default="csv",
    show_default=True,
    help="Of the table: csv, h5, parquet, xlsx, nwb; several with commas between.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
def rois(
    path: Path,
    baseline: str,
    baseline_s: float,
    percentile: float,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find and measure events in imaging: thousands of ROIs in one table.

    PATH is a suite2p folder, a CaImAn, HDF5 or NWB file, a matrix (.npy, .csv) or a TIFF stack.
    """
    from quantal.baseline import Baseline
    from quantal.roi_job import RoiJob
    from quantal.save import as_json as to_json

    resting = Baseline(method=baseline, window_s=baseline_s, percentile=percentile)
    job = RoiJob.from_options(path, baseline=resting, progress=not quiet, **options)
    summary = job.run()
    if as_json:
        click.echo(to_json(summary))
    elif not quiet:
        click.echo(job.line(summary))


@main.command()
@click.option("--out", type=_PATH, default=Path("quantal-demo"), show_default=True)
@click.option("--device", default="auto", metavar=_DEVICE)
def demo(out: Path, device: str) -> None:
    """Simulate a recording, find its events and compare them with the truth."""
    from quantal.commands import run_demo

    run_demo(out, device)


@main.command()
@click.argument("source")
@click.option("--rate-hz", type=float, help="Sampling rate of raw samples.")
@click.option("--unit", help="Unit of the samples, such as pA.")
@click.option("--channels", help="How many are interleaved, or their names: 4, or soma,dendrite.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "int16", "int32", "uint16"]),
    default="float32",
    show_default=True,
    help="Of raw samples, little-endian.",
)
@click.option("--scale", type=float, help="Multiply the samples by this, to have them in the unit.")
@click.option("--model", help="A model's name (quantal models list) or a model folder.")
@click.option("--window-ms", type=float, help="The network's time scale; its own if not given.")
@click.option("--direction", type=click.Choice(["negative", "positive", "both"]))
@click.option("--threshold", type=float, help="Score that an event needs.")
@click.option("--smooth-ms", type=float, help="Smoothing; fitted to each event if not given.")
@click.option(
    "--measure-ms", type=float, help="Window for measuring; the time scale's if not given."
)
@click.option(
    "--block-ms",
    type=float,
    default=25.0,
    show_default=True,
    help="The network reads so much at a time: less answers sooner, more serves many channels.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="cpu")
@click.option("--threads", type=int, default=1, show_default=True, help="Of the CPU.")
@click.option("--csv", "table", type=_PATH, help="Append events to this table, safely.")
@click.option(
    "--provisional", is_flag=True, help="Also tell of events early, before they are decided."
)
@click.option("--publish", metavar="ADDRESS", help="Send events by ZeroMQ, such as tcp://*:5556.")
@click.option("--recording", help="What to call it in the table; the date and time if not given.")
@click.option(
    "--when-late",
    type=click.Choice(["wait", "drop"]),
    help="If detection falls behind: let the sender wait, or drop whole seconds and say which. "
    "wait if not given; drop where a sender cannot wait (zmq, lsl).",
)
@click.option(
    "--backlog-s",
    type=float,
    default=10.0,
    show_default=True,
    help="How much may wait before that.",
)
@click.option("--status-s", type=float, help="A line of figures so often; a live one if not given.")
@click.option("--quiet", is_flag=True, help="Nothing but warnings on stderr.")
@click.option("--channel", help="Of recordings in a folder: number or name.")
@click.option(
    "--still-s",
    type=float,
    default=2.0,
    show_default=True,
    help="A recording in a folder is finished when it has not changed for so long.",
)
@click.option(
    "--out",
    type=_PATH,
    default=Path(),
    help="Where results of recordings in a folder go; the current folder if not given.",
)
def stream(source: str, **options: Any) -> None:
    """Find events while they are recorded.

    SOURCE: - for raw samples from stdin, tcp://HOST:PORT or zmq://HOST:PORT for those of a
    publisher, lsl://NAME for a stream of the Lab Streaming Layer, or a folder that recordings are
    written into. Events come as lines of JSON on stdout.
    """
    from quantal.stream import run_stream

    sys.exit(run_stream(source, **options))


@main.command("simulate-rig")
@click.option(
    "--to",
    "address",
    default="-",
    show_default=True,
    help="- for stdout, tcp://127.0.0.1:0 or zmq://127.0.0.1:0 to publish (0: any port).",
)
@click.option("--seconds", type=float, default=60.0, show_default=True)
@click.option("--rate-hz", type=float, default=50_000.0, show_default=True)
@click.option("--channels", type=int, default=1, show_default=True)
@click.option("--events-hz", type=float, default=1.0, show_default=True, help="In each channel.")
@click.option("--amplitude", type=float, default=-12.0, show_default=True, help="In noise SDs, pA.")
@click.option("--piece-ms", type=float, default=10.0, show_default=True, help="Sent at a time.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="0: as fast as possible.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--truth", type=_PATH, help="Write the onsets to this CSV.")
def simulate_rig(**options: Any) -> None:
    """Publish a simulated rig: raw float32 samples in pA, as a recording would send them."""
    from quantal.rig import run_rig

    run_rig(**options)


@main.group()
def models() -> None:
    """The models that are here: list, show, verify, add, pack, remove."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def list_models(as_json: bool) -> None:
    """Print the models: the default, others shipped, those you added."""
    from quantal.model import DEFAULT_MODEL, known_models
    from quantal.save import as_json as to_json

    known = sorted(known_models().items(), key=lambda item: item[0] != DEFAULT_MODEL)
    rows = [_model_row(name, folder) for name, folder in known]
    click.echo(to_json({"models": rows}) if as_json else "\n".join(map(_model_line, rows)))


def _model_row(name: str, folder: Path) -> dict[str, Any]:
    """What a list of models says of one; `error` is why it cannot be used."""
    from quantal.errors import ModelError
    from quantal.layout import legible
    from quantal.model import DEFAULT_MODEL, read_card, shipped_models

    row = {
        "name": name,
        "default": name == DEFAULT_MODEL,
        "installed": name not in shipped_models(),
    }
    try:
        card = read_card(folder)
    except ModelError as error:
        return {**row, "error": str(error)}
    said = {key: getattr(card, key) for key in ("kind", "window_ms", "direction", "threshold")}
    return {**row, **said, "output": legible(card.output), "error": None}


def _model_line(row: dict[str, Any]) -> str:
    marks = [mark for mark in ("default", "installed") if row[mark]]
    name = f"{row['name']} ({', '.join(marks)})" if marks else row["name"]
    if row["error"]:
        return f"{name} cannot be used: {row['error']}"
    return (
        f"{name}: {row['kind']}, {row['window_ms']:g} ms, {row['direction']} "
        f"events, threshold {row['threshold']:g}; gives the {row['output']}"
    )


@models.command("show")
@click.argument("model")
def show_model(model: str) -> None:
    """Print a model's card, without its test vector."""
    from dataclasses import asdict

    from quantal.model import load_model
    from quantal.save import as_json as to_json

    loaded = load_model(model)
    card = asdict(loaded.card)
    card["test_windows"] = len(card.pop("test_inputs"))
    del card["test_scores"]
    click.echo(to_json({**card, "folder": str(loaded.folder)}))


@models.command("verify")
@click.argument("names", nargs=-1)
@click.option("--device", default="cpu", metavar=_DEVICE)
def verify(names: Sequence[str], device: str) -> None:
    """Check files against their hashes and scores against the card's test vector.

    Without names all models are checked, shipped and added.
    """
    from quantal.doctor import verify_model, verify_models

    checks = [verify_model(name, device) for name in names] or verify_models(device)
    if not checks:
        raise UsageError("there is no model in this installation; name a model folder.")
    for check in checks:
        click.echo(str(check))
    if not all(check.passed for check in checks):
        sys.exit(_WRONG)


@models.command("add")
@click.argument("path", metavar="FILE_OR_FOLDER")
@click.option("--name", help="What to call it; the name in its card if not given.")
def add(path: str, name: str | None) -> None:
    """Add a packed model, or a model folder, to your own models."""
    from quantal.packs import add_model

    model = add_model(path, name=name)
    click.echo(
        f"{model.card.name} is installed in {model.folder}. "
        f"Type: quantal detect cell.abf --model {model.card.name}"
    )


@models.command("pack")
@click.argument("model")
@click.option(
    "--out", help="File that ends in .quantal, or a folder; the current one if not given."
)
def pack(model: str, out: str | None) -> None:
    """Pack a model into one file to share."""
    from quantal.model import as_typed
    from quantal.packs import pack_model

    path = pack_model(model, out)
    click.echo(
        f"{model} is packed in {path} ({path.stat().st_size / 1e6:.1f} MB). "
        f"To install it elsewhere, type: quantal models add {as_typed(path.name)}"
    )


@models.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove one of your own models."""
    from quantal.packs import remove_model

    remove_model(name)
    click.echo(f"{name} is removed. To see what is left, type: quantal models list")


@main.command()
@click.option("--model", "models", multiple=True, help="Name or folder; more than once for more.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Of the recording.")
@click.option("--rate-hz", type=float, default=50_000.0, show_default=True)
@click.option("--events-hz", type=float, default=0.7, show_default=True)
@click.option("--device", "devices", multiple=True, metavar=_DEVICE)
@click.option("--threads", multiple=True, type=int, help="1, 2, 4 ... all cores if not given.")
@click.option("--runs", type=int, default=3, show_default=True, help="The median of these counts.")
@click.option("--picture", type=_PATH, help="Draw it into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def bench(
    models: Sequence[str], devices: Sequence[str], as_json: bool, picture: Path | None, **given: Any
) -> None:
    """Time detection on this machine and say what to set."""
    from quantal.bench import draw_bench, render, row, run_bench
    from quantal.model import DEFAULT_MODEL
    from quantal.save import as_json as to_json

    tell = None if as_json else lambda timing: click.echo(row(timing), err=True)
    chosen = models or (DEFAULT_MODEL,)
    measured = run_bench(chosen, devices=devices or ("cpu", "cuda"), progress=tell, **given)
    if picture is not None:
        draw_bench(measured, picture)
    click.echo(to_json(measured.to_dict()) if as_json else render(measured))


@main.command()
@click.option("--seconds", type=float, default=2.0, show_default=True, help="For the speed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(seconds: float, as_json: bool) -> None:
    """Look at the installation, say what is wrong with it and what to type."""
    from quantal.doctor import diagnose, render
    from quantal.save import as_json as to_json

    diagnosis = diagnose(seconds)
    click.echo(to_json(diagnosis.to_dict()) if as_json else render(diagnosis))
    if diagnosis.problems:
        sys.exit(_WRONG)
