"""`undertow stress NAME --shards`: the same numbers, whoever holds the accounts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Typed = Callable[..., tuple[int, str, str]]
DEMO = ("2020-03-12", "--world", "demo", "--seed", 3)


@pytest.mark.parametrize("who", [(), ("--workers", "threads:2")], ids=["serial", "threads"])
def test_a_divided_book_tells_the_same(typed: Typed, who: tuple[str, ...]) -> None:
    code, whole, err = typed(*DEMO, "--check", "--json")
    assert code == 0, err
    code, divided, err = typed(*DEMO, "--check", "--json", "--shards", 3, *who)
    assert code == 0, err
    assert json.loads(divided) == json.loads(whole)
    assert json.loads(whole)["accounts"] > 100


def test_a_divided_book_leaves_the_same_trace_by_round_and_account(typed: Typed) -> None:
    _, whole, _ = typed(*DEMO, "--trace", "-")
    _, divided, _ = typed(*DEMO, "--trace", "-", "--shards", 2)
    assert sorted(divided.splitlines()) == sorted(whole.splitlines())
    assert len(whole.splitlines()) > 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "threads:2"), "--workers was 'threads:2', but the accounts are not divided"),
        (("--shards", 2, "--workers", "somewhere"), "executor was 'somewhere'; it is serial"),
        (("--shards", 0), "Invalid value for '--shards'"),
    ],
)
def test_what_cannot_be_divided_is_said(typed: Typed, words: tuple[object, ...], said: str) -> None:
    code, out, err = typed("fall.toml", "--world", "tiny", *words)
    assert code == 2
    assert out == ""
    assert said in " ".join(err.split())
