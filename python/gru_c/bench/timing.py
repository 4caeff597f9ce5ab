"""Timing: the candidates of a cell take turns in short bursts, so that noise and clock rates meet all of them alike.
Must not know what it times. Nothing is subtracted: loops and the clock cost everyone the same.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np

Call = Callable[[], object]

BURST_SECONDS: Final = 0.0005
# Worker threads of OpenMP spin after their work is done (PyTorch's and gru_c's for 10 ms on a Zen 4, more where a pause
# is longer), on the cores that the next candidate's threads need: wait until they sleep, and make the turns longer.
SETTLE_SECONDS: Final = 0.025
THREADED_BURST_SECONDS: Final = 0.005
MIN_ROUNDS: Final = 5
INTERLUDES: Final = 8
P99_CALLS: Final = 100  # fewer calls have no 99th percentile


@dataclass(frozen=True)
class Summary:
    """Seconds of one call. The median is over bursts (or calls, where a burst is one), p99 over single calls."""

    median: float
    best: float
    p99: float | None  # None: fewer than P99_CALLS calls
    bursts: int
    calls_in_a_burst: int
    single_calls: int


@dataclass
class _Turns:
    call: Call
    calls: int
    bursts: list[float] = field(default_factory=list)
    singles: list[int] = field(default_factory=list)

    def take(self) -> None:
        call, calls, clock = self.call, self.calls, time.perf_counter_ns
        for _ in repeat(None, 1 + calls // 8):  # brings code and weights back into the caches; not timed
            call()
        if calls > 1:
            begin = clock()
            for _ in repeat(None, calls):
                call()
            self.bursts.append((clock() - begin) * 1e-9 / calls)
        for _ in repeat(None, calls):
            begin = clock()
            call()
            self.singles.append(clock() - begin)
        if calls == 1:
            self.bursts.append(self.singles[-1] * 1e-9)

    def summary(self) -> Summary:
        enough = len(self.singles) >= P99_CALLS
        p99 = float(np.percentile(self.singles, 99)) * 1e-9 if enough else None
        median, best = float(np.median(self.bursts)), min(self.bursts)
        return Summary(median, best, p99, len(self.bursts), self.calls, len(self.singles))


def _turns(call: Call, burst_seconds: float) -> _Turns:
    """How many calls fill a burst, by the fastest of a few."""
    once = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        call()
        once = min(once, time.perf_counter() - begin)
        if once > burst_seconds:
            break
    return _Turns(call, max(1, int(burst_seconds / max(once, 1e-8))))


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def take_turns(
    calls: Mapping[str, Call], seconds: float, *, threaded: bool = False, between: Call = lambda: None
) -> dict[str, Summary]:
    """Times the calls for about `seconds` each, round by round and every other round backwards.

    Args:
        calls: name -> what to time.
        seconds: at least MIN_ROUNDS rounds are made, however short this is.
        threaded: whether the calls use threads that may spin after a call is over.
        between: called INTERLUDES times or more, spread over the rounds.
    """
    with no_garbage_collection():
        burst = THREADED_BURST_SECONDS if threaded else BURST_SECONDS
        turns = {name: _turns(call, burst) for name, call in calls.items()}
        order = list(turns.values())
        start, next_between, rounds = time.perf_counter(), 0.0, 0
        total = seconds * len(calls)
        while rounds < MIN_ROUNDS or time.perf_counter() - start < total:
            if rounds < MIN_ROUNDS or time.perf_counter() - start >= next_between:
                between()
                next_between = time.perf_counter() - start + total / INTERLUDES
            for one in order:
                if threaded:
                    time.sleep(SETTLE_SECONDS)
                one.take()
            order.reverse()
            rounds += 1
        return {name: one.summary() for name, one in turns.items()}


class Others:
    """How much of the cores that this process may use went to others since it was made; by Linux, None elsewhere."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._busy = _busy_with_others()

    def cores(self) -> float | None:
        busy = _busy_with_others()
        if busy is None or self._busy is None:
            return None
        return max(0.0, busy - self._busy) / (time.perf_counter() - self._begin)


def _busy_with_others() -> float | None:
    """Seconds of our cores so far that were neither idle nor our own; in ticks of 10 ms."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for name, *counts in map(str.split, lines):
        if name in ours:
            user, nice, system, _idle, _waiting, irq, softirq, stolen = map(int, counts[:8])
            ticks += user + nice + system + irq + softirq + stolen
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def clock_cost(readings: int = 10001) -> float:
    """Seconds between two readings of the clock with nothing in between: what a single call's time holds too much."""
    clock = time.perf_counter_ns
    found = []
    for _ in repeat(None, readings):
        begin = clock()
        found.append(clock() - begin)
    return float(np.mean(found)) * 1e-9
