"""The maps of the documentation show the tree as it is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("page", ["code-map.md", "architecture.md", "adding-a-theory.md"])
def test_every_module_that_a_page_names_exists(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    known = {
        p.relative_to(ROOT).as_posix()
        for folder in ("tlcli", "tests", "docs", "benchmarks")
        for p in (ROOT / folder).rglob("*.py")
    }
    # Modules are named below tlcli/, tests below tests/, or beside the one named before.
    missing = [n for n in named if not any(path == n or path.endswith(f"/{n}") for path in known)]
    assert not missing, sorted(missing)


def test_the_architecture_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [p.parent for p in (ROOT / "tlcli").rglob("__init__.py")]
    names = [p.name for p in packages if p != ROOT / "tlcli"]
    assert not [name for name in names if f"{name}/" not in text]
