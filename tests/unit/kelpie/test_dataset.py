"""A folder or an archive of images: what is refused before it is copied, and what is copied."""

import errno
import os
import re
import sys
import zipfile

import pytest

from kelpie import layout
from kelpie.dataset import list_dataset, upload_dataset, upload_weights
from kelpie.errors import InvalidInput

BUCKET = "bucket"


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "valid", "test"):
        for label in ("cat", "dog"):
            path = tmp_path / "pets" / split / label
            path.mkdir(parents=True)
            (path / "1 ä+%.png").write_bytes(f"{split} {label}".encode())
    return tmp_path / "pets"


def ignore(_phase, _count):
    pass


def test_the_files_of_a_data_set_are_listed_without_hidden_ones(folder):
    (folder / ".DS_Store").touch()
    (folder / "train" / "Thumbs.db").touch()
    (folder / ".git" / "train").mkdir(parents=True)
    (folder / ".git" / "train" / "config").touch()
    names = [file.name for file in list_dataset(folder)]
    assert names == sorted(
        f"{split}/{label}/1 ä+%.png" for split in ("train", "valid", "test") for label in ("cat", "dog")
    )


def test_a_link_to_a_folder_is_followed(folder, tmp_path):
    (folder / "test").rename(tmp_path / "elsewhere")
    (folder / "test").symlink_to(tmp_path / "elsewhere")
    assert "test/cat/1 ä+%.png" in [file.name for file in list_dataset(folder)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "train/cat/a").symlink_to(f / "train"), r"cat/a is a link to a folder around it, \S+/train: "),
        (lambda f: (f / "train/cat/a").symlink_to("."), "cat/a is a link to a folder around it, "),
        (lambda f: (f / "train/cat/a.png").symlink_to("gone.png"), "cat/a.png is a link that leads nowhere"),
        (lambda f: os.mkfifo(f / "train/cat/a.png"), "cat/a.png is no file"),
    ],
)
def test_what_has_no_end_or_no_contents_is_refused_and_never_passed_over(folder, spoil, said):
    spoil(folder)
    with pytest.raises(InvalidInput, match=said):
        list_dataset(folder)


def test_links_to_each_other_have_no_end(folder):
    (folder / "test" / "cat" / "a").symlink_to(folder / "train" / "cat")
    (folder / "train" / "cat" / "b").symlink_to(folder / "test" / "cat")
    with pytest.raises(InvalidInput, match="is a link to a folder around it"):
        list_dataset(folder)


def test_a_link_that_leads_nowhere_does_not_matter_where_it_is_no_image(folder):
    (folder / "README").symlink_to("gone")
    (folder / "train" / ".cache").symlink_to("gone")
    assert len(list_dataset(folder)) == 6


def test_a_folder_that_may_not_be_read_is_refused(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if path == folder / "train" / "cat":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    with pytest.raises(InvalidInput, match="train/cat/ cannot be read: Permission denied"):
        list_dataset(folder)


def test_an_image_that_may_not_be_read_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: path.parent.name != "dog")
    with pytest.raises(InvalidInput, match=r"test/dog/1 ä\+%.png cannot be read: permission denied"):
        list_dataset(folder)


def test_a_folder_without_end_is_given_up_once_it_has_too_many_files(folder, monkeypatch):
    monkeypatch.setattr(layout, "MOST_FILES", 3)
    with pytest.raises(InvalidInput, match="holds more than 3 files"):
        list_dataset(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "train").rename(f.parent / "gone"), "no folder train/: found test/, valid/"),
        (lambda f: (f / "test").rename(f.parent / "gone"), "cat has 1 image, from which test are to be taken"),
        (
            lambda f: [(f / s / "dog").rename(f.parent / f"{s}-dog") for s in ("train", "valid", "test")],
            "one class only",
        ),
        (lambda f: (f / "valid" / "dog").rename(f / "valid" / "hound"), "has no images of hound"),
        (lambda f: (f / "train" / "cat" / "notes.txt").write_text("x"), "1 file that is not an image"),
        (lambda f: (f / "train" / "cat" / "0.png").touch(), "1 file that is empty: train/cat/0.png"),
    ],
)
def test_what_plan_run_would_refuse_is_refused_before_it_is_copied(folder, spoil, said):
    spoil(folder)
    with pytest.raises(InvalidInput) as raised:
        list_dataset(folder)
    assert said in str(raised.value)


@pytest.mark.skipif(sys.platform == "darwin", reason="no file has such a name there")
@pytest.mark.parametrize("name", ["train/cat/caf\udce9.png", "train/d\udcf6g/1.png"])
def test_a_name_that_is_no_utf_8_is_refused_in_a_form_that_can_be_printed(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(InvalidInput) as raised:
        list_dataset(folder)
    assert re.search(r"caf\\xe9|d\\xf6g", str(raised.value).encode().decode())


@pytest.mark.skipif(sys.platform == "darwin", reason="no file has such a name there")
def test_a_name_that_is_no_utf_8_does_not_matter_where_the_file_is_not_copied(folder):
    (folder / "\udcdcbersicht.txt").touch()
    assert len(list_dataset(folder)) == 6


def test_a_folder_that_is_missing_or_empty_or_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name, said in (("none", "there is no such"), ("file", "neither a folder nor"), ("", "holds no images")):
        with pytest.raises(InvalidInput, match=said):
            list_dataset(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no images"):
        list_dataset(tmp_path / "empty")


@pytest.fixture
def archive(folder, tmp_path):
    """pets.zip with one more folder around its splits, as dogImages.zip has it."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as opened:
        for path in folder.rglob("*.png"):
            opened.write(path, path.relative_to(folder.parent))
        opened.writestr("__MACOSX/pets/._train", b"x")
    return tmp_path / "pets.zip"


def test_an_archive_is_checked_by_its_contents_and_copied_whole(archive, s3):
    files = list_dataset(archive)
    assert [file.name for file in files] == ["pets.zip"]
    uri = upload_dataset(s3, BUCKET, archive, files, ignore).uri
    (copied,) = s3.list_objects_v2(Bucket=BUCKET, Prefix=uri.removeprefix(f"s3://{BUCKET}/"))["Contents"]
    assert copied["Key"].startswith("datasets/pets.zip-")
    assert copied["Size"] == archive.stat().st_size


def test_a_folder_may_hold_an_archive_and_nothing_else(archive, tmp_path):
    (tmp_path / "holds").mkdir()
    archive.rename(tmp_path / "holds" / "pets.zip")
    (tmp_path / "holds" / "README.md").touch()
    assert [file.name for file in list_dataset(tmp_path / "holds")] == ["pets.zip"]


def test_an_archive_that_plan_run_would_refuse_is_refused_before_it_is_copied(archive):
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../train/cat/2.png", b"x")
    with pytest.raises(InvalidInput, match="1 file that is named so as to lie outside of it"):
        list_dataset(archive)
    archive.write_bytes(b"no archive")
    with pytest.raises(InvalidInput, match="is no zip archive"):
        list_dataset(archive)


def test_large_files_are_copied_in_parts(folder, s3, monkeypatch):
    monkeypatch.setattr("kelpie.dataset.MULTIPART_BYTES", 3)
    counted = {"read": 0, "upload": 0}

    def count(phase, size):
        counted[phase] += size

    files = list_dataset(folder)
    assert upload_dataset(s3, BUCKET, folder, files, count).uploaded == 6
    assert set(counted.values()) == {sum(file.size for file in files)}


def test_every_file_is_copied_once(folder, s3):
    files = list_dataset(folder)
    first = upload_dataset(s3, BUCKET, folder, files, ignore)
    again = upload_dataset(s3, BUCKET, folder, files, ignore)
    assert (first.uploaded, first.unchanged) == (6, 0)
    assert (again.uploaded, again.unchanged) == (0, 6)
    assert again.uri == first.uri
    prefix = first.uri.removeprefix(f"s3://{BUCKET}/")
    assert prefix.startswith("datasets/pets-")
    copied = s3.get_object(Bucket=BUCKET, Key=f"{prefix}valid/dog/1 ä+%.png")["Body"].read()
    assert copied == b"valid dog"


def test_an_interrupted_upload_goes_on_where_it_was(folder, s3):
    files = list_dataset(folder)
    uri = upload_dataset(s3, BUCKET, folder, files, ignore).uri
    s3.delete_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/") + files[0].name)
    assert upload_dataset(s3, BUCKET, folder, files, ignore).uploaded == 1


def test_other_contents_or_names_go_to_another_place(folder, s3):
    uris = {upload_dataset(s3, BUCKET, folder, list_dataset(folder), ignore).uri}
    (folder / "test" / "cat" / "1 ä+%.png").write_bytes(b"other cat")
    uris.add(upload_dataset(s3, BUCKET, folder, list_dataset(folder), ignore).uri)
    (folder / "test" / "cat" / "1 ä+%.png").rename(folder / "test" / "cat" / "2.png")
    uris.add(upload_dataset(s3, BUCKET, folder, list_dataset(folder), ignore).uri)
    assert len(uris) == 3


def test_progress_counts_every_byte_read_and_uploaded_or_found(folder, s3):
    files = list_dataset(folder)
    for _attempt in range(2):
        counted = {"read": 0, "upload": 0}

        def count(phase, size, counted=counted):
            counted[phase] += size

        upload_dataset(s3, BUCKET, folder, files, count)
        assert set(counted.values()) == {sum(file.size for file in files)}


def test_weights_are_copied_to_a_place_named_by_their_digest(tmp_path, s3):
    (tmp_path / "own weights.pth").write_bytes(b"weights")
    uri = upload_weights(s3, BUCKET, tmp_path / "own weights.pth")
    assert uri == upload_weights(s3, BUCKET, tmp_path / "own weights.pth")
    assert uri.startswith(f"s3://{BUCKET}/weights/")
    assert uri.endswith("/own-weights.pth")
