"""What a data set's names say, as PlanRun, the command and PrepareDataset read them."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest
from layout import (
    File,
    LayoutError,
    count_by_split,
    find_archive,
    read_layout,
    read_members,
)

SPLITS = ("train", "valid", "test")
DOGS = [
    f"{split}/{name}/{i}.jpg" for split in SPLITS for name in ("001.Affenpinscher", "002.Afghan_hound") for i in "12"
]
FLAT = [f"{name}/{i}.PNG" for name in ("cat", "dog") for i in range(20)]
SHARES = {"valid": 0.15, "test": 0.15}


def files(*paths: str, size_bytes: int = 9) -> list[File]:
    return [File(path, size_bytes) for path in paths]


def test_splits_and_classes_are_folders() -> None:
    layout = read_layout("dogs", files(*DOGS))
    assert layout.classes == ["001.Affenpinscher", "002.Afghan_hound"]
    assert layout.missing == ()
    assert {(image.split, image.class_index) for image in layout.images} == {(s, c) for s in SPLITS for c in (0, 1)}


@pytest.mark.parametrize("around", ["dogImages/", "a/b/", ""])
def test_folders_around_the_splits_are_passed_over(around: str) -> None:
    beside = [f"{around}README.md", "__MACOSX/x/y/z.jpg", f"{around}train/.DS_Store"]
    layout = read_layout("dogs", files(*(around + path for path in DOGS), *beside))
    assert [image.path for image in layout.images] == sorted(around + path for path in DOGS)
    assert layout.ignored == sorted(beside)


def test_folders_of_classes_alone_are_all_training_images() -> None:
    for around in ("", "photos/"):
        layout = read_layout("pets", files(*(around + path for path in FLAT)))
        assert (layout.classes, layout.missing) == (["cat", "dog"], ("valid", "test"))
        assert {image.split for image in layout.images} == {"train"}


def test_a_class_may_bear_the_name_of_a_split() -> None:
    layout = read_layout("vehicles", files("train/1.jpg", "train/2.jpg", "plane/1.jpg"))
    assert layout.classes == ["plane", "train"]


@pytest.mark.parametrize("name", ["valid", "val", "Validation"])
def test_the_validation_split_has_other_names_too(name: str) -> None:
    paths = [path.replace("valid/", f"{name}/") for path in DOGS]
    assert read_layout("dogs", files(*paths)).missing == ()


def test_splits_that_are_not_given_are_counted_as_they_will_be() -> None:
    counts = count_by_split(read_layout("pets", files(*FLAT)), SHARES)
    assert counts == {"train": {"cat": 14, "dog": 14}, "valid": {"cat": 3, "dog": 3}, "test": {"cat": 3, "dog": 3}}
    given = count_by_split(read_layout("dogs", files(*(path for path in DOGS if "valid" not in path))), SHARES)
    assert [sum(by_class.values()) for by_class in given.values()] == [2, 2, 4]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], "holds no images"),
        (["train/cat/1.webp", *DOGS], "1 file that is not an image .* train/cat/1.webp"),
        (["train/001.Affenpinscher/more/0.jpg", *DOGS], "not at <split>/<class>/<image>: train/001"),
        (["extra/cat/1.jpg", *DOGS], "outside of train/, valid/ and test/: extra/cat"),
        (["1.jpg", *FLAT], "not at <class>/<image>: 1.jpg"),
        ([path for path in DOGS if not path.startswith("train")], r"has no folder train/: found test/, valid/"),
        ([path for path in DOGS if not path.startswith("test/001")], "test/ has no images of 001.Affenpinscher"),
        (["cat/1.jpg", "cat/2.jpg"], "one class only, cat"),
    ],
)
def test_a_layout_that_cannot_be_trained_on_is_refused(paths: list[str], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        read_layout("the data set", files(*paths))


def test_one_archive_is_a_data_set_and_one_beside_images_is_not() -> None:
    assert find_archive("dogs", files("dogs.ZIP", "README.md", "__MACOSX/a.zip")) == File("dogs.ZIP", 9)
    assert find_archive("dogs", files("dogs.zip", *DOGS)) is None
    with pytest.raises(LayoutError, match=r"holds 2 archives, a\.zip, b\.zip"):
        find_archive("dogs", files("a.zip", "b.zip"))


def written(*members: zipfile.ZipInfo | str, content: bytes = b"x", **options: int) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for member in members:
            archive.writestr(member, content)
    return buffer


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("name", ["../1.jpg", "/etc/1.jpg", "train/../../1.jpg", "C:/1.jpg", "train\\1.jpg"])
def test_names_that_lead_out_of_an_archive_are_refused(name: str) -> None:
    with pytest.raises(LayoutError, match="1 file that is named so as to lie outside of it"):
        read_members("a.zip", written("train/cat/1.jpg", name), 99)


def test_links_and_other_compressions_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"linked elsewhere: train/1\.jpg"):
        read_members("a.zip", written(link("train/1.jpg")), 99)
    with pytest.raises(LayoutError, match="1 file that is neither stored nor deflated"):
        read_members("a.zip", written("train/1.jpg", compression=zipfile.ZIP_LZMA), 99)


def test_files_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = written("train/1.jpg", "train/1.jpg")
    with pytest.raises(LayoutError, match="1 file that is there more than once"):
        read_members("a.zip", archive, 99)


def test_what_unpacks_to_far_more_than_it_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = written("train/1.jpg", content=bytes(100_000), compression=zipfile.ZIP_DEFLATED)
    assert list(read_members("a.zip", archive, 250)) == ["train/1.jpg"]
    monkeypatch.setattr("layout.ALWAYS_ACCEPTED_BYTES", 1000)
    with pytest.raises(LayoutError, match="has 250 bytes and unpacks to 100000, more than 20 times as many"):
        read_members("a.zip", archive, 250)


def test_more_files_than_plan_run_has_memory_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layout.MOST_FILES", 1)
    with pytest.raises(LayoutError, match=r"a\.zip holds more than 1 files"):
        read_members("a.zip", written("train/1.jpg", "train/2.jpg"), 250)
    with pytest.raises(LayoutError, match="photos/ holds more than 1 files"):
        read_layout("photos/", files("a/1.jpg", "b/1.jpg"))


@pytest.mark.parametrize("members", [20, 65_540], ids=["small", "ZIP64"])
def test_an_archive_of_far_too_many_is_refused_before_its_directory_is_read(
    monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written_to:
        written_to.writestr("train/1.jpg", b"")
        written_to.filelist *= members
        written_to.comment = b"a comment after the end" * 100
    monkeypatch.setattr("layout.MOST_FILES", members // 2 - 1)
    monkeypatch.setattr("zipfile.ZipFile", lambda *_: pytest.fail("the directory is read"))
    with pytest.raises(LayoutError, match=rf"a\.zip holds more than {members // 2 - 1} files, and no more"):
        read_members("a.zip", archive, archive.getbuffer().nbytes)
