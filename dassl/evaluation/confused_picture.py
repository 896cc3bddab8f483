"""A picture of the most frequent confusions: a row each, with images and a true example.

All lengths are inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dassl.utils.errors import UserError

DPI = 110
LABELS, TILE, GAP, EDGE = 2.35, 1.12, 0.16, 0.3  # widths: text, image, between, around
ROW, HEAD = 1.66, 1.06  # heights: one confusion, the title
WRONG, RIGHT, INK, FAINT, TRACK = "#c0392b", "#2e8b57", "#1d2733", "#66717d", "#e3e8ee"


@dataclass(frozen=True)
class Tile:
    """An image and what is written below its file name; path "": it is not known."""

    path: str
    caption: str


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another.

    Attributes:
        truth: name of the class.
        predicted: name of the class they were taken for.
        count: how many.
        total: of so many images of the class.
        images: some of them.
        example: an image of the class they were taken for; None: the test set has none.
    """

    truth: str
    predicted: str
    count: int
    total: int
    images: Sequence[Tile]
    example: Tile | None


class Sheet:
    """A figure with places in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure  # not pyplot: a notebook's backend stays as it is

        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        self.width, self.height = width, height

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"va": "top", "color": INK, "fontsize": 9, "parse_math": False, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        axes = self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return axes


def save_picture(
    path: str,
    confusions: Sequence[Confusion],
    title: str,
    facts: str,
    tiles: int,
    read: Callable[[str], Image.Image],
) -> None:
    """Writes a PNG.

    Args:
        path: of the file, whatever its suffix.
        confusions: a row each; none: the picture says so.
        title: what was evaluated.
        facts: how much of it went wrong.
        tiles: places for images in a row.
        read: path → RGB image, as the model saw it.
    """
    example_x = EDGE + LABELS + tiles * (TILE + GAP) + 2 * GAP
    sheet = Sheet(example_x + TILE + EDGE, HEAD + max(1, len(confusions)) * ROW + 0.1)
    sheet.text(EDGE, 0.22, title, fontsize=13, weight="bold")
    sheet.text(EDGE, 0.52, facts, fontsize=10, color=FAINT)
    heading = {"fontsize": 8.5, "color": FAINT, "va": "bottom"}
    if confusions:
        sheet.text(EDGE, HEAD - 0.08, "most frequent confusions", **heading)
        sheet.text(
            EDGE + LABELS,
            HEAD - 0.08,
            "the surest errors, with the probabilities of prediction and truth",
            **heading,
        )
        sheet.text(example_x, HEAD - 0.08, "a true example", **heading)
    else:
        sheet.text(EDGE, HEAD, "No image was misclassified.", fontsize=11)
    for i, confusion in enumerate(confusions):
        y = HEAD + i * ROW
        _labels(sheet, y, confusion)
        for k, tile in enumerate(confusion.images[:tiles]):
            _image(sheet, EDGE + LABELS + k * (TILE + GAP), y, tile, WRONG, read)
        example = confusion.example or Tile("", f"no {confusion.predicted}")
        _image(sheet, example_x, y, example, RIGHT, read)
    sheet.figure.savefig(path, format="png")


def _labels(sheet: Sheet, y: float, confusion: Confusion) -> None:
    """Draws "A, taken for B", the count, and a bar of the share of A."""
    truth, predicted = (_wrapped(name) for name in (confusion.truth, confusion.predicted))
    line = 0.19
    sheet.text(EDGE, y, truth, weight="bold", fontsize=11)
    y += line * (1 + truth.count("\n")) + 0.03
    sheet.text(EDGE, y, "taken for", fontsize=8, color=FAINT)
    y += 0.15
    sheet.text(EDGE, y, predicted, weight="bold", fontsize=11, color=WRONG)
    y += line * (1 + predicted.count("\n")) + 0.07
    share = confusion.count / confusion.total
    bar = sheet.axes(EDGE, y, LABELS - 0.5, 0.07)
    bar.set(xlim=(0, 1), ylim=(0, 1), facecolor=TRACK)
    bar.barh(0.5, share, height=1, color=WRONG)
    bar.spines[:].set_visible(False)
    text = f"{confusion.count:,} of {confusion.total:,} images ({share:.0%})"
    sheet.text(EDGE, y + 0.12, text, fontsize=8.5)


def _image(
    sheet: Sheet, x: float, y: float, tile: Tile, color: str, read: Callable[[str], Image.Image]
) -> None:
    axes = sheet.axes(x, y, TILE, TILE)
    axes.spines[:].set(color=color, linewidth=1.5)
    image = _thumbnail(tile.path, read)
    if image is None:
        axes.set_facecolor("#f5f6f8")
        text = "cannot be read" if tile.path else "no image"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, color=FAINT)
    else:
        axes.imshow(image)
    style = {"fontsize": 7, "ha": "center"}
    sheet.text(x + TILE / 2, y + TILE + 0.04, _shortened(Path(tile.path).name), **style)
    sheet.text(x + TILE / 2, y + TILE + 0.17, _shortened(tile.caption), color=color, **style)


def _thumbnail(path: str, read: Callable[[str], Image.Image]) -> Image.Image | None:
    """Returns the whole image in a grey square, or None if there is none."""
    if not path:
        return None
    try:
        image = read(path)
    except UserError:
        return None
    side = max(image.size)
    square = Image.new("RGB", (side, side), "#f5f6f8")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    pixels = round(TILE * DPI)
    # Small ones keep their pixels visible.
    how = Image.Resampling.NEAREST if side < pixels else Image.Resampling.LANCZOS
    return square.resize((pixels, pixels), how)


def _wrapped(name: str, width: int = 22, lines: int = 2) -> str:
    return textwrap.fill(name, width, max_lines=lines, placeholder=" …")


def _shortened(name: str, width: int = 18) -> str:
    return name if len(name) <= width else f"{name[:8]}…{name[-(width - 9) :]}"
