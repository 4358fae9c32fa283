"""Collections that share data."""

from __future__ import annotations

import pytest

from foreword.collections.registry import overlap, parts


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("beir/nq", "beir/nq", True),
        ("beir/nq", "dpr/nq", False),
        ("glasgow/cisi#fold1of5", "glasgow/cisi", True),
        ("glasgow/cisi#fold1of5", "glasgow/cisi#fold2of5", True),
        ("beir/cqadupstack", "cqadupstack/unix", True),
        ("cqadupstack/tex", "cqadupstack/unix", False),
        ("oag-qa-disciplines/algebra", "oag-qa/polynomial", True),
        ("oag-qa-disciplines/algebra", "oag-qa/calculus", False),
        ("oag-qa-disciplines/algebra", "oag-qa-disciplines/calculus", False),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_parts() -> None:
    assert len(parts("beir/cqadupstack")) == 12
    assert parts("oag-qa-disciplines/algebra") == {"oag-qa/algebra", "oag-qa/polynomial"}
    assert parts("folder:/a/b") == {"folder:/a/b"}
