"""Differences: all are counted, the first of each kind are described."""

from __future__ import annotations

from btc_assets.ops.differences import Differences


def test_the_first_of_each_kind_are_described() -> None:
    found = Differences()
    for number in range(30):
        found.add("missing", f"{number} is missing")
    found.add("stray", "x is a stray")
    assert found.counts == {"missing": 30, "stray": 1}
    assert found.sentences == [*(f"{number} is missing" for number in range(20)), "x is a stray"]


def test_a_first_sentence_about_many_is_kept() -> None:
    found = Differences()
    found.add("behind", "288 slices are behind", 288)
    found.add("behind", "12 more are behind", 12)
    assert (found.counts, found.sentences) == ({"behind": 300}, ["288 slices are behind"])
