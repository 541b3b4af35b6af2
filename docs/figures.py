"""Run every command that the pages show, and make their figures anew.

    python docs/figures.py                 all pages
    python docs/figures.py ansatz gallery  these pages
    python docs/figures.py --check         also compare what the commands print with what the pages say
    python docs/figures.py gallery --stored DIR   draw the results in DIR, a folder for each, anew: no computing

A page is executed in an empty folder beside a copy of `recipes/`: blocks with a caption become files, the lines after
`$ ` in console blocks are run in order, and `% figure: PATH` before an image says which result it shows. In printed
output `...` stands for any lines; times and byte counts are not compared. Tables of recipes that cost minutes are kept
in `docs/tables/`, where tests compare them with what the gallery says.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from tests.recipe_regression import CI_FLAGS  # noqa: E402 (the repository's own, wherever this runs)

PAGES = [ROOT / "README.md", *sorted((DOCS / "tutorials").glob("*.md")), DOCS / "gallery.md"]
WIDTH, COLOURS = 1100, 256  # pixels and palette of the figures kept here: small files

BLOCK = re.compile(r"^```(?P<kind>\S+)[ \t]*(?P<argument>.*)\n(?P<body>(?:.*\n)*?)```$", re.MULTILINE)
FIGURE = re.compile(r"^(?:% figure: |<!-- figure: )(?P<source>\S+).*\n+!\[[^\]]*\]\((?P<target>\S+)\)", re.MULTILINE)


def main(words: list[str]) -> int:
    check = "--check" in words
    stored = Path(words.pop(words.index("--stored") + 1)).resolve() if "--stored" in words else None
    names = [word for word in words if not word.startswith("-")]
    pages = [page for page in PAGES if not names or page.stem in names]
    return max((draw_anew(page, stored) if stored else execute(page, check) for page in pages), default=2)


def draw_anew(page: Path, stored: Path) -> int:
    """Make the figures of a page whose results are stored; none of its commands is run."""
    drawn = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for figure in FIGURE.finditer(page.read_text(encoding="utf-8")):
            result = (folder / figure["source"]).parent
            if not (stored / result.name / "table.csv").is_file():
                continue
            if result not in drawn:
                plot = ("plot", str(stored / result.name), "--output", str(result))
                subprocess.run([sys.executable, "-m", "tlcli", *plot], cwd=ROOT, check=True)
                for name in ("table.csv", "kernels.npz"):
                    if (stored / result.name / name).is_file():
                        (result / name).symlink_to(stored / result.name / name)
                drawn.add(result)
            keep_figure(page, figure, folder)
    return 0


def execute(page: Path, check: bool) -> int:
    text = page.read_text(encoding="utf-8")
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "recipes", folder / "recipes")
        for block in BLOCK.finditer(text):
            caption = re.search(r"^:caption: (\S+)\n+", block["body"], re.MULTILINE)
            if caption:
                (folder / caption[1]).write_text(block["body"][caption.end() :], encoding="utf-8")
            elif block["kind"] == "console":
                wrong += sum(run(command, shown, folder, check) for command, shown in commands(block["body"]))
        for figure in FIGURE.finditer(text):
            keep_figure(page, figure, folder)
    return 1 if wrong else 0


def keep_figure(page: Path, figure: re.Match[str], folder: Path) -> None:
    target = (page.parent / figure["target"]).resolve()
    size = shrink(folder / figure["source"], target)
    if page.stem == "gallery":
        keep_table(folder / figure["source"], ROOT / "docs" / "tables")
    if target.stem in CI_FLAGS and Path(figure["source"]).stem == "figure-densities":
        keep_kurtosis((folder / figure["source"]).with_name("kernels.npz"), ROOT / "docs" / "tables")
    print(f"{figure['source']} -> {target.relative_to(ROOT)}: {size} bytes")


def commands(body: str) -> list[tuple[str, str]]:
    """Return (command, shown output) pairs of a console block; a trailing backslash continues a command."""
    pairs: list[list[str]] = []
    for line in body.splitlines(keepends=True):
        if line.startswith("$ "):
            pairs.append([line[2:], ""])
        elif line.startswith("> ") or (pairs and pairs[-1][1] == "" and pairs[-1][0].endswith("\\\n")):
            pairs[-1][0] += line.removeprefix("> ")
        else:
            pairs[-1][1] += line
    return [(command.strip(), shown) for command, shown in pairs]


def run(command: str, shown: str, folder: Path, check: bool) -> int:
    print(f"$ {command}", flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if not check or matches(shown, done.stdout):
        return 0
    print(f"--- the page shows\n{shown}--- printed\n{done.stdout}---")
    return 1


def matches(shown: str, printed: str) -> bool:
    pattern = re.escape(plain(shown).strip()).replace(r"\.\.\.", r"[\s\S]*")
    return re.fullmatch(pattern, plain(printed).strip()) is not None


def plain(text: str) -> str:
    text = re.sub(r"\d+(\.\d+)? s\b", "N s", text)  # times
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def keep_table(figure: Path, folder: Path) -> None:
    """Keep what the gallery's tests read: the table of a recipe that tests run smaller, without constant columns."""
    if figure.parent.name not in CI_FLAGS:
        return
    with (figure.parent / "table.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    kept = [i for i in range(len(header)) if len({row[i] for row in rows}) > 1]
    folder.mkdir(exist_ok=True)
    with (folder / f"{figure.parent.name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([[short(row[i]) for i in kept] for row in (header, *rows)])


def keep_kurtosis(arrays: Path, folder: Path) -> None:
    """Keep what a figure of densities says in numbers, a line for each of its panels."""
    with np.load(arrays) as found:
        (axis,) = found["axis_order"]
        names = [name for name in found.files if name.startswith("excess_kurtosis")]
        columns = [found[name] for name in (axis, *names)]
    with (folder / f"{arrays.parent.name}-kurtosis.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((axis, *names))
        writer.writerows([[short(value) for value in row] for row in zip(*columns, strict=True)])


def short(cell: str) -> str:
    """Return a number with five digits, a word as it is."""
    try:
        return f"{float(cell):.5g}"
    except ValueError:
        return cell


def shrink(source: Path, target: Path) -> int:
    """Keep a smaller picture with the recipe that made it; return its size in bytes."""
    with Image.open(source) as image:
        kept = {key: value for key, value in image.text.items() if key in ("Software", "Recipe")}
        picture = image.convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    chunks = PngImagePlugin.PngInfo()
    for key, value in kept.items():
        chunks.add_text(key, value)
    target.parent.mkdir(exist_ok=True)
    picture.quantize(COLOURS, kmeans=4, dither=Image.Dither.NONE).save(target, optimize=True, pnginfo=chunks)
    return target.stat().st_size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
