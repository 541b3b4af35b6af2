"""What packagers and newcomers read agrees with the project itself."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import tlcli
from tests.lowest_versions import pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == tlcli.__version__ == citation["version"]
    assert f"## {tlcli.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_lowest_version():
    assert len(pins()) == len(PROJECT["dependencies"])
    for pin in pins():
        assert re.fullmatch(r"[a-z-]+==\d+(\.\d+)*", pin), pin


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "README.md"])
def test_files_and_targets_that_a_page_names_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.M):
        assert target in targets, target
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`((?:tlcli|tests|docs|recipes)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or "_build" in path, path


@pytest.mark.parametrize("name", [".github/workflows/ci.yml", ".readthedocs.yaml", ".pre-commit-config.yaml"])
def test_services_get_files_that_can_be_read(name):
    assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_pythons_of_ci_are_those_that_the_project_names():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
