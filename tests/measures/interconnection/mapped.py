"""The dependency map of the demo world, built once for all who look at it."""

from __future__ import annotations

from functools import cache

from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.surveying import survey
from undertow.worlds import World, demo_world


@cache
def mapped_world() -> World:
    return demo_world()


@cache
def demo_map() -> DependencyMap:
    return survey(mapped_world().snapshot())


@cache
def demo_backing() -> Backing:
    return Backing.of(demo_map())
