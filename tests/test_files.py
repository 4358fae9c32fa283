"""Records of what was made from what, and their digests."""

from pathlib import Path

import pytest

from foreword.errors import DataError
from foreword.files import as_json, json_digest, kept_json, read_json, write_json


def test_a_record_read_back_equals_what_it_was_written_from(tmp_path: Path) -> None:
    value = {"lengths": (32, 256), "by": {1: "one"}, "path": tmp_path}
    write_json(tmp_path / "record.json", as_json(value))
    assert kept_json(tmp_path / "record.json") == read_json(tmp_path / "record.json") == as_json(value)
    assert as_json(value) == {"lengths": [32, 256], "by": {"1": "one"}, "path": str(tmp_path)}


def test_a_missing_or_broken_record_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    (tmp_path / "odd.json").write_bytes(b'{"a": "\xff"}')
    assert [kept_json(tmp_path / name) for name in ("none.json", "cut.json", "odd.json")] == [None, None, None]
    with pytest.raises(DataError, match=r"cut\.json: broken JSON .*; make it again"):
        read_json(tmp_path / "cut.json", "make it again")


def test_equal_values_have_one_digest() -> None:
    assert json_digest({"b": 1, "a": (2, 3)}) == json_digest({"a": [2, 3], "b": 1})
    assert json_digest([1]) == "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22"
