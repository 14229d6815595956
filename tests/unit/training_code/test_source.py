"""Files of a folder and of an archive: the same, whoever reads them."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from layout import File
from source import DamagedArchive, list_files, read_file, read_image

CONTENTS = {f"train/cat/{number}.jpg": bytes([number]) * 1000 for number in range(40)}


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", request.param) as opened:
        opened.mkdir("train")
        for path, content in CONTENTS.items():
            opened.writestr(path, content)
    return tmp_path / "pets.zip"


def test_an_archive_is_read_itself_or_in_its_folder(archive: Path) -> None:
    for root in (archive, archive.parent):
        assert list_files(root) == [File(path, 1000) for path in CONTENTS]
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda path, root=root: read_file(root, path), list(CONTENTS) * 5))
        assert contents == list(CONTENTS.values()) * 5


def test_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/1.jpg").write_bytes(b"cat")
    (tmp_path / "spare.zip").write_bytes(b"not asked for")
    assert list_files(tmp_path) == [File("spare.zip", 13), File("train/cat/1.jpg", 3)]
    assert read_file(tmp_path, "train/cat/1.jpg") == b"cat"


def test_what_an_archive_does_not_hold_or_not_whole_is_told(archive: Path) -> None:
    with pytest.raises(DamagedArchive, match=r"has no train/cat/99\.jpg"):
        read_file(archive, "train/cat/99.jpg")
    with zipfile.ZipFile(archive) as opened:
        place = opened.getinfo("train/cat/7.jpg").header_offset
    content = bytearray(archive.read_bytes())
    content[place + 48] ^= 0xFF
    content[place - 1 - len("train/cat/6.jpg")] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DamagedArchive, match=r"train/cat/7\.jpg of .* is damaged"):
        read_file(archive, "train/cat/7.jpg")


def test_an_image_that_breaks_off_is_ended(archive: Path) -> None:
    assert read_image(archive, {"path": "train/cat/1.jpg", "truncated": False}) == b"\x01" * 1000
    assert read_image(archive, {"path": "train/cat/1.jpg", "truncated": True}) == b"\x01" * 1000 + b"\xff\xd9"
