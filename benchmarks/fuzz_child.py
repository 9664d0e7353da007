"""One target under the fuzzer, or one of its inputs tried again.

    python benchmarks/fuzz_child.py TARGET FOLDER INPUTS SECONDS SEED
    python benchmarks/fuzz_child.py TARGET FILE

`fuzz.py` starts this in a process of its own, as an input may end it. What is counted lies in a
file that is mapped into memory, so that it outlives the process; the input in hand lies in
FOLDER/input.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import json
import logging
import mmap
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import numpy as np

ADDRESS_BYTES = 8 << 30
MEMORY_BYTES = 2 << 30  # of one input, beyond what the process had
PROCESSOR_S = 5.0
WALL_S = 120  # nothing waits that long, however busy the machine is
LONGEST = 200_000  # bytes of an input
COUNTERS = ("inputs", "answers", "refusals", "findings")
_DEPTH = 400
_ONE = struct.calcsize("q")


class Counters:
    """Numbers in a file that survive whatever happens to the process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_ONE * len(COUNTERS)))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def add(self, name: str) -> None:
        """Count one more."""
        self._numbers[COUNTERS.index(name)] += 1

    def all(self) -> dict[str, int]:
        """What was counted."""
        return dict(zip(COUNTERS, self._numbers.tolist(), strict=True))


def main() -> None:
    """Fuzz until so many inputs or seconds are over."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    if folder.is_file():
        print(_tried_again(name, folder.read_bytes()))
        return
    inputs, seconds, seed = (int(text) for text in sys.argv[3:6])
    target = _watched_target(name)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    corpus = _corpus(target, folder, scratch)
    _set_limits(folder)
    attempt = _Attempt(target, folder, scratch)
    options = [
        *(f"-runs={inputs}", f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={WALL_S}"),
        *(f"-max_len={LONGEST}", "-len_control=0", "-print_final_stats=1", "-rss_limit_mb=0"),
        *(f"-handle_{kind}=0" for kind in ("segv", "bus", "abrt", "ill", "fpe")),
        f"-artifact_prefix={folder}/libfuzzer-",
    ]
    mutate = _mutator(target)
    atheris.Setup([sys.argv[0], str(corpus), *options], attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _tried_again(name: str, data: bytes) -> Any:
    """What an input gives, or the error that it raises."""
    target = _watched_target(name)
    with tempfile.TemporaryDirectory() as folder:
        return target.attempt(_built(target, data, target.seeds(Path(folder))), Path(folder))


def _built(target: Any, data: bytes, seeds: list[bytes]) -> bytes:
    """The file that an input is, or is the recipe of."""
    from fuzz_recipes import RECIPE

    if target.recipe is None or not data.startswith(RECIPE):
        return data
    built: bytes = target.recipe(atheris.FuzzedDataProvider(data[1:]), seeds)
    return built


def _watched_target(name: str) -> Any:
    """The target, its modules imported so that their branches count as coverage."""
    warnings.simplefilter("ignore")
    import fuzz_targets

    target = fuzz_targets.TARGETS[name]
    _import_unwatched(target.watched)
    with atheris.instrument_imports(include=list(target.watched)):
        for module in target.watched:
            try:
                importlib.import_module(module)
            except ImportError as missing:
                sys.exit(f"{name} needs {missing.name}, which is not installed")
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    # What NumPy warns of in a reader is an answer that was computed from nonsense.
    warnings.filterwarnings("error", category=RuntimeWarning, module=r"quantal")
    logging.disable(logging.CRITICAL)
    return target


def _import_unwatched(watched: tuple[str, ...]) -> None:
    """Kernels are for Numba, which cannot compile what counts its branches."""
    if not any(name.startswith("quantal.readers") for name in watched):
        importlib.import_module("quantal.windows")
        importlib.import_module("quantal.kinetics")


def _corpus(target: Any, folder: Path, scratch: Path) -> Path:
    """The folder of inputs that reached something new; the good files at first."""
    import fuzz_targets
    from fuzz_recipes import RECIPE

    corpus = folder / "corpus"
    seeds = target.seeds(scratch)
    if target.known is not None:
        read = target.attempt(seeds[0], scratch)
        for samples, known in zip(read, target.known(), strict=True):
            np.testing.assert_allclose(samples, known, rtol=1e-5)
    if corpus.exists():
        return corpus
    corpus.mkdir()
    seeds += fuzz_targets.real_seeds(target)
    if target.recipe is not None:
        chance = np.random.default_rng(0)
        seeds += [RECIPE + chance.bytes(60) for _ in range(30)]
    for one in seeds:
        (corpus / hashlib.sha1(one).hexdigest()).write_bytes(one)
    return corpus


def _set_limits(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    log = (folder / "traceback").open("w")
    faulthandler.enable(log)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.register(signal.SIGPROF, log, chain=True)


def _mutator(target: Any) -> Callable[[bytes, int, int], bytes]:
    import fuzz_recipes

    def own(data: bytes, most: int) -> bytes:
        changed: bytes = atheris.Mutate(data, most)  # Fuzz() is what gives it a body
        return changed

    plain: Any = fuzz_recipes.mutator(target.tokens, own)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if target.recipe is not None and data.startswith(fuzz_recipes.RECIPE):
            return fuzz_recipes.RECIPE + own(data[1:], min(most, 300) - 1)
        mutated: bytes = plain(data, most, seed)
        return mutated

    return mutate


class _Attempt:
    """Tries an input and writes down what must not happen."""

    def __init__(self, target: Any, folder: Path, scratch: Path) -> None:
        from quantal.errors import QuantalError

        self._refusal = QuantalError
        self._target = target
        self._folder = folder
        self._scratch = scratch
        self._seeds = target.seeds(scratch)
        self._counters = Counters(folder / "counters")
        self._known = {path.name for path in folder.glob("finding-*")}
        self._peak = _peak_bytes()

    def __call__(self, data: bytes) -> None:
        (self._folder / "input").write_bytes(data)
        self._counters.add("inputs")
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)
        try:
            self._target.attempt(_built(self._target, data, self._seeds), self._scratch)
            self._counters.add("answers")
        except self._refusal as error:
            self._counters.add("refusals")
            if isinstance(error.__cause__ or error.__context__, MemoryError):
                self._found("memory", "asked for more than there is", error, data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._found(type(error).__name__, str(error), error, data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        peak = _peak_bytes()
        if peak > self._peak + MEMORY_BYTES:
            self._found("memory", f"took {(peak - self._peak) / 1e9:.1f} GB", None, data)
            sys.exit(1)  # the peak of a process never falls; the next begins anew
        self._peak = max(self._peak, min(peak, self._peak + (64 << 20)))

    def _found(self, kind: str, said: str, error: BaseException | None, data: bytes) -> None:
        self._counters.add("findings")
        frames = traceback.extract_tb(error.__traceback__) if error is not None else []
        own = [f for f in frames if "/quantal" in f.filename] or frames[-1:]
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        key = hashlib.sha1(f"{kind} {where}".encode()).hexdigest()[:10]
        if f"finding-{key}" in self._known:
            return
        self._known.add(f"finding-{key}")
        (self._folder / f"finding-{key}").write_bytes(data)
        told = "".join(traceback.format_exception(error, limit=-_DEPTH)) if error else ""
        line = {"key": key, "kind": kind, "where": where, "said": said[:500], "traceback": told}
        with (self._folder / "findings.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
