"""`python -m tests.compare_checkouts OTHER [RECIPE…]`: have the recipes the same tables in another checkout?

Every recipe is run in both, at the cost that CI pays, with `python -m tlcli` of each checkout; table.csv and
boundary.csv are compared byte by byte. The exit code is the number of recipes that differ.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.recipe_regression import CI_FLAGS, RECIPES
from tlcli.options import OPTIONS

HERE = Path(__file__).resolve().parent.parent


def tables(checkout: Path, recipe: Path, folder: Path) -> list[bytes]:
    """Run a recipe in a checkout; return its tables."""
    command = next(line.split()[1] for line in recipe.read_text().splitlines() if line.startswith("command:"))
    flags = CI_FLAGS.get(recipe.stem, {})
    words = [f"{OPTIONS[name].flag}={value}" for name, value in flags.items() if value is not None]
    recipe = without(recipe, {name for name, value in flags.items() if value is None}, folder.parent)
    call = [sys.executable, "-m", "tlcli", command, "--recipe", str(recipe), "--quiet", "-o", str(folder), *words]
    subprocess.run(call, check=True, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=folder.parent)
    files = [folder / "table.csv", folder / "boundary.csv"]
    return [path.read_bytes() for path in files if path.exists()]


def without(recipe: Path, keys: set[str], folder: Path) -> Path:
    """Return a copy of the recipe in `folder` without some keys, which no flag can take back."""
    content = yaml.safe_load(recipe.read_text())
    for part in (content, *content.get("cases", ())):
        for key in keys & part.keys():
            del part[key]
    copy = folder / recipe.name
    copy.write_text(yaml.safe_dump(content, sort_keys=False))
    return copy


def main(other: str, *names: str) -> int:
    """Compare the named recipes, or all that need no download."""
    differ = 0
    for recipe in RECIPES:
        if "cifar10" in recipe.stem or (names and recipe.stem not in names):
            continue
        with tempfile.TemporaryDirectory() as place:
            pair = [tables(root, recipe, Path(place) / name) for name, root in (("a", HERE), ("b", Path(other)))]
        same = pair[0] == pair[1]
        differ += not same
        print(f"{recipe.stem}: {'the same bytes' if same else 'DIFFERENT'}", flush=True)
    return differ


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
