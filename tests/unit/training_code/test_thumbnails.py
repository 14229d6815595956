from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from thumbnails import write_thumbnail


@pytest.mark.parametrize(("size", "expected"), [((600, 300), (256, 128)), ((4000, 10), (512, 1)), ((20, 10), (20, 10))])
def test_a_thumbnail_is_small_and_never_larger_than_its_picture(
    size: tuple[int, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    write_thumbnail(tmp_path / "mistakes/0001.jpg", content.getvalue())
    with Image.open(tmp_path / "mistakes/0001.jpg") as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)
