"""quantal-train as it is typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from quantal.cli import main as quantal_main
from quantal.errors import UsageError
from quantal.model import load_model, stored_test
from quantal.simulate import simulate_recording
from quantal_trainer.cli import main
from quantal_trainer.commands import window_and_rate
from quantal_trainer.dataset_files import read_dataset
from quantal_trainer.export import onnx_scores


@pytest.fixture(scope="session")
def file(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "network.keras"
    network.save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_quantal(arguments: list[str]) -> Result:
    return CliRunner().invoke(quantal_main, arguments)


def started(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a Python of its own, after a line of code."""
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom quantal_trainer.cli import main\nmain()"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_import_keras_writes_a_model_that_loads(file: Path, tmp_path: Path) -> None:
    result = run(
        *("import-keras", file, "--out", tmp_path / "optical", "--window-ms", 600),
        *("--direction", "positive", "--licence", "MIT", "--citation", "A paper"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "600 samples = 600 ms at 1000 Hz" in result.stdout
    card = load_model(tmp_path / "optical").card
    assert (card.name, card.licence, card.citation) == ("optical", "MIT", "A paper")
    assert (card.window_ms, card.rate_hz) == (600, 1000)
    assert (card.polarity, card.direction) == ("negative", "positive")
    assert card.training["imported_from"] == "network.keras"


def test_json_is_one_object_and_stderr_is_silent(file: Path, tmp_path: Path) -> None:
    done = started("", "import-keras", file, "--out", tmp_path / "m", "--name", "mine", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert content["name"] == "mine"
    assert content["graphs"] == load_model(tmp_path / "m").card.graphs
    assert content["window_ms"] == 12


@pytest.mark.parametrize("content", [None, b"text", b"PK\x03\x04"])
def test_a_file_that_cannot_be_read_is_one_line_and_code_3(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "network.h5"
    if content is not None:
        path.write_bytes(content)
    result = run("import-keras", path, "--out", tmp_path / "model")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_wrong_usage_is_code_2(file: Path, tmp_path: Path) -> None:
    assert run("import-keras", file).exit_code == 2
    assert run("import-keras", file, "--out", tmp_path, "--threshold", 1).exit_code == 2
    (tmp_path / "notes.txt").write_text("mine")
    result = run("import-keras", file, "--out", tmp_path)
    assert result.exit_code == 2
    assert "notes.txt" in result.stderr
    result = run(
        "import-keras", file, "--out", tmp_path / "m", "--window-ms", 600, "--rate-hz", 100
    )
    assert result.exit_code == 2
    assert "leave out --rate-hz" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("import-keras", file, "--out", tmp_path / "file" / "model")
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1


def test_without_tensorflow_the_error_says_what_to_type(tmp_path: Path) -> None:
    missing = "import sys; sys.modules['tensorflow'] = None"
    done = started(missing, "import-keras", tmp_path / "n.h5", "--out", tmp_path / "m")
    assert done.returncode == 2
    assert "python -m pip install tensorflow keras tf2onnx onnx" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_tensorflow() -> None:
    done = started(
        "import sys, atexit\n"
        "atexit.register(lambda: print('tensorflow' in sys.modules, 'scipy' in sys.modules))",
        "--help",
    )
    assert done.returncode == 0
    assert "import-keras" in done.stdout
    assert done.stdout.endswith("False False\n")


@pytest.mark.parametrize(
    ("window_ms", "rate_hz", "expected"),
    [
        (None, None, (12.0, 50_000.0)),
        (600.0, None, (600.0, 1_000.0)),
        (None, 100_000.0, (6.0, 100_000.0)),
        (11.98, 50_000.0, (11.98, 50_000.0)),
    ],
)
def test_window_and_rate_follow_from_each_other(
    window_ms: float | None, rate_hz: float | None, expected: tuple[float, float]
) -> None:
    assert window_and_rate(600, window_ms, rate_hz) == pytest.approx(expected)


def test_a_window_and_a_rate_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="are 1000 Hz, not 100"):
        window_and_rate(600, 600.0, 100.0)


# From recordings to a model ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short recordings of simulated minis, as files."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = []
    for cell in range(2):
        trace, _ = simulate_recording(seconds=6.0, frequency_hz=5.0, amplitude=-14.0, seed=cell)
        paths.append(folder / f"cell_{cell}.npy")
        np.save(paths[-1], trace.samples)
    return paths


@pytest.fixture(scope="module")
def extracted(recordings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "windows.h5"
    stated = ("--rate-hz", 50_000, "--unit", "pA", "--window-ms", 12)
    result = run("extract", *recordings, *stated, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "cells: cell_0" in result.stdout
    return out


def test_extracted_windows_wait_for_a_look(extracted: Path) -> None:
    facts = json.loads(run("data", extracted, "--json").stdout)
    assert facts["events"] == facts["kinds"]["clear"] > 10
    assert facts["noise"] == facts["kinds"]["noise"] > 10
    assert facts["excluded"] == facts["kinds"].get("unclear", 0)


def test_excluded_stretches_give_no_window(recordings: list[Path], tmp_path: Path) -> None:
    stated = ("--rate-hz", 50_000, "--unit", "pA", "--window-ms", 12, "--exclude-s", "0-3")
    run("extract", recordings[0], *stated, "--out", tmp_path / "late.h5")
    assert read_dataset(tmp_path / "late.h5").raw_indices.min() >= 150_000


def test_scores_come_back_from_an_edited_table(extracted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(extracted, tmp_path / "windows.h5"))
    result = run("score", copy, "--sheets", tmp_path / "sheets")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "sheets" / "sheet-001.png").stat().st_size > 10_000
    table = tmp_path / "sheets" / "scores.csv"
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    table.write_text("\n".join([lines[0], *(line[:-1] + "2" for line in lines[1:])]))
    assert run("score", copy, "--table", table).exit_code == 0
    assert set(read_dataset(copy).scores.tolist()) == {2}


def test_datasets_are_merged_once_each(extracted: Path, tmp_path: Path) -> None:
    result = run("data", extracted, extracted, "--out", tmp_path / "both.h5", "--balance", "thin")
    assert result.exit_code == 0, result.stderr
    both, one = read_dataset(tmp_path / "both.h5"), read_dataset(extracted)
    assert (both.scores == 1).sum() == (both.scores == 0).sum()
    assert len(both) <= len(one)


def test_a_simulated_dataset_is_the_same_again(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        run("simulate", "optical", "--windows", 40, "--cells", 2, "--out", tmp_path / name)
    a, b = read_dataset(tmp_path / "a.h5"), read_dataset(tmp_path / "b.h5")
    np.testing.assert_array_equal(a.windows, b.windows)
    assert (a.rate_hz, a.length) == (100.0, 60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--times", "no.csv", "--folds", "2"), "--folds and --balance are of windows"),
        (("--exclude-s", "0-1"), "are of recordings: give --times"),
        (("--base", "minis", "--folds", "2"), "not cross-validated yet"),
        (("--base", "minis", "--dropout", "0.2"), "leave out dropout"),
        (("--window-ms", "20"), "leave out --window-ms"),
        (("--times", "no.csv", "--base", "cnn-lstm"), "cannot be read as a table"),
        (("--name", "Minis"), "comes with quantal; give this one another --name"),
        (("--times", "no.csv", "--name", "minis"), "comes with quantal"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    extracted: Path, recordings: list[Path], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    stated = ("--rate-hz", 50_000, "--unit", "pA")
    data = recordings if "--times" in options else [extracted]
    result = run("transfer", *data, *stated, "--out", tmp_path / "m", *options)
    assert result.exit_code in (2, 3)
    assert words in result.stderr


@pytest.mark.slow
def test_event_times_make_a_model_of_the_shipped_trace_network(
    recordings: list[Path], tmp_path: Path
) -> None:
    stated = ["--rate-hz", "50000", "--unit", "pA", "--out", str(tmp_path)]
    run_quantal(["detect", *map(str, recordings), *stated, "--quiet"])
    tables = [tmp_path / f"{path.stem}.events.csv" for path in recordings]
    given = [argument for table in tables for argument in ("--times", table)]
    result = run(
        *("transfer", *recordings, *given, "--rate-hz", 50_000, "--unit", "pA"),
        *("--out", tmp_path / "mine", "--epochs", 1),
    )
    assert result.exit_code == 0, result.stderr
    assert "epoch 1/1: loss" in result.stderr
    assert "held out" in result.stdout
    card = load_model(tmp_path / "mine").card
    assert (card.kind, card.direction, card.window_ms) == ("trace", "negative", 12.0)
    report = json.loads((tmp_path / "mine.training.json").read_text())
    assert report["held_out"]["hits"] > 5


@pytest.mark.slow
def test_windows_make_a_model_of_the_shipped_trace_network(extracted: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    result = run("transfer", extracted, "--base", "minis", "--out", model, "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert "epoch 1/1: loss" in result.stderr
    evaluated = run("evaluate", extracted, "--model", model, "--out", tmp_path / "e", "--json")
    assert json.loads(evaluated.stdout)["auc"] > 0.9
    explained = run("explain", extracted, "--model", model, "--out", tmp_path / "why")
    assert explained.exit_code == 0, explained.stderr
    assert (tmp_path / "why.saliency.png").stat().st_size > 20_000


@pytest.mark.slow
def test_transfer_makes_a_model_that_detects_and_evaluates_and_explains(
    extracted: Path, recordings: list[Path], tmp_path: Path
) -> None:
    config = tmp_path / "train.toml"
    config.write_text(
        "[fit]\nepochs = 9\n[augment]\ncopies = 1\namplitude_jitter = 0.2\n[split]\nby = 'cell'\n"
    )
    model = tmp_path / "mine"
    result = run("transfer", extracted, "--out", model, "--config", config, "--epochs", 2)
    assert result.exit_code == 0, result.stderr
    assert "epoch 2/2" in result.stderr
    assert f"quantal detect RECORDING --model {model}" in result.stdout
    training = load_model(model).card.training
    assert training["plan"]["settings"]["epochs"] == 2
    assert training["plan"]["augmentation"]["copies"] == 1
    report = json.loads((tmp_path / "mine.training.json").read_text())
    assert report["evaluation"]["confusion"]
    assert (tmp_path / "mine.training.png").stat().st_size > 20_000

    options = f"--model {model} --out {tmp_path} --rate-hz 50000 --unit pA --json"
    found = run_quantal(["detect", str(recordings[0]), *options.split()])
    assert json.loads(found.stdout)["recordings"][0]["events"] > 10

    page = run("evaluate", extracted, "--model", model, "--out", tmp_path / "page")
    assert page.exit_code == 0, page.stderr
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert json.loads((tmp_path / "page.json").read_text())["direction"] == "negative"

    why = run(
        *("explain", extracted, "--model", model, "--out", tmp_path / "why"),
        *("--count", 4, "--method", "pca"),
    )
    assert why.exit_code == 0, why.stderr
    assert (tmp_path / "why.saliency.png").is_file()
    assert (tmp_path / "why.embedding.png").is_file()


@pytest.mark.slow
def test_fit_cross_validates_and_trains_from_nothing(extracted: Path, tmp_path: Path) -> None:
    result = run(
        *("fit", extracted, "--out", tmp_path / "new", "--schedule", "short", "--epochs", 1),
        *("--folds", 2, "--by", "window", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert len(content["folds"]["accuracy"]["folds"]) == 2
    assert content["epochs"] == 1
    assert "fold 2/2, epoch 1/1" in result.stderr
    assert (tmp_path / "new.folds.png").stat().st_size > 20_000


def test_a_model_goes_out_as_a_keras_file_and_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "network.keras"
    assert run("export", "cnn-lstm", "--out", out).exit_code == 0
    back = run("import-keras", out, "--out", tmp_path / "back", "--polarity", "positive")
    assert back.exit_code == 0, back.stderr
    inputs, scores = stored_test(load_model("cnn-lstm").card)
    again = onnx_scores(load_model(tmp_path / "back").graph, inputs)
    np.testing.assert_allclose(again, scores, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fit\n", "cannot be read as TOML"),
        ("[fitting]\nepochs = 2\n", "not fitting"),
        ("[fit]\nepoch = 2\n", "not epoch"),
        ("[split]\nshare = 0.5\n", "not share"),
        ("[augment]\nnoise = 1\n", "knows no noise"),
        ("fit = 5\n", "must be a table"),
        ("[fit]\nbatch = 32.0\n", "batch must be a whole number"),
        ("[fit]\nseed = 5000000000\n", "seed must be at most"),
    ],
)
def test_a_config_that_makes_no_sense_is_told(text: str, words: str, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(text)
    result = run("fit", tmp_path / "x.h5", "--out", tmp_path / "m", "--config", config)
    assert result.exit_code in (2, 3)
    assert words in result.stderr


def test_a_dataset_without_rate_says_which_option_is_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as handle:
        handle["events"] = np.random.default_rng(0).random((4, 600))
        handle["scores"] = np.array([0, 1, 0, 1])
    result = run("data", tmp_path / "foreign.h5")
    assert result.exit_code == 3
    assert "--rate-hz" in result.stderr
