"""A graph of causes, and the heaviest chains through it.

Every node that has causes divides what is laid on it among them by weight; what has none is a root.
What is laid on a node may go round a circle of claims: then it is what comes to rest, and chains
are those that pass no node twice.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csc_array, identity
from scipy.sparse.linalg import splu

_POPS = 50_000  # partial chains that are looked at for one end
_LEAST = 1e-12  # share of a node's causes that is rounding


class Node(NamedTuple):
    """Something that happened: what sort of thing, to what, in which pass and round."""

    kind: str
    name: str
    passed: int = -1
    round: int = -1


class Cause(NamedTuple):
    """What is behind a node: another, by which channel, and how heavily."""

    source: Node
    weight: float
    channel: str = ""


class Chain(NamedTuple):
    """From a root to an end: the nodes in order, and the share of the end that it explains."""

    nodes: tuple[Node, ...]
    share: float


UNTOLD = Node("untold", "")


@dataclass(frozen=True, eq=False)
class Trails:
    """Who is behind what, and how much was lost at the ends."""

    causes: Mapping[Node, Sequence[Cause]]
    ends: Mapping[Node, float]  # USD
    cut_short: set[Node] = field(default_factory=set)  # ends whose chains were not all looked at

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, in an order that does not hang on how they were found."""
        found = set(self.behind) | set(self.ends)
        found |= {each.source for some in self.behind.values() for each in some}
        return tuple(sorted(found))

    @cached_property
    def _told(self) -> dict[Node, list[Cause]]:
        """Causes as they were given, without rounding, each source once."""
        found: dict[Node, list[Cause]] = {}
        for node, some in self.causes.items():
            whole = sum(max(each.weight, 0.0) for each in some)
            joined: dict[tuple[Node, str], float] = {}
            for each in some:
                if each.weight > _LEAST * whole and each.source != node:
                    key = each.source, each.channel
                    joined[key] = joined.get(key, 0.0) + each.weight
            found[node] = [Cause(s, w, c) for (s, c), w in sorted(joined.items())]
        return found

    @cached_property
    def _lost(self) -> frozenset[Node]:
        """Nodes behind which no root stands: circles that nothing leads into."""
        after: dict[Node, list[Node]] = {}
        for node, some in self._told.items():
            for each in some:
                after.setdefault(each.source, []).append(node)
        everything = set(self._told) | set(self.ends) | set(after)
        waiting = [node for node in everything if node not in self._told]
        reached = set(waiting)
        while waiting:
            for node in after.get(waiting.pop(), ()):
                if node not in reached:
                    reached.add(node)
                    waiting.append(node)
        return frozenset(everything - reached)

    @cached_property
    def behind(self) -> dict[Node, list[Cause]]:
        """By node, its causes by share; they add up to 1. Roots are left out."""
        found: dict[Node, list[Cause]] = {}
        for node, some in self._told.items():
            if not some or node in self._lost:
                found[node] = [Cause(UNTOLD, 1.0)]
                continue
            whole = sum(each.weight for each in some)
            found[node] = [each._replace(weight=each.weight / whole) for each in some]
        return found

    @cached_property
    def through(self) -> dict[Node, float]:
        """USD of the losses at the ends that leads through each node."""
        return self.through_from(self.ends)

    def through_from(self, ends: Mapping[Node, float]) -> dict[Node, float]:
        """USD of losses at some ends that leads through each node."""
        laid = np.zeros(len(self.nodes))
        for node, usd in ends.items():
            laid[self._at[node]] += usd
        if not len(laid):
            return {}
        rest = self._rests.solve(laid)
        return {node: float(rest[place]) for node, place in self._at.items()}

    @cached_property
    def _at(self) -> dict[Node, int]:
        return {node: place for place, node in enumerate(self.nodes)}

    @cached_property
    def _rests(self) -> Any:
        """What is laid on nodes to what rests on them, factored once for all ends."""
        rows, columns, shares = [], [], []
        for node, some in self.behind.items():
            for each in some:
                rows.append(self._at[each.source])
                columns.append(self._at[node])
                shares.append(each.weight)
        size = len(self.nodes)
        passed = csc_array((shares, (rows, columns)), shape=(size, size))
        return splu(csc_array(identity(size, format="csc") - passed))

    def roots(self, end: Node) -> dict[Node, float]:
        """What of one end comes from each root; the values add up to what was lost there."""
        found = self.through_from({end: self.ends[end]})
        return {node: usd for node, usd in found.items() if node not in self.behind and usd > 0.0}

    @cached_property
    def _hope(self) -> dict[Node, float]:
        """By node, the share that the best chain from any root to it keeps, as −log."""
        after: dict[Node, list[tuple[Node, float]]] = {}
        for node, some in self.behind.items():
            for each in some:
                after.setdefault(each.source, []).append((node, -math.log(each.weight)))
        found = {node: 0.0 for node in self.nodes if node not in self.behind}
        heap = [(0.0, node) for node in sorted(found)]
        heapq.heapify(heap)
        done: set[Node] = set()
        while heap:
            far, node = heapq.heappop(heap)
            if node in done:
                continue
            done.add(node)
            for target, step in after.get(node, ()):
                if far + step < found.get(target, math.inf):
                    found[target] = far + step
                    heapq.heappush(heap, (far + step, target))
        return found

    def chains(self, end: Node, most: int) -> list[Chain]:
        """The heaviest chains from a root to an end, the heaviest first; of equals by name.

        Searched backwards from the end by what is kept so far and the best that can be hoped for
        (A*), so the first found is the heaviest, and so on. Ends at which the search ran out of
        patience are in `cut_short`.
        """
        tick = itertools.count()
        heap: list[tuple[float, tuple[Node, ...], int, float]]
        heap = [(self._hope.get(end, math.inf), (end,), next(tick), 0.0)]
        found: list[Chain] = []
        pops = 0
        while heap and len(found) < most and pops < _POPS:
            _, path, _, kept = heapq.heappop(heap)
            pops += 1
            first = path[0]
            if first not in self.behind:
                found.append(Chain(path, math.exp(-kept)))
                continue
            for each in self.behind[first]:
                hope = self._hope.get(each.source, math.inf)
                if each.source in path or not math.isfinite(hope):
                    continue
                far = kept - math.log(each.weight)
                heapq.heappush(heap, (far + hope, (each.source, *path), next(tick), far))
        if heap and len(found) < most:
            self.cut_short.add(end)
        return found
