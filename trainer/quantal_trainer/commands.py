"""What the commands of quantal-train do, between the options and the files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantal.disk import move_together, scratch_folder
from quantal.errors import ReadError, SaveError, UsageError
from quantal.model import Card, Model, load_model
from quantal.save import save_summary

if TYPE_CHECKING:
    from quantal.trace import Trace
    from quantal_trainer.augment import Augmentation
    from quantal_trainer.datasets import Dataset
    from quantal_trainer.evaluate import Evaluation
    from quantal_trainer.train import HeldOut, Plan

Result = dict[str, Any]
_TABLES = ("fit", "split", "augment")
_SPLIT = ("validation", "by", "balance")


# Windows -----------------------------------------------------------------------------------------


def run_extract(
    recordings: Sequence[Path],
    out: Path,
    *,
    reading: dict[str, Any],
    excluded: Sequence[str],
    chosen: Path | None,
    **options: Any,
) -> Result:
    """Candidate windows of recordings, written for scoring; options are those of `extract`."""
    from quantal.commands import parse_stretch
    from quantal.readers import read
    from quantal_trainer.dataset_files import save_dataset
    from quantal_trainer.extract import extract

    stretches = [parse_stretch(text) for text in excluded]
    traces: list[Trace] = []
    for path, cell in _cells(recordings).items():
        traces += [
            replace(trace, recording=cell).exclude(stretches) for trace in read(path, **reading)
        ]
    if chosen is not None:
        stated = {name: reading[name] for name in ("rate_hz", "unit")}
        options["template"] = load([chosen], **stated)
    options = {name: value for name, value in options.items() if value is not None}
    dataset = extract(traces, **options)
    save_dataset(dataset, out)
    return {"dataset": str(out), **dataset.summary()}


def _cells(recordings: Sequence[Path]) -> dict[Path, str]:
    """A name for each recording: the file's, with its folder's where two files are called alike.

    Raises UsageError if one is named twice, or two cannot be told apart like that.
    """
    stems = [path.stem for path in recordings]
    names = {
        path: path.stem
        if stems.count(path.stem) == 1
        else f"{path.resolve().parent.name}/{path.name}"
        for path in recordings
    }
    if len(set(names.values())) < len(recordings):
        raise UsageError("a recording is named twice, or two in different folders have one name.")
    return names


def run_simulate(
    preparation: str, out: Path, *, windows: int, cells: int, noise: float, seed: int
) -> Result:
    """Labelled windows of a simulated preparation, its noise made `noise` times larger."""
    from quantal_trainer.dataset_files import save_dataset
    from quantal_trainer.preparations import PREPARATIONS, simulate_dataset

    chosen = PREPARATIONS[preparation]
    chosen = replace(chosen, noise_sd=noise * chosen.noise_sd)
    dataset = simulate_dataset(chosen, windows=windows, cells=cells, seed=seed)
    save_dataset(dataset, out)
    return {"dataset": str(out), **dataset.summary()}


def load(
    paths: Sequence[Path], *, rate_hz: float | None = None, unit: str | None = None
) -> Dataset:
    """One dataset from one or several files."""
    from quantal_trainer.dataset_files import read_dataset
    from quantal_trainer.datasets import merge

    parts = [read_dataset(path, rate_hz=rate_hz, unit=unit) for path in paths]
    return parts[0] if len(parts) == 1 else merge(parts)


def run_data(paths: Sequence[Path], out: Path | None, balance: str, **stated: Any) -> Result:
    """What datasets hold; merged and written where `out` is given."""
    from quantal_trainer.dataset_files import save_dataset
    from quantal_trainer.datasets import balanced

    dataset = load(paths, **stated)
    if balance == "thin":
        dataset = balanced(dataset)
    if out is not None:
        save_dataset(dataset, out)
    return {"dataset": str(out or paths[0]), **dataset.summary()}


def run_score(path: Path, *, sheets: Path | None, table: Path | None, **stated: Any) -> Result:
    """Score windows: in a window of its own, or by sheets of pictures and a table to edit."""
    from quantal_trainer.dataset_files import save_dataset
    from quantal_trainer.score import apply_scores, draw_sheets, score_interactively

    dataset = load([path], **stated)
    result: Result = {"dataset": str(path)}
    if sheets is not None:
        result["files"] = [str(file) for file in draw_sheets(dataset, sheets)]
    elif table is not None:
        dataset = apply_scores(dataset, table)
        save_dataset(dataset, path)
    else:
        dataset = score_interactively(dataset, lambda scored: save_dataset(scored, path))
    return result | dataset.summary()


# Networks ----------------------------------------------------------------------------------------


def plan_from(
    base: str | None, config: Path | None, options: dict[str, Any], *, marked: bool = False
) -> Plan:
    """What training is to do: defaults, then the TOML file, then the options that were given.

    marked: whether a trace network is trained on recordings rather than on windows. Raises
    UsageError for what makes no sense with this base.
    """
    from quantal_trainer.fit import SCHEDULES, FitSettings, settings_from
    from quantal_trainer.train import Plan
    from quantal_trainer.transfer import MARKED_TRANSFER, TRACE_TRANSFER, TRANSFER, frozen_layers

    given = {name: value for name, value in options.items() if value is not None}
    tables = _tables(config)
    schedule = given.pop("schedule", "paper")
    if reads_traces(base):
        _refuse({**tables["fit"], **given}, "freeze", "dropout")
        given["frozen"] = ()
        defaults = MARKED_TRANSFER if marked else TRACE_TRANSFER
    else:
        defaults = SCHEDULES[schedule] if base is None else TRANSFER
    fit_options = {
        name: given.pop(name) for name in FitSettings.__dataclass_fields__ if name in given
    }
    settings = settings_from({**tables["fit"], **fit_options}, defaults)
    if "freeze" in given:
        given["frozen"] = frozen_layers(given.pop("freeze"))
    return Plan(
        base=base,
        settings=settings,
        augmentation=_augmentation(tables["augment"]),
        **{**tables["split"], **given},
    )


def reads_traces(base: str | None) -> bool:
    """Whether a base is a network that reads whole traces; a Keras file never is."""
    if base is None or Path(base).suffix.lower() in (".h5", ".keras"):
        return False
    return load_model(base).card.kind == "trace"


def _refuse(given: dict[str, Any], *names: str) -> None:
    """Raise UsageError for options that a trace network does not have."""
    for name in names:
        if name in given:
            raise UsageError(
                f"a trace network is trained in all its layers, without dropout: leave out {name}."
            )


def run_training(
    paths: Sequence[Path],
    out: Path,
    plan: Plan,
    *,
    name: str | None,
    fold_count: int | None,
    say: Callable[[str], None],
    window_ms: float | None = None,
    **stated: Any,
) -> Result:
    """Train on one or several datasets; write a model folder and, beside it, report and page.

    window_ms: the time scale of a trace network; one that reads windows has that of the dataset.
    """
    from quantal.packs import checked_name
    from quantal_trainer.export import check_replaceable
    from quantal_trainer.train import train
    from quantal_trainer.transfer_trace import transfer_windows

    out = out.expanduser().resolve()
    check_replaceable(out)  # before anybody waits
    name = checked_name(name or out.name)
    traces = reads_traces(None if plan.base is None else str(plan.base))
    if traces and fold_count is not None:
        raise UsageError("a trace network is not cross-validated yet: leave out --folds.")
    if not traces and window_ms is not None:
        raise UsageError("a network that reads windows reads yours: leave out --window-ms.")
    dataset = load(paths, **stated)
    folds = None if fold_count is None else _cross_validated(dataset, plan, fold_count, out, say)
    epochs = plan.settings.epochs
    own: Result = (
        {"window_ms": window_ms} if traces else {"checkpoint": Path(f"{out}.checkpoint.npz")}
    )
    trained = (transfer_windows if traces else train)(
        dataset,
        out,
        plan,
        name=name,
        progress=lambda epoch, values: say(_epoch(epoch, epochs, values)),
        warn=lambda text: say(f"warning: {text}"),
        **own,
    )
    evaluation = trained.evaluation
    result = {
        "model": str(trained.model.folder),
        "epochs": len(trained.history["loss"]),
        "windows": trained.model.card.training["windows"],
        "direction": trained.model.card.direction,
        "window_ms": trained.model.card.window_ms,
        "validation": trained.model.card.training["validation"],
        "warnings": trained.warnings,
    }
    report: Result = {**result, "evaluation": evaluation.to_dict(), "history": trained.history}
    if folds is not None:
        result["folds"] = report["folds"] = folds
    save_summary(report, f"{out}.training.json")
    title = f"{trained.model.card.name}: the windows held out"
    _draw(evaluation, [trained.held_out], Path(f"{out}.training.png"), title)
    return result


def run_marked_training(
    recordings: Sequence[Path],
    tables: Sequence[Path],
    out: Path,
    plan: Plan,
    *,
    reading: dict[str, Any],
    excluded: Sequence[str],
    window_ms: float | None,
    name: str | None,
    say: Callable[[str], None],
) -> Result:
    """Train a trace network on recordings whose events are listed in tables; write a model."""
    from quantal.commands import parse_stretch
    from quantal.packs import checked_name
    from quantal.readers import read
    from quantal_trainer.export import check_replaceable
    from quantal_trainer.marked import marked_traces, read_marks
    from quantal_trainer.transfer_trace import transfer_marked

    out = out.expanduser().resolve()
    check_replaceable(out)
    name = checked_name(name or out.name)
    if plan.augmentation is not None:
        raise UsageError("recordings are not augmented: leave out the table [augment].")
    stems = [path.stem for path in recordings]
    if len(set(stems)) < len(stems):
        raise UsageError("two recordings have one name, by which a table tells them apart.")
    stretches = [parse_stretch(text) for text in excluded]
    traces = [[trace.exclude(stretches) for trace in read(p, **reading)] for p in recordings]
    trained = transfer_marked(
        marked_traces(traces, [read_marks(path) for path in tables]),
        out,
        plan,
        window_ms=window_ms,
        name=name,
        progress=lambda epoch, values: say(_epoch(epoch, plan.settings.epochs, values)),
    )
    card = trained.model.card
    result = {
        "model": str(trained.model.folder),
        "epochs": len(trained.history["loss"]),
        "events": card.training["data"]["events"],
        "direction": card.direction,
        "window_ms": card.window_ms,
        "held_out": trained.to_dict(),
    }
    save_summary({**result, "history": trained.history}, f"{out}.training.json")
    return result


def run_evaluate(
    paths: Sequence[Path],
    model: str | None,
    out: Path,
    *,
    direction: str | None,
    threshold: float | None,
    place: str,
    device: str,
    **stated: Any,
) -> Result:
    """How a model does on labelled windows: a JSON file and a page of pictures."""
    from quantal_trainer.evaluate import evaluate
    from quantal_trainer.evaluation_page import draw_evaluation

    out = out.expanduser().resolve()
    loaded, dataset = load_model(model), load(paths, **stated)
    found, scored = evaluate(
        loaded, dataset, direction=direction, threshold=threshold, place=place, device=device
    )
    files = {"json": Path(f"{out}.json"), "picture": Path(f"{out}.png")}
    title = f"{loaded.card.name} on {', '.join(path.name for path in paths)}"
    draw_evaluation(
        found,
        scored.windows,
        scored.labels,
        scored.scores,
        files["picture"],
        title=title,
        rows=scored.rows,
    )
    result = {
        "model": loaded.card.name,
        "datasets": [str(path) for path in paths],
        "direction": scored.direction,
        "in_words": found.describe(),
        **found.to_dict(),
    }
    save_summary(result, files["json"])
    return {**result, "files": {name: str(file) for name, file in files.items()}}


def run_explain(
    paths: Sequence[Path],
    model: str,
    out: Path,
    *,
    count: int,
    method: str,
    seed: int,
    **stated: Any,
) -> Result:
    """What a network looks at: saliency of windows, and maps of windows and of its last layer."""
    import numpy as np

    from quantal.scan import SIGNS
    from quantal_trainer import explain
    from quantal_trainer.datasets import polarity, training_arrays
    from quantal_trainer.fit import network_scores
    from quantal_trainer.restore import base_network
    from quantal_trainer.trace_windows import framed, framing, judge

    out = out.expanduser().resolve()
    network, card = base_network(model)
    dataset = load(paths, **stated)
    sign = SIGNS[polarity(dataset)] * SIGNS[card.polarity]
    seen = slice(None)
    if card.kind == "trace":
        frame = framing(dataset, card, sign=sign)
        windows, labels = framed(dataset, frame)
        network, seen = judge(network, frame), frame.inside
    else:
        windows, labels = training_arrays(dataset, card.window_samples, sign)
    scores = network_scores(network, windows)
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.permutation(len(windows))[:count])
    saliency = explain.smooth_grad(network, windows[shown], seed=seed)[:, seen]
    files = {"saliency": Path(f"{out}.saliency.png"), "embedding": Path(f"{out}.embedding.png")}
    explain.draw_saliency(windows[shown][:, seen], saliency, scores[shown], files["saliency"])
    raw, ran = explain.embed(windows[:, seen], method=method, seed=seed)
    last, _ = explain.embed(explain.last_layer_input(network, windows), method=ran, seed=seed)
    explain.draw_embedding(raw, last, scores, labels, files["embedding"], ran)
    return {
        "model": card.name,
        "windows": len(windows),
        "method": ran,
        "files": {name: str(file) for name, file in files.items()},
    }


def run_export(model: str, out: Path) -> Result:
    """A model folder as a Keras file."""
    from quantal_trainer.restore import base_network

    if out.suffix.lower() not in (".keras", ".h5"):
        raise UsageError(f"--out must end in .keras or .h5, got {out.name!r}.")
    network, card = base_network(model)
    with scratch_folder(out.parent) as scratch:
        whole = scratch / out.name  # Keras tells the format by the suffix
        try:
            network.save(whole)
        except RuntimeError as error:  # as HDF5 tells of a full disk
            raise SaveError(
                f"{out} cannot be written: {' '.join(str(error).split())}; free some space or save "
                "elsewhere."
            ) from None
        move_together([whole], out.parent)
    return {"model": card.name, "file": str(out)}


def _cross_validated(
    dataset: Dataset, plan: Plan, count: int, out: Path, say: Callable[[str], None]
) -> Result:
    from quantal_trainer.evaluate import pooled
    from quantal_trainer.train import cross_validate

    def tell(fold: int, epoch: int, values: dict[str, float]) -> None:
        say(f"fold {fold}/{count}, {_epoch(epoch, plan.settings.epochs, values)}")

    results = cross_validate(dataset, plan, count, progress=tell)
    found = pooled([(part.scores, part.labels) for part in results], threshold=plan.threshold)
    title = f"{out.name}: {count} folds, each scored by a network trained on the others"
    _draw(found.pooled, results, Path(f"{out}.folds.png"), title)
    return found.to_dict()


def _draw(evaluation: Evaluation, parts: Sequence[HeldOut], path: Path, title: str) -> None:
    """The page of an evaluation, with the worst windows of all parts together."""
    import numpy as np

    from quantal_trainer.evaluation_page import draw_evaluation

    windows, labels, scores = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("windows", "labels", "scores")
    )
    draw_evaluation(evaluation, windows, labels, scores, path, title=title)


def _epoch(epoch: int, epochs: int, values: dict[str, float]) -> str:
    def part(prefix: str) -> str:
        known = ("accuracy", "loss")
        return ", ".join(f"{n} {values[prefix + n]:.4f}" for n in known if prefix + n in values)

    return f"epoch {epoch}/{epochs}: {part('')}; held out: {part('val_')}"


def _tables(config: Path | None) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file by name, empty ones where there is none."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in _TABLES}
    if config is None:
        return tables
    try:
        content = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError(f"{config} cannot be read as TOML: {error}.") from None
    strange = sorted(set(content) - set(_TABLES))
    if strange:
        raise UsageError(f"{config} may hold [{'], ['.join(_TABLES)}], not {', '.join(strange)}.")
    for name, table in content.items():
        if not isinstance(table, dict):
            raise UsageError(f"{name} in {config} must be a table, [{name}], got {table!r}.")
    unknown = sorted(set(content.get("split", {})) - set(_SPLIT))
    if unknown:
        raise UsageError(f"[split] knows {', '.join(_SPLIT)}, not {', '.join(unknown)}.")
    return {**tables, **content}


def _augmentation(table: dict[str, Any]) -> Augmentation | None:
    from quantal_trainer.augment import Augmentation

    return Augmentation.from_dict(table) if table else None


# Keras files -------------------------------------------------------------------------------------


def run_import(
    file: Path, out: Path, *, name: str | None, window_ms: float | None, rate_hz: float | None,
    **facts: Any,
) -> Model:  # fmt: skip
    """A Keras file of the CNN-LSTM as a model folder; facts go onto its card."""
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
        training=source.facts(),
        **facts,
    )
    return export_model(source.network(), out, card=card)


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


def import_facts(model: Model) -> Result:
    """What an import gave, as plain values."""
    card = model.card
    facts = ("name", "window_samples", "window_ms", "rate_hz", "polarity", "direction", "threshold")
    return {
        "folder": os.fspath(model.folder),
        **{fact: getattr(card, fact) for fact in facts},
        **{part: getattr(card, part) for part in ("graphs", "training", "versions")},
    }


def import_line(model: Model, assumed: bool) -> str:
    """What an import gave, for people."""
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


def run_distill(
    model: str, out: Path | None, *, say: Callable[[str], None], **options: Any
) -> dict[str, Any]:
    """Distill a scout; returns the model's folder, levels, calibration and share of suspects."""
    from quantal_trainer.distill import Plan, distill

    plan = Plan(**{name: value for name, value in options.items() if value is not None})
    made = distill(model, out, plan, say)
    scout, threshold = made.card.scout, made.card.threshold
    usual = sum(reached <= threshold for reached, _ in scout["levels"])
    suspect = scout["calibration"]["suspect"][max(usual - 1, 0)]
    return {"model": str(made.folder), "suspect": suspect, **scout}
