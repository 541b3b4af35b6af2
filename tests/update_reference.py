"""`python -m tests.update_reference [NAME…]`: pin tables and figure structures anew, after a deliberate change."""

import sys
import tempfile
from pathlib import Path

from tests.recipe_regression import RECIPES, run_recipe, write_reference


def main(names: list[str]) -> None:
    for path in RECIPES:
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_reference(path.stem, run_recipe(path, Path(folder)))
        print(f"pinned {path.stem}")


if __name__ == "__main__":
    main(sys.argv[1:])
