"""The project's pages as its tests read them: their words, and what stands in their fences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    page: str
    section: str
    language: str
    lines: list[str]
    """Without comments."""


def fences() -> Iterator[Fence]:
    for page in PAGES:
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
            for language, content in FENCE.findall(part):
                whole = re.sub(r"\\\n\s*", "", content)  # lines that go on in the next
                lines = [re.sub(r"\s+# .*", "", line) for line in whole.splitlines()]
                yield Fence(page.relative_to(ROOT).as_posix(), part.partition("\n")[0], language, lines)
