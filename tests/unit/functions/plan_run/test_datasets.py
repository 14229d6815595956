"""Data sets as PlanRun finds them: listings and archives, and those that it refuses."""

import io
import zipfile

import pytest

from tests.unit.functions.plan_run.conftest import DATASET, FROM_SCRATCH, SPLITS


@pytest.fixture
def archive(upload):
    """dogImages.zip: two classes, three images each in train/ and test/, no valid/."""

    def archive(name="dogImages.zip", damage=0):
        paths = [f"{split}/{label}/{n}.jpg" for split in ("train", "test") for label in "ab" for n in range(3)]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as opened:
            for path in ("README.md", *paths):
                opened.writestr(f"dogImages/{path}", bytes(9))
        upload(name, body=content.getvalue()[damage:])

    return archive


@pytest.mark.parametrize("name", ["", "/dogImages.zip"])
def test_an_archive_is_planned_by_its_directory(archive, plan_run, get, name):
    archive()
    given = {**FROM_SCRATCH, "dataset": f"{DATASET}{name}", "data": {"valid_share": 0.2}}
    plan = get(plan_run(given)["plan_uri"])
    dataset = plan["dataset"]
    assert (dataset["archive"], dataset["classes"]) == ("dogImages.zip", ["a", "b"])
    assert {split: found["images"] for split, found in dataset["splits"].items()} == {"train": 4, "valid": 2, "test": 6}
    (channel,) = [one for one in plan["requests"]["evaluate"]["InputDataConfig"] if one["ChannelName"] == "dataset"]
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"{DATASET}{name or '/'}" == dataset["uri"]
    assert plan["requests"]["prepare"]["HyperParameters"]["valid_share"] == "0.2"
    assert plan["requests"]["prepare"]["HyperParameters"]["near_duplicates"] == "drop"


def test_an_archive_of_which_the_beginning_is_missing_is_refused(archive, refused):
    archive(damage=3000)
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    assert f"{DATASET}/dogImages.zip is no zip archive" in message


def test_only_an_archives_directory_is_fetched(load, archive, s3, monkeypatch):
    dataset, fetched = load("plan_run", "dataset"), []
    archive()
    monkeypatch.setattr(dataset, "RANGE_BYTES", 256)
    monkeypatch.setattr(dataset.layout, "LONGEST_END", 256)
    get_object = s3.get_object

    def counted(**request):
        fetched.append(request["Range"])
        return get_object(**request)

    monkeypatch.setattr(s3, "get_object", counted)
    surveyed = dataset.survey(s3, f"{DATASET}/", {"valid": 0.15, "test": 0.15})
    assert surveyed["splits"]["train"]["images"] == 4
    assert not any(one.startswith("bytes=0-") for one in fetched)


def test_a_listing_of_several_pages_is_read_to_its_end(upload, plan_run, get, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    upload(*(f"{split}/{name}/{number}.jpg" for split in SPLITS for name in "ab" for number in range(5)))
    plan = get(plan_run(FROM_SCRATCH)["plan_uri"])
    assert [split["images"] for split in plan["dataset"]["splits"].values()] == [10, 10, 10]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], ["holds no images", "train/, valid/ and test/"]),
        ([".DS_Store", "train/", "README.md"], ["holds no images"]),
        (
            [f"{split}/{name}/1.jpg" for split in ("valid", "test") for name in "ab"],
            ["no folder train/", "test/, valid/"],
        ),
        ([f"{split}/{name}/1.jpg" for split in ("train", "test") for name in "ab"], ["a has 1 image,", "valid"]),
        ([f"{name}/{number}.jpg" for name in "ab" for number in range(2)], ["a has 2 images", "at least 3"]),
        (["a.zip", "b.zip"], ["2 archives, a.zip, b.zip"]),
        ([f"{split}/a/1.jpg" for split in ("training", "valid", "test")], ["no folder train/", "training/"]),
        (["a.jpg", "b.jpg"], ["holds images, but no folder for each class: expected"]),
        ([f"{split}/a/1.jpg" for split in SPLITS], ["one class only, a"]),
        (
            [f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab" if (split, name) != ("valid", "b")],
            ["valid/ has no images of b", "valid/ has a"],
        ),
        (
            [f"{split}/{name}/1.jpg" for split in SPLITS for name in (("a", "B") if split == "test" else ("a", "b"))],
            ["has no images of B", "train/ has a, b"],
        ),
        (
            [f"{split}/{name}/1.{kind}" for split in SPLITS for name in "ab" for kind in ("jpg", "txt")],
            ["6 files that are not an image", "test/a/1.txt", "and 1 more"],
        ),
        (["1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")], ["1 file", "outside of", "1.jpg"]),
        (
            ["train/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["1 file", "train/1.jpg", "<split>/<class>/<image>"],
        ),
        (
            ["train/a/b/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["train/a/b/1.jpg", "<split>/<class>/<image>"],
        ),
        (
            ["extra/a/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["extra/a/1.jpg", "outside of"],
        ),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused_with_what_was_found(upload, refused, paths, said):
    upload(*paths)
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    for part in said:
        assert part in message


@pytest.mark.usefixtures("dogs")
def test_empty_files_are_named_with_their_count(upload, refused):
    upload("train/001.Affenpinscher/z.jpg", "test/001.Affenpinscher/z.jpg", body=b"")
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    assert "2 files that are empty" in message
    assert "train/001.Affenpinscher/z.jpg" in message


@pytest.mark.usefixtures("dogs")
def test_what_file_managers_leave_and_a_licence_beside_the_splits_are_no_part_of_the_data_set(upload, plan_run):
    upload("train/.DS_Store", "train/001.Affenpinscher/Thumbs.db", "__MACOSX/x", "train/001.Affenpinscher/", "LICENSE")
    plan_run(FROM_SCRATCH)


def test_a_bucket_that_is_not_there_is_a_data_set_that_is_not_there(refused):
    name, message = refused({**FROM_SCRATCH, "dataset": "s3://nobodys-bucket-at-all/dogs"})
    assert name == "DatasetError"
    assert "s3://nobodys-bucket-at-all/dogs/" in message
    assert "NoSuchBucket" in message


def test_a_folder_of_too_many_objects_is_refused_and_listed_no_further(load, upload, s3, monkeypatch):
    dataset = load("plan_run", "dataset")
    upload(*(f"train/{label}/{n}.jpg" for label in "ab" for n in range(4)))
    monkeypatch.setattr(dataset.layout, "MOST_FILES", 3)
    seen = []

    def counted(s3, uri):
        for item in listed(s3, uri):
            seen.append(item)
            yield item

    listed = dataset.listed
    monkeypatch.setattr(dataset, "listed", counted)
    with pytest.raises(dataset.DatasetError, match=f"{DATASET}/ holds more than 3 files"):
        dataset.survey(s3, f"{DATASET}/", {"valid": 0.15, "test": 0.15})
    assert len(seen) == 4
