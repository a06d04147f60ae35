#!/usr/bin/env python3
"""Compare a release's tag with the version of the package, and take its notes from CHANGELOG.md.

    .ci/release_notes.py v0.1.0 --notes notes.md

A release needs its own section, "## [0.1.0] - 2027-01-31"; a pre-release such as v0.1.0rc1 takes "## [Unreleased]".
Prints the registry to publish to as an output of a GitHub step: ``registry=pypi`` or, for a pre-release, ``testpypi``.
"""

import argparse
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"(?P<release>\d+\.\d+\.\d+)(?P<pre>(a|b|rc)\d+)?")


class ReleaseError(Exception):
    """The tag, the version and the changelog do not fit together."""


def release_notes(tag: str, version: str, changelog: str) -> tuple[str, str]:
    """The registry for a tag, and the notes of its release.

    Args:
        tag: ``v`` and the version.
        version: of the package.
        changelog: text of CHANGELOG.md.

    Raises:
        ReleaseError: the tag is not ``v`` and the version, the version is not X.Y.Z or X.Y.ZrcN (aN, bN), or the
            changelog has no section for it, or an empty one.
    """
    if tag != f"v{version}":
        raise ReleaseError(f"tag {tag} does not match version {version} of wildcat/_version.py; expected v{version}")
    match = VERSION.fullmatch(version)
    if match is None:
        raise ReleaseError(f"version {version} is neither X.Y.Z nor X.Y.Z followed by aN, bN or rcN")
    if match["pre"]:
        registry, title, heading = "testpypi", "## [Unreleased]", r"## \[Unreleased\]"
    else:
        registry, title = "pypi", f"## [{version}] - YYYY-MM-DD"
        heading = rf"## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d"
    # A section ends at the next one, or at the link definitions of the last lines.
    section = re.search(rf"^{heading}\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise ReleaseError(f"CHANGELOG.md has no section {title!r}, or it is empty")
    return registry, section[1].strip() + "\n"


def package_version() -> str:
    """The version in wildcat/_version.py, without importing it."""
    match = re.search(r'^__version__ = "(.+)"$', (REPOSITORY / "wildcat" / "_version.py").read_text(), re.MULTILINE)
    if match is None:
        raise ReleaseError('wildcat/_version.py has no line __version__ = "..."')
    return match[1]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Compare a tag with the version, and write the notes of the release.")
    parser.add_argument("tag")
    parser.add_argument("--notes", type=Path, required=True, metavar="FILE", help="where to write the notes")
    arguments = parser.parse_args()
    try:
        registry, notes = release_notes(arguments.tag, package_version(), (REPOSITORY / "CHANGELOG.md").read_text())
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    arguments.notes.write_text(notes)
    print(f"registry={registry}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
