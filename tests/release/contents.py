"""contents.py DIST: whether a wheel and an sdist have in them what they should, and no more."""

from __future__ import annotations

import re
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION: str = PROJECT["version"]

IN_WHEEL = {
    "runtara_trio/py.typed",
    "runtara_trio/wire/instance.proto",
    "runtara_trio/console/static/console.css",
    "runtara_trio/console/static/htmx.min.js",
    "runtara_trio/console/templates/answer.html",
    f"runtara_trio-{VERSION}.dist-info/licenses/LICENSE",
    f"runtara_trio-{VERSION}.dist-info/licenses/src/runtara_trio/console/static/htmx-LICENSE.txt",
    f"runtara_trio-{VERSION}.dist-info/entry_points.txt",
}
IN_SDIST = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "docs/index.md"}
IN_SDIST |= {"tests/conftest.py", "examples/refunds.py", "deploy/compose.yaml", "noxfile.py"}
NEVER = re.compile(
    r"__pycache__|\.pyc$|\.db(-\w+)?$|\.log$|/\.(?!gitignore$)|_build|node_modules|\.lock$"
)
PLACES = re.compile(rb"/(?:home|Users|root|work|tmp)/[A-Za-z0-9_.-]+/")
"""Folders of a machine."""


def wheel_faults(path: Path) -> list[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        metadata = Parser().parsestr(
            wheel.read(f"runtara_trio-{VERSION}.dist-info/METADATA").decode()
        )
        places = [name for name in names if PLACES.search(wheel.read(name))]
    sources = {
        str(one.relative_to(ROOT / "src"))
        for one in (ROOT / "src").rglob("*")
        if one.is_file() and not NEVER.search(str(one.relative_to(ROOT / "src")))
    }
    info = f"runtara_trio-{VERSION}.dist-info/"
    faults = [f"it has no {name}" for name in sorted((IN_WHEEL | sources) - names)]
    faults += [f"it has {name}" for name in sorted(names - sources) if not name.startswith(info)]
    faults += [f"{name} names a folder of a machine" for name in sorted(places)]
    if metadata["License-Expression"] != PROJECT["license"]:
        faults.append(f"its licence is {metadata['License-Expression']!r}")
    if set(metadata.get_all("Provides-Extra")) != set(PROJECT["optional-dependencies"]):
        faults.append("it has other extras")
    return faults


def sdist_faults(path: Path) -> list[str]:
    """What is wrong with an sdist."""
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    faults = [f"it has no {name}" for name in sorted(IN_SDIST - names)]
    return faults + [f"it has {name}" for name in sorted(names) if NEVER.search(f"/{name}")]


def changelog_faults() -> list[str]:
    """Whether the newest entry is of this version, and has a date."""
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (.*)$", text, re.MULTILINE)
    if newest is None or not re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", newest[1]):
        return [f"its newest entry is {newest and newest[1]!r}, not of {VERSION} with a date"]
    return []


def main(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    faults = [f"{wheel.name}: {one}" for one in wheel_faults(wheel)]
    faults += [f"{sdist.name}: {one}" for one in sdist_faults(sdist)]
    faults += [f"CHANGELOG.md: {one}" for one in changelog_faults()]
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"{wheel.name} and {sdist.name} have what they should")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
