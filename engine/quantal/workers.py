"""Work for several processes, here or in a cluster, through executors of concurrent.futures.

A task whose process dies is tried once more; no other task is touched by it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from quantal.errors import UsageError

P = ParamSpec("P")
Task = TypeVar("Task")
Result = TypeVar("Result")

_TRIES = 2
_CONNECT_S = 10


def spread(
    executor: Executor, work: Callable[[Task], Result], tasks: Iterable[Task], at_once: int
) -> Iterator[tuple[Task, Result | BaseException]]:
    """Each task with its result, or what it failed with, as they are ready.

    at_once: how many the executor is given at a time.
    """
    waiting = deque((task, 1) for task in tasks)
    running: dict[Future[Result], tuple[Task, int]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            task, attempt = waiting.popleft()
            running[executor.submit(work, task)] = task, attempt
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task, attempt = running.pop(future)
            failure = _failure(future)
            if isinstance(failure, BrokenProcessPool) and attempt < _TRIES:
                waiting.append((task, attempt + 1))
            else:
                yield task, future.result() if failure is None else failure


def _failure(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except BaseException as error:  # cancelled, as when a scheduler is gone
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return error


class Processes(Executor):
    """So many processes with a pool each: one that dies takes its own task with it and no other.

    They end when this object is shut down and when this process does, however that ends.
    """

    def __init__(self, workers: int) -> None:
        self._slots = [_Slot() for _ in range(workers)]
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)

    def submit(
        self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Hand a call to a free process, once there is one."""
        slot = self._free.get()
        try:
            future = slot.submit(fn, *args, **kwargs)
        except BaseException:
            self._free.put(slot)
            raise
        future.add_done_callback(lambda _: self._free.put(slot))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes, in the middle of their tasks where one is not to wait."""
        for slot in self._slots:
            slot.end(wait=wait and not cancel_futures)


class _Slot:
    """A pool of one process, which is replaced when it dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        end, self._leash = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, initializer=_on_leash, initargs=(end,))

    def submit(self, fn: Callable[..., Result], *args: Any, **kwargs: Any) -> Future[Result]:
        with _interrupts_waiting():  # which would reach a process that is just being made
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenProcessPool:  # it died after its last task
                self.end(wait=False)
                self._start()
                return self._pool.submit(fn, *args, **kwargs)

    def end(self, *, wait: bool) -> None:
        if wait:
            self._pool.shutdown()
        self._leash.close()
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Ctrl-C waits till the end of this; processes made in it never hear it.

    A terminal sends it to all of them, and one that is still loading would answer in its own words.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_leash(end: Connection) -> None:
    """Make this process end when the other end of a pipe is closed, by whatever happens there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one

    def watch() -> None:
        with suppress(OSError):
            end.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Worker processes on this computer, which an error or Ctrl-C ends at once."""
    executor = Processes(workers)
    try:
        yield executor
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of a Dask scheduler; raises UsageError if it is not there."""
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(
            'Dask is not installed. Type: python -m pip install "quantal[dask]", there and here.'
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address} ({error}); start one with: dask scheduler"
        ) from None
    try:
        executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)  # what is not done yet is not wanted any more
    finally:
        client.close()
