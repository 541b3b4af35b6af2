"""All figures of the documentation on one sheet, to be looked at together: `make contact-sheet`.

They stand in the order of the pages that show them, each under the name of its file; those that no page shows are last.
The sheet is `docs/_build/contact-sheet.png`, or the path that is given.
"""

import re
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "README.md", *sorted((DOCS / "tutorials").glob("*.md")), *sorted(DOCS.glob("*.md"))]
ACROSS, WIDTH, GAP = 4, 640, 16  # figures in a row; pixels of a figure and around it
CAPTION = 30


def figures() -> list[Path]:
    """Return every picture of docs/figures once, as pages show them."""
    shown: dict[Path, None] = {}
    for page in PAGES:
        for name in re.findall(r"!\[[^\]]*\]\(([^)\s]+\.png)\)", page.read_text(encoding="utf-8")):
            path = (page.parent / name).resolve()
            if path.is_file():
                shown[path] = None
    return [*shown, *sorted(set((DOCS / "figures").resolve().glob("*.png")) - set(shown))]


def sheet(paths: list[Path]) -> Image.Image:
    """Return the pictures in rows, each as wide as the others and as high as it is."""
    font = ImageFont.load_default(size=20)
    shown = []
    for path in paths:
        with Image.open(path) as image:
            height = round(image.height * WIDTH / image.width)
            shown.append((path.name, image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)))
    rows = [shown[i : i + ACROSS] for i in range(0, len(shown), ACROSS)]
    heights = [max(image.height for _, image in row) + CAPTION + GAP for row in rows]
    whole = Image.new("RGB", (ACROSS * (WIDTH + GAP) + GAP, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(whole)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (name, image) in enumerate(row):
            left = GAP + column * (WIDTH + GAP)
            draw.text((left, top), name, fill="black", font=font)
            whole.paste(image, (left, top + CAPTION))
        top += height
    return whole


def main(words: list[str]) -> None:
    target = Path(words[0]) if words else DOCS / "_build" / "contact-sheet.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    paths = figures()
    sheet(paths).save(target, optimize=True)
    print(f"{target}: {len(paths)} figures")


if __name__ == "__main__":
    main(sys.argv[1:])
