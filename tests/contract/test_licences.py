"""What the command and the functions bring with them is under licences that go with Apache-2.0."""

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "requirements.txt", *sorted((ROOT / "functions").glob("*/requirements.txt"))]

ACCEPTED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
}
ACCEPTED |= {"PSF-2.0", "Zlib"}
"""MPL-2.0 asks for the source of its own files only, and none of them is changed here."""

IN_OTHER_WORDS = (
    # as packages without an SPDX expression (https://spdx.org/licenses/) say it
    r"apache( software license|( license,?)?( version)? 2\.0)",
    r"bsd( license|[ -]3-clause( license)?)?",
    r"mit license",
    r"mozilla public license 2\.0.*",
    r"isc license.*",
    r"(psf|python software foundation) license|psfl",
)


def test_every_package_that_is_shipped_has_an_accepted_licence():
    assert [(name, said_of(name)) for name in shipped() if not any(map(is_accepted, said_of(name)))] == []


def test_other_licences_are_refused():
    for text in ("GNU General Public License v3", "AGPL-3.0-only", "MIT AND GPL-3.0-only", "", "Proprietary"):
        assert not is_accepted(text)


def shipped():
    """Return the names of all packages that a requirements file brings in, directly or not, as they are installed."""
    waiting = [
        Requirement(line)
        for path in SHIPPED
        for line in path.read_text().splitlines()
        if line and not line.startswith(("#", "-"))
    ]
    names = set()
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        extras = requirement.extras or {""}
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and name not in names:
            names.add(name)
            for text in importlib.metadata.requires(name) or []:
                needed = Requirement(text)
                if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                    waiting.append(needed)
    return sorted(names)


def said_of(name):
    """Return what a package says of its licence: the expression if it has one, else the field and the classifiers."""
    metadata = importlib.metadata.metadata(name)
    if expression := metadata.get("License-Expression"):
        return [expression]
    classifiers = [
        text.rpartition("::")[2].strip() for text in metadata.get_all("Classifier") or [] if "License" in text
    ]
    return [(metadata.get("License") or "").strip().partition("\n")[0], *classifiers]


def is_accepted(text):
    """Whether one alternative (OR) has accepted licences only (AND)."""
    return any(all(map(_is_one_accepted, re.split(r"\s+AND\s+", way))) for way in re.split(r"\s+OR\s+", text.strip()))


def _is_one_accepted(text):
    text = text.strip("() ")
    return text in ACCEPTED or any(re.fullmatch(words, text, re.IGNORECASE) for words in IN_OTHER_WORDS)
