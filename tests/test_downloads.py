"""Downloads from a server on this machine that fails in every way; archives made to do harm."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from webserver import (
    cut,
    no_etag,
    no_if_range,
    no_length,
    no_ranges,
    redirect,
    serve,
    stall,
    status,
    wrong_bytes,
    wrong_length,
)

from foreword.downloads import Resource, Transport, data_folder, fetch, fetch_folder, locked
from foreword.downloads.places import record_file
from foreword.errors import DataError

CONTENT = random.Random(0).randbytes(1000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FAST = Transport(pause=0, quiet=True)


@pytest.fixture
def site():
    with serve({"/file.bin": CONTENT}) as running:
        yield running


def resource(*urls, **known):
    return Resource("family/file.bin", urls, **known)


def at(site, **known):
    return resource(f"{site.url}/file.bin", **known)


def ranges(site):
    return [request.headers.get("range") for request in site.requests]


def sent(site):
    return [request.sent for request in site.requests]


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


# --- what is verified and recorded


@pytest.mark.parametrize("known", [{}, {"md5": MD5}, {"sha256": SHA256}, {"size": 1000, "md5": MD5}])
def test_a_file_is_downloaded_once(site, tmp_path, known):
    path = fetch(at(site, **known), tmp_path)
    assert path == tmp_path / "family" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(at(site, **known), tmp_path) == path
    assert len(site.requests) == 1
    assert files(tmp_path) == [".records/family/file.bin.json", "family/file.bin"]
    record = json.loads(record_file(tmp_path, "family/file.bin").read_text())
    assert (record["size"], record["md5"], record["sha256"]) == (1000, MD5, SHA256)
    assert record["url"] == f"{site.url}/file.bin"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"md5": "0" * 32}, f"wrong bytes: md5 {MD5}, expected {'0' * 32}"),
        ({"sha256": "0" * 64}, f"wrong bytes: sha256 {SHA256}, expected"),
        ({"size": 999}, "it has 1000 bytes there, expected 999"),
    ],
)
def test_wrong_bytes_are_refused(site, tmp_path, known, message):
    with pytest.raises(DataError, match=message) as raised:
        fetch(at(site, **known), tmp_path, FAST)
    assert f"put it at {tmp_path / 'family' / 'file.bin'}" in str(raised.value)
    assert len(site.requests) == 1  # the same bytes would come again
    assert files(tmp_path) == []


def test_a_size_without_a_length_from_the_server(site, tmp_path):
    site.faults["/file.bin"] = no_length()
    with pytest.raises(DataError, match="sends more than the 900 bytes expected"):
        fetch(at(site, size=900), tmp_path, FAST)
    assert fetch(at(site, size=1000), tmp_path, FAST).read_bytes() == CONTENT


def test_the_first_download_is_remembered_when_the_file_is_deleted(site, tmp_path):
    fetch(at(site), tmp_path).unlink()
    fetch(at(site), tmp_path).unlink()
    site.files = {"/file.bin": CONTENT[::-1]}
    with pytest.raises(DataError, match=f"expected {SHA256} .*delete the record") as raised:
        fetch(at(site), tmp_path)
    record = record_file(tmp_path, "family/file.bin")
    assert str(record) in str(raised.value)
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in str(raised.value)
    assert files(tmp_path) == [".records/family/file.bin.json"]
    record.unlink()
    assert fetch(at(site), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_known_hash_counts_more_than_the_record(site, tmp_path):
    fetch(at(site), tmp_path).unlink()
    site.files = {"/file.bin": b"a new release"}
    new = at(site, md5=hashlib.md5(b"a new release").hexdigest())
    assert fetch(new, tmp_path).read_bytes() == b"a new release"


def test_files_put_by_hand_are_verified(site, tmp_path):
    path = tmp_path / "family" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(b"other")
    with pytest.raises(DataError, match=f"file.bin: wrong bytes: md5 .*expected {MD5}.*move this file away"):
        fetch(at(site, md5=MD5), tmp_path)
    assert path.read_bytes() == b"other"
    path.write_bytes(CONTENT)
    fetch(at(site, md5=MD5), tmp_path)
    path.write_bytes(b"changed")  # after it was recorded, by some other program
    with pytest.raises(DataError, match=f"other bytes than at the first download.*expected {SHA256}"):
        fetch(at(site), tmp_path)
    assert site.requests == []


def test_broken_records_say_so(site, tmp_path):
    fetch(at(site), tmp_path)
    record_file(tmp_path, "family/file.bin").write_text("{")
    with pytest.raises(DataError, match=r"file\.bin\.json: .*delete it"):
        fetch(at(site), tmp_path)


@pytest.mark.parametrize("name", ["", "/abs", "../up", "a/../../b", "a\\b"])
def test_names_stay_below_the_data_folder(name):
    with pytest.raises(DataError, match="a path below the data folder"):
        Resource(name, ())


def test_hashes_and_settings_are_checked():
    with pytest.raises(DataError, match="md5 is 32 lower-case hexadecimal digits, got 'abc'"):
        Resource("a", (), md5="abc")
    with pytest.raises(DataError, match="tries >= 1"):
        Transport(tries=0)


# --- connections that are cut


@pytest.mark.parametrize("known", [{}, {"md5": MD5}])
def test_a_cut_download_goes_on_where_it_was_cut(site, tmp_path, known):
    site.faults["/file.bin"] = [cut(300)]
    assert fetch(at(site, **known), tmp_path, FAST).read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=300-"]
    assert sent(site) == [300, 700]
    assert site.requests[1].headers["if-range"] == f'"{MD5}"'
    assert files(tmp_path) == [".records/family/file.bin.json", "family/file.bin"]


def test_cut_in_every_request_but_always_further(site, tmp_path):
    site.faults["/file.bin"] = cut(150)
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    assert ranges(site) == [None, *(f"bytes={start}-" for start in range(150, 1000, 150))]


def test_cut_in_every_request_at_the_same_place(site, tmp_path):
    site.faults["/file.bin"] = cut(300) + no_ranges()
    with pytest.raises(DataError, match="300 of 1000 bytes came"):
        fetch(at(site), tmp_path, FAST)
    assert len(site.requests) == 1 + FAST.tries


def test_a_part_is_continued_by_a_later_call(site, tmp_path):
    site.faults["/file.bin"] = [cut(400), *[cut(0)] * FAST.tries]
    with pytest.raises(DataError, match=r"400 of 1000 bytes came(.|\n)*kept in .*file\.bin\.part"):
        fetch(at(site), tmp_path, FAST)
    assert (tmp_path / "family" / "file.bin.part").read_bytes() == CONTENT[:400]
    site.requests.clear()
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    assert (ranges(site), sent(site)) == (["bytes=400-"], [600])


def test_a_part_is_continued_after_the_process_was_killed(site, tmp_path):
    site.faults["/file.bin"] = [stall(600)]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), f"{site.url}/file.bin"])
    part = tmp_path / "family" / "file.bin.part"
    while not (part.exists() and part.stat().st_size == 600):
        assert child.poll() is None
    child.kill()
    child.wait()
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=600-"]


def test_a_whole_part_needs_no_request(site, tmp_path):
    site.faults["/file.bin"] = [cut(400), *[cut(0)] * FAST.tries]
    with pytest.raises(DataError):
        fetch(at(site), tmp_path, FAST)
    (tmp_path / "family" / "file.bin.part").write_bytes(CONTENT)  # as if it was killed before it was renamed
    site.requests.clear()
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    assert site.requests == []


def test_a_server_that_ignores_ranges_starts_again(site, tmp_path):
    site.faults["/file.bin"] = [cut(300), no_ranges()]
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    assert (ranges(site), sent(site)) == ([None, "bytes=300-"], [300, 1000])


@pytest.mark.parametrize("size", [1000, 1500, 200])
@pytest.mark.parametrize("fault", [cut(300), cut(300) + no_etag()])
def test_a_file_that_changed_is_taken_from_its_start(site, tmp_path, size, fault):
    """Without an ETag the size must tell; with neither, nothing can, unless a hash is known."""
    site.faults["/file.bin"] = [fault, *[cut(0)] * FAST.tries]
    with pytest.raises(DataError):
        fetch(at(site), tmp_path, FAST)
    changed = random.Random(1).randbytes(size)
    site.files = {"/file.bin": changed}
    blind = fault == cut(300) + no_etag()
    site.faults["/file.bin"] = no_etag() if blind else []
    known = {"md5": hashlib.md5(changed).hexdigest()} if blind and size == 1000 else {}
    assert fetch(at(site, **known), tmp_path, FAST).read_bytes() == changed


def test_a_change_is_noticed_though_the_server_ignores_if_range(site, tmp_path):
    site.faults["/file.bin"] = [cut(300), *[cut(0)] * FAST.tries]
    with pytest.raises(DataError):
        fetch(at(site), tmp_path, FAST)
    changed = random.Random(1).randbytes(1000)
    site.files, site.faults["/file.bin"] = {"/file.bin": changed}, no_if_range()
    site.requests.clear()
    assert fetch(at(site), tmp_path, FAST).read_bytes() == changed
    assert [request.status for request in site.requests] == [206, 200]


def test_wrong_bytes_on_a_resumed_file_have_one_fresh_try(site, tmp_path):
    site.faults["/file.bin"] = [cut(300), wrong_bytes()]
    assert fetch(at(site, md5=MD5), tmp_path, FAST).read_bytes() == CONTENT
    assert (ranges(site), sent(site)) == ([None, "bytes=300-", None], [300, 700, 1000])
    site.requests.clear()
    site.faults["/file.bin"] = [cut(300), *[wrong_bytes()] * 2]
    with pytest.raises(DataError, match="wrong bytes: md5"):
        fetch(at(site, md5=MD5), tmp_path / "other", FAST)
    assert len(site.requests) == 3
    assert not list((tmp_path / "other").rglob("*.part"))


def test_a_length_that_promises_more_than_comes(site, tmp_path):
    site.faults["/file.bin"] = wrong_length(10)
    with pytest.raises(DataError, match=r"came|promised 1010"):
        fetch(at(site), tmp_path, FAST)
    assert not (tmp_path / "family" / "file.bin").exists()


def test_a_length_that_promises_less_than_there_is(site, tmp_path):
    site.faults["/file.bin"] = wrong_length(-10)
    with pytest.raises(DataError, match="wrong bytes: md5"):
        fetch(at(site, md5=MD5), tmp_path, FAST)


def test_a_server_that_falls_silent_is_given_up(site, tmp_path):
    site.faults["/file.bin"] = [stall(300)]
    assert fetch(at(site), tmp_path, Transport(pause=0, timeout=0.2)).read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=300-"]


# --- answers other than the file


def test_redirects_are_followed_to_an_end(site, tmp_path):
    site.faults["/moved"] = redirect("/file.bin")
    site.faults["/circle"] = redirect("/circle")
    assert fetch(resource(f"{site.url}/moved", md5=MD5), tmp_path, FAST).read_bytes() == CONTENT
    with pytest.raises(DataError, match="circle: it redirects more than 10 times"):
        fetch(Resource("other", (f"{site.url}/circle",)), tmp_path, FAST)
    assert len(site.to("/circle")) == 11


def test_a_redirected_download_is_resumed(site, tmp_path):
    site.faults = {"/moved": redirect("/file.bin"), "/file.bin": [cut(300)]}
    assert fetch(resource(f"{site.url}/moved"), tmp_path, FAST).read_bytes() == CONTENT
    assert [request.headers.get("range") for request in site.to("/file.bin")] == [None, "bytes=300-"]


def test_not_found_is_final(site, tmp_path):
    with pytest.raises(DataError, match=r"/none: 404 Not Found\nGet it by hand and put it at"):
        fetch(resource(f"{site.url}/none"), tmp_path, FAST)
    assert len(site.requests) == 1
    assert files(tmp_path) == []


def test_overload_passes(site, tmp_path):
    site.faults["/file.bin"] = [status(503, retry_after="0"), status(429), status(502)]
    assert fetch(at(site), tmp_path, FAST).read_bytes() == CONTENT
    site.faults["/file.bin"] = status(503)
    with pytest.raises(DataError, match="503 Service Unavailable"):
        fetch(Resource("again", (f"{site.url}/file.bin",)), tmp_path, FAST)
    assert len(site.requests) == 4 + FAST.tries


def test_pauses_double_and_the_server_may_ask_for_longer_ones(site, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    site.faults["/file.bin"] = [status(503), status(503, retry_after="7"), status(503, retry_after="9999")]
    fetch(at(site), tmp_path, Transport())
    assert waited == [1, 7, 30]
    site.faults["/file.bin"] = status(503)
    with pytest.raises(DataError):
        fetch(Resource("again", (f"{site.url}/file.bin",)), tmp_path, Transport())
    assert waited[3:] == [1, 2, 4]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/file.bin", "refused"),
        ("ftp://127.0.0.1/file.bin", "protocol"),
        ("http://[/file.bin", "."),
        ("file://elsewhere/file.bin", "on another machine"),
        ("file:///no/such/file.bin", "No such file"),
    ],
)
def test_addresses_that_lead_nowhere(tmp_path, url, reason):
    with pytest.raises(DataError, match=f"(?i){reason}"):
        fetch(resource(url), tmp_path, FAST)


# --- mirrors, offline, disk


def test_the_first_place_that_has_the_file_gives_it(site, tmp_path, monkeypatch, caplog):
    site.files = {"/second/file.bin": CONTENT, "/own": CONTENT}
    monkeypatch.setenv("FOREWORD_MIRRORS", f" {site.url}/third {site.url}/second ")
    transport = Transport(mirrors=(f"{site.url}/first/",), pause=0)
    with caplog.at_level(logging.WARNING):
        assert fetch(resource(f"{site.url}/own", md5=MD5), tmp_path, transport).read_bytes() == CONTENT
    assert [request.path for request in site.requests] == ["/first/file.bin", "/third/file.bin", "/second/file.bin"]
    assert [record.getMessage() for record in caplog.records] == [
        f"family/file.bin was not to be had from {site.url}/{place}/file.bin: 404 Not Found"
        for place in ("first", "third")
    ]


def test_every_place_is_listed_with_its_reason(site, tmp_path):
    site.faults = {"/a/file.bin": status(403), "/file.bin": wrong_bytes()}
    with pytest.raises(DataError) as raised:
        fetch(at(site, md5=MD5), tmp_path, Transport(mirrors=(f"{site.url}/a", f"{site.url}/b"), pause=0))
    lines = str(raised.value).splitlines()
    assert lines[0] == "family/file.bin could not be downloaded:"
    assert lines[1] == f"  {site.url}/a/file.bin: 403 Forbidden"
    assert lines[2] == f"  {site.url}/b/file.bin: 404 Not Found"
    assert lines[3].startswith(f"  {site.url}/file.bin: wrong bytes: md5 ")
    assert "FOREWORD_MIRRORS" in lines[4]


@pytest.mark.parametrize(("known", "asked"), [({"md5": MD5}, "bytes=300-"), ({}, None)])
def test_a_part_from_a_mirror_is_continued_elsewhere_if_a_hash_will_tell(site, tmp_path, known, asked):
    site.files = {"/a/file.bin": CONTENT, "/file.bin": CONTENT}
    site.faults["/a/file.bin"] = [cut(300), *[cut(0)] * FAST.tries]
    transport = Transport(mirrors=(f"{site.url}/a",), pause=0)
    assert fetch(at(site, **known), tmp_path, transport).read_bytes() == CONTENT
    assert [request.headers.get("range") for request in site.to("/file.bin")] == [asked]


def test_a_local_mirror(tmp_path):
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / "file.bin").write_bytes(CONTENT)
    transport = Transport(mirrors=(mirror.as_uri(),), offline=True)
    assert fetch(resource(md5=MD5), tmp_path / "data", transport).read_bytes() == CONTENT
    with pytest.raises(DataError, match="it has 1000 bytes there, expected 5"):
        fetch(Resource("b/file.bin", (), size=5), tmp_path / "data", transport)


def test_a_file_without_an_address(tmp_path):
    with pytest.raises(DataError, match=r"family/file\.bin has no known address"):
        fetch(resource(), tmp_path)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline(site, tmp_path, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv("FOREWORD_OFFLINE", "1")
    transport = Transport(offline=by == "argument")
    with pytest.raises(DataError, match="offline mode") as raised:
        fetch(at(site), tmp_path, transport)
    assert f"looked for {tmp_path / 'family' / 'file.bin'}" in str(raised.value)
    assert f"It is at {site.url}/file.bin" in str(raised.value)
    assert site.requests == []
    (tmp_path / "family").mkdir(exist_ok=True)
    (tmp_path / "family" / "file.bin").write_bytes(CONTENT)
    assert fetch(at(site, md5=MD5), tmp_path, transport).read_bytes() == CONTENT


def test_another_packages_offline_mode_is_not_ours(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FOREWORD_OFFLINE", "0")
    fetch(at(site), tmp_path)


@pytest.mark.parametrize(("known", "requests"), [({"size": 1000}, 0), ({}, 1)])
def test_a_full_disk_is_noticed_before(site, tmp_path, monkeypatch, known, requests):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1049))
    with pytest.raises(DataError, match=r"needs 1,050 bytes, 1,049 are free in .*FOREWORD_DATA"):
        fetch(at(site, **known), tmp_path, FAST)
    assert len(site.requests) == requests
    assert files(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1050))
    fetch(at(site, **known), tmp_path, FAST)


def test_a_folder_that_cannot_be_made(site, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written or read .*choose another data folder"):
        fetch(at(site), tmp_path / "data")


# --- two processes

CHILD = """
import sys
from pathlib import Path
from foreword.downloads import Resource, Transport, fetch
fetch(Resource("family/file.bin", (sys.argv[2],)), Path(sys.argv[1]), Transport(quiet=True))
"""


def test_two_processes_download_once(tmp_path):
    with serve({"/file.bin": random.Random(2).randbytes(5_000_000)}) as site:
        command = [sys.executable, "-c", CHILD, str(tmp_path), f"{site.url}/file.bin"]
        with locked(tmp_path, "family/file.bin"):  # both have to wait, so that they meet
            children = [subprocess.Popen(command, env=os.environ | {"FOREWORD_OFFLINE": ""}) for _ in range(2)]
        assert [child.wait(60) for child in children] == [0, 0]
        assert len(site.requests) == 1
        assert (tmp_path / "family" / "file.bin").read_bytes() == site.files["/file.bin"]


def test_a_lock_can_be_taken_again_by_its_holder(site, tmp_path):
    with locked(tmp_path, "family/file.bin"), locked(tmp_path, "family/file.bin"):
        fetch(at(site), tmp_path)


def test_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREWORD_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(Path("given")) == Path("given")
    monkeypatch.delenv("FOREWORD_DATA")
    assert data_folder().parts[-2:] == ("foreword", "data")


def test_importing_is_light():
    code = (
        "import foreword.downloads, sys; print(*[m for m in ('httpx2', 'ssl', 'tarfile', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_archive_becomes_a_folder_once(tmp_path):
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("a/b.txt", "text")
    with serve({"/x.zip": packed.getvalue(), "/y.zip": b"an error page"}) as site:
        archive = Resource("family/x.zip", (f"{site.url}/x.zip",))
        for _ in range(2):
            folder = fetch_folder(archive, tmp_path, tmp_path / "family" / "x", limit=100)
        assert (folder / "a" / "b.txt").read_text() == "text"
        assert len(site.requests) == 1
        with pytest.raises(DataError, match=r"neither a zip nor a tar.*delete .*y\.zip and .*y\.zip\.json"):
            fetch_folder(Resource("y.zip", (f"{site.url}/y.zip",)), tmp_path, tmp_path / "y", limit=100)
