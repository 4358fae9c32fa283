"""Archives: plain ones, broken ones, and those made to write outside, to link, or to fill the disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
from collections import namedtuple

import pytest

from foreword.downloads.archives import extract
from foreword.errors import DataError

FILES = {"a.txt": b"first", "sub/b.txt": b"second" * 1000, "sub/deep/empty": b""}
PACKERS = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name, content in files.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            made.writestr(info, content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def tarred(files, *others, form=tarfile.PAX_FORMAT):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as made:
        folder = tarfile.TarInfo("sub")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        for other in others:
            made.addfile(other)
    return packed.getvalue()


def special(kind, name="evil", to=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.fixture
def unpack(tmp_path):
    """Unpack bytes as the folder `data/out`; whatever happens, nothing else appears."""

    def run(content, limit=10_000, members=None):
        archive = tmp_path / "archive"
        archive.write_bytes(content)
        (tmp_path / "data").mkdir(exist_ok=True)
        try:
            return extract(archive, tmp_path / "data" / "out", limit=limit, members=members)
        finally:
            assert {p.name for p in tmp_path.iterdir()} == {"archive", "data"}
            assert {p.name for p in (tmp_path / "data").iterdir()} <= {"out"}

    return run


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(unpack, content, message, **options):
    with pytest.raises(DataError, match=rf"archive: .*{message}"):
        unpack(content, **options)


ARCHIVES = {"zip": zipped(FILES), **{f"tar {name}": pack(tarred(FILES)) for name, pack in PACKERS.items()}}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_known_by_their_content(unpack, kind):
    folder = unpack(ARCHIVES[kind])
    assert contents(folder) == FILES
    assert stat.S_IMODE((folder / "a.txt").stat().st_mode) & 0o111 == 0


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_older_tars(unpack, form):
    assert contents(unpack(tarred({"n" * 99: b"x", **FILES}, form=form))) == {"n" * 99: b"x", **FILES}


@pytest.mark.parametrize("kind", ["zip", "tar gz"])
def test_members_are_chosen_by_name(unpack, kind):
    assert contents(unpack(ARCHIVES[kind], members=lambda name: name.startswith("sub/b"))) == {
        "sub/b.txt": FILES["sub/b.txt"]
    }


def test_an_archive_with_none_of_the_members(unpack):
    refused(unpack, ARCHIVES["zip"], "none of the files expected", members=lambda name: False)


def test_a_folder_that_is_there_is_left(unpack, tmp_path):
    (tmp_path / "data" / "out").mkdir(parents=True)
    (tmp_path / "data" / "out" / "mine").write_text("x")
    assert contents(unpack(ARCHIVES["zip"])) == {"mine": b"x"}


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    ["../out.txt", "sub/../../out.txt", "/tmp/foreword-evil", "C:evil", "c:/evil", "sub\\..\\..\\evil", "a/.."],
)
def test_members_that_lead_outside(unpack, pack, name):
    refused(unpack, pack({"good": b"x", name: b"evil"}), "refused: the member .* leads outside the folder")


def test_a_member_without_a_name(unpack):
    """On which Python's own reader of zip files fails with an IndexError."""
    content = zipped({"a.txt": b"x"})
    refused(unpack, content.replace(b"a.txt", b"\0.txt"), "cannot be unpacked")


@pytest.mark.parametrize(
    "info",
    [
        special(tarfile.SYMTYPE, to="/etc/passwd"),
        special(tarfile.SYMTYPE, to="a.txt"),
        special(tarfile.LNKTYPE, to="a.txt"),
        special(tarfile.LNKTYPE, to="../../archive"),
        special(tarfile.FIFOTYPE),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
    ],
)
def test_links_and_devices_in_a_tar(unpack, info):
    refused(unpack, tarred(FILES, info), "refused: the member 'evil' is a link or device")


def test_links_in_a_zip(unpack):
    link = zipfile.ZipInfo("evil")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(unpack, zipped({link: b"/etc/passwd"}), "refused: the member 'evil' is a link")


def test_a_file_in_place_of_a_folder(unpack):
    refused(unpack, zipped({"a": b"x", "a/b": b"y"}), "cannot be unpacked")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_that_come_twice(unpack, pack):
    refused(unpack, pack({"a": b"x", "./a": b"y"}), "refused: the member './a' comes twice")


@pytest.mark.parametrize("pack", [zipped, lambda files: gzip.compress(tarred(files))])
def test_bombs_that_say_their_size(unpack, pack):
    bomb = pack({"zeros": bytes(5_000_000)})
    assert len(bomb) < 10_000
    refused(unpack, bomb, "refused: it unpacks to more than 4,999,999 bytes", limit=4_999_999)
    assert contents(unpack(bomb, limit=5_000_000)) == {"zeros": bytes(5_000_000)}


def test_bombs_of_many_files(unpack):
    refused(unpack, zipped({str(i): bytes(1000) for i in range(11)}), "more than 10,000 bytes")


def test_a_zip_bomb_that_says_less(unpack):
    """The sizes in both of the member's headers are 10 bytes; what is packed are five million."""
    bomb = bytearray(zipped({"zeros": bytes(5_000_000)}))
    for at in (22, bomb.index(b"PK\x01\x02") + 24):
        assert struct.unpack_from("<I", bomb, at) == (5_000_000,)
        struct.pack_into("<I", bomb, at, 10)
    refused(unpack, bytes(bomb), "cannot be unpacked")


def test_the_limit_holds_while_unpacking(unpack, monkeypatch):
    """Should a library ever give more than a header says."""
    content = zipped({"a": b"little"})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info: io.BytesIO(bytes(5_000_000)))
    refused(unpack, content, "more than 10,000 bytes")


def test_a_tar_header_that_fills_the_memory(unpack):
    """A header of 4 GB (an extended one, for which a reader takes memory), of which a little is there."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 4_000_000_000
    refused(
        unpack, gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)), "4000000000 bytes|cannot be unpacked"
    )


def test_endless_zeros_after_a_tar(unpack):
    refused(unpack, gzip.compress(tarred({"a": b"x"}) + bytes(3_000_000)), "more than 10,000 bytes")


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_archives_that_are_cut(unpack, kind, share):
    content = ARCHIVES[kind]
    refused(unpack, content[: int(len(content) * share)], "")


def test_a_plain_tar_cut_between_two_members(unpack):
    refused(unpack, tarred({"a": b"x"})[: 3 * 512], "no end mark")


@pytest.mark.parametrize("kind", ["zip", "tar gz", "tar xz"])
def test_archives_with_a_changed_byte(unpack, kind):
    files = {"noise": bytes((i * i * 7919 >> 3) & 0xFF for i in range(4000))}
    content = bytearray(zipped(files) if kind == "zip" else PACKERS[kind[4:]](tarred(files)))
    content[len(content) // 2] ^= 0xFF
    refused(unpack, bytes(content), "")


@pytest.mark.parametrize(
    "content", [b"", b"<html>no such page</html>", gzip.compress(b'{"a": 1}', mtime=0), b"\x1f\x8b"]
)
def test_what_is_no_archive(unpack, content):
    refused(unpack, content, "neither a zip nor a tar archive|cannot be unpacked")


def test_an_encrypted_zip(unpack):
    content = bytearray(zipped({"secret": b"x"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    refused(unpack, bytes(content), "'secret' is encrypted")


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.zip: cannot be unpacked .*No such file"):
        extract(tmp_path / "none.zip", tmp_path / "out", limit=1)


def test_a_full_disk(unpack, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 6000))
    with pytest.raises(DataError, match=r"no room for the files of .*archive: it needs 6,305 bytes, 6,000 are free"):
        unpack(ARCHIVES["tar gz"])
