"""One cell measured: candidates made, checked against the reference, timed in turns beside the machine's own limits.
Must not print; what it finds is a Row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from gru_c.bench.candidates import OWN, OWN_ALONE, Candidate, Peer, check, own_candidates, problem, references
from gru_c.bench.cells import Cell
from gru_c.bench.limits import Limits, Machine, floor, working_set
from gru_c.bench.timing import Others, Summary, take_turns


@dataclass(frozen=True)
class Row:
    """What was found for one cell."""

    cell: Cell
    times: Mapping[str, Summary]  # candidate -> seconds of a call
    differences: Mapping[str, float]  # candidate -> the largest from the reference
    beside: frozenset[str]  # the candidates that are shown, but are no peers
    floor: float  # seconds
    limits: Mapping[str, float]
    others: float | None  # cores that other processes took meanwhile; None: unknown

    @property
    def own(self) -> Summary:
        return self.times[OWN]

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """The fastest peer, and its time as a multiple of gru_c's."""
        peers = {name: one.median for name, one in self.times.items() if name != OWN and name not in self.beside}
        if not peers:
            return None
        best = min(peers, key=lambda name: peers[name])
        return best, peers[best] / self.own.median

    @property
    def of_floor(self) -> float:
        """How much of what the machine allows gru_c reaches: the floor as a part of its time."""
        return self.floor / self.own.median

    def as_dict(self) -> dict[str, object]:
        cell = {name: value for name, value in asdict(self.cell).items() if name not in ("label", "work")}
        best = self.best_peer
        return {
            "name": self.cell.name,
            "cell": cell | {"flops": self.cell.flops},
            "seconds": {name: asdict(summary) for name, summary in self.times.items()},
            "beside": sorted(self.beside),
            "differences": dict(self.differences),
            "best_peer": None if best is None else {"name": best[0], "times_gru_c": best[1]},
            "floor_seconds": self.floor,
            "of_floor": self.of_floor,
            "limits": dict(self.limits),
            "cores_taken_by_others": self.others,
        }


def measure(cell: Cell, peers: Mapping[str, Peer], machine: Machine, isa: str, seconds: float) -> Row:
    """Times every candidate for about `seconds`.

    Raises:
        WrongAnswer: an output differs; nothing of this cell was timed then.
    """
    given = problem(cell)
    right = references(given)
    with contextlib.ExitStack() as stack:
        candidates: list[Candidate] = own_candidates(given)
        for peer in peers.values():
            stack.enter_context(peer.prepared(cell.threads))
            candidates += peer.candidates(given)
        differences = {one.name: check(given, one, right) for one in candidates}
        limits = Limits(machine, isa, working_set(cell))
        calls = {one.name: one.call for one in candidates}
        others = Others()
        times = take_turns(calls, seconds, threaded=cell.threads > 1, between=limits.sample)
        taken = others.cores()
    beside = frozenset(one.name for one in candidates if one.beside)
    least = floor(cell, limits.rate, limits.bandwidth)
    return Row(cell, times, differences, beside, least, limits.as_dict(), taken)


def scaling(rows: list[Row]) -> list[tuple[str, int, dict[str, float]]]:
    """For each work that was measured on one thread and on more: (work, threads, candidate -> times as fast)."""
    alone = {row.cell.work: row for row in rows if row.cell.threads == 1}
    found = []
    for row in rows:
        base = alone.get(row.cell.work)
        if row.cell.threads > 1 and base is not None:
            gains = {
                name: base.times[name].median / one.median for name, one in row.times.items() if name in base.times
            }
            if OWN_ALONE in row.times:
                gains[OWN] = row.times[OWN_ALONE].median / row.own.median
            found.append((row.cell.work, row.cell.threads, gains))
    return found


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
