"""Thumbnails, for the eyes of whoever reads a report."""

from __future__ import annotations

from pathlib import Path

from data import decode

SHORT_SIDE_PX = 128  # at most
LONG_SIDE_PX = 512


def write_thumbnail(path: Path, content: bytes) -> None:
    """Write an encoded image as a small JPEG. Raises UnreadableImage."""
    picture = decode(content, at_least_px=SHORT_SIDE_PX)
    scale = min(SHORT_SIDE_PX / min(picture.size), LONG_SIDE_PX / max(picture.size), 1)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((width, height)).save(path, quality=85)
