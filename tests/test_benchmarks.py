"""Benchmarks of speed, in small: that they run, and what they say of what they measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.encode import KINDS, made_texts, measure, shown


def test_every_way_of_embedding_has_its_time(tiny_bert: Path) -> None:
    found = measure(str(tiny_bert), texts=6, words=12, domains=2, rounds=2)
    ways = list(found["seconds"])
    assert ways[0] == "sentence-transformers, float32"
    assert len(ways) == 1 + len(found["gflops"]) * (1 + 2 * len(KINDS))
    assert all(len(each) == 2 and min(each) > 0 for each in found["seconds"].values())
    table = shown(found).splitlines()
    assert table[2].endswith("| 1.00 |")
    assert len(table) == len(ways) + 4


def test_texts_are_the_same_each_time_and_no_two_lengths_the_rule() -> None:
    texts = made_texts(50, 40)
    assert texts == made_texts(50, 40)
    assert {len(text.split()) for text in texts} <= set(range(8, 41))
    assert len({len(text.split()) for text in texts}) > 15
