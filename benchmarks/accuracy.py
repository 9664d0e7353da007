"""How well events are found and measured: simulated recordings of known truth, many detectors.

    python benchmarks/accuracy.py [--parts sweep,snr,decay,...] [--detectors cnn-lstm,template,...]
        [--seeds N] [--afresh NAME,...] [--out FOLDER]

The benchmark of the miniML paper's Figure 3, and what it left out. Detectors are named as
`quantal.detect` names them, models also by their folder; the ideal observer is always there. The
parts sweep, real and conformance, and some rows of others, need the reference recordings beside
the project (or in QUANTAL_SHARED) and are left out without them. Results are kept in accuracy.json,
one for every recording and detector, so that a run goes on where it stopped and a further detector
runs alone; one whose recording or model has changed is made anew, and --afresh makes those of a
detector anew. accuracy.md and accuracy.png show what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_parts import PARTS, Case
from accuracy_report import draw, tables
from detectors import IDEAL, MINIML, SLOW, Detector, UnavailableError, open_detector
from reference_scenes import shared_folder
from scenes import Scene

from quantal.runtime import cores

Results = dict[str, Any]

DETECTORS = "cnn-lstm,minis,template,deconvolution,threshold,matched,bayesian"
SEEDS = 3


def main() -> None:
    """Run what is asked for and not yet there; write table and picture of all that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--detectors", default=DETECTORS, help=f"default: {DETECTORS}")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="recordings of each kind")
    parser.add_argument("--afresh", default="", help="detectors whose results are made anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "accuracy.json"
    results = load(kept, set(options.afresh.split(",")))
    detectors = list(opened([*options.detectors.split(","), IDEAL, MINIML]))
    shared = shared_folder()
    if shared is None:
        print("No reference recordings are there: without the parts that need them.")
    for part in filter(None, options.parts.split(",")):
        for case in PARTS[part].cases(shared, options.seeds):
            if run(part, case, detectors, results):
                save(kept, results)
    text = "\n".join(["# Accuracy", "", f"{machine()}.", *tables(results)]) + "\n"
    (options.out / "accuracy.md").write_text(text, encoding="utf-8")
    print(text)
    draw(results, options.out / "accuracy.png")


def machine() -> str:
    """What the benchmark runs on."""
    return f"{cores()} cores, {platform.machine()}"


def opened(names: list[str]) -> Iterator[Detector]:
    """The detectors that can be run here; says why others cannot."""
    for name in dict.fromkeys(filter(None, names)):
        try:
            yield open_detector(name)
        except UnavailableError as error:
            print(f"Without {name}: {error}")


def load(path: Path, afresh: set[str]) -> Results:
    """Results by key, without those of the detectors that are to be run anew."""
    if not path.is_file():
        return {}
    known: Results = json.loads(path.read_text(encoding="utf-8"))
    return {key: found for key, found in known.items() if found["detector"] not in afresh}


def save(path: Path, results: Results) -> None:
    """One line a result; written beside the file and then renamed."""
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(results[k])}" for k in sorted(results))
    beside = path.with_suffix(".part")
    beside.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    os.replace(beside, path)


def run(part: str, case: Case, detectors: list[Detector], results: Results) -> bool:
    """Run the detectors that have no result for a recording; whether there were any."""
    able = [d for d in detectors if d.name != MINIML or MINIML in case.on_record]
    wanted = [(d, stamp(case, d)) for d in able]
    wanted = [(d, s) for d, s in wanted if results.get(key(part, case, d), {}).get("stamp") != s]
    if not wanted:
        return False
    scene = case.make()
    for detector, stamped in wanted:
        try:
            found = one(part, scene, detector)
        except Exception as error:  # one that fails must not end a run of half an hour
            print(f"{key(part, case, detector)} failed: {error!r}", flush=True)
            continue
        about = {"part": part, "row": case.row, "seed": case.seed, "detector": detector.name}
        results[key(part, case, detector)] = {**about, **case.notes, **found, "stamp": stamped}
    return True


def one(part: str, scene: Scene, detector: Detector) -> Results:
    """What a detector does with a scene; empty where it cannot do anything."""
    if part != "sweep":  # whose numbers are compared with those of others
        scene = scene.first(SLOW.get(detector.name, np.inf))
    begin = time.perf_counter()
    try:
        found = PARTS[part].judge(scene, detector)
    except UnavailableError:
        return {}
    took_s = time.perf_counter() - begin
    return {**found, "recorded_s": round(scene.trace.duration_s, 3), "took_s": round(took_s, 2)}


def key(part: str, case: Case, detector: Detector) -> str:
    """Where a result is kept."""
    return f"{part} / {case.row} / {case.seed} / {detector.name}"


def stamp(case: Case, detector: Detector) -> str:
    """Changes with the recording and with the detector."""
    return f"{zlib.crc32(case.about.encode()):08x} {detector.identity}"


if __name__ == "__main__":
    main()
