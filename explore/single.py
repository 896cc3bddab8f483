"""Sections on single runs: training curves, calibration, confusions, mistakes, what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from explore import needs
from explore.curves import read_curves
from explore.learned import learned
from explore.mistakes import gallery
from explore.predictions import BINS, bins, calibration_error, confusions
from explore.runs import Seen, where
from pages import Cell, Code, Column, Line, Section, Table, line_chart
from pages.parts import Block

CURVES = {  # what a trainer writes → title, axis
    "loss": ("Training loss", "loss"),
    "acc": ("Accuracy on training batches", "accuracy (%)"),
}
PAIRS = 10  # of confused classes, in a table
MOST_PICTURES = 1000  # on a page, some 5 MB


def by_test(runs: Sequence[Seen]) -> dict[tuple[str, str], list[Seen]]:
    """Returns dataset and classes → runs tested there."""
    found: dict[tuple[str, str], list[Seen]] = {}
    for one in runs:
        found.setdefault(one.test, []).append(one)
    return found


def training(runs: Sequence[Seen], slots: Mapping[str, int]) -> Section:
    """Loss and accuracy by epoch, a chart a dataset and part."""
    blocks: list[Block] = []
    for test, some in by_test([one for one in runs if one.trained_here]).items():
        found = {one: read_curves(one.folder, one.run.cfg.OPTIM.MAX_EPOCH) for one in some}
        for tag, (title, axis) in CURVES.items():
            lines = [
                Line(one.name, slots[one.name], curves[tag])
                for one, curves in found.items()
                if tag in curves
            ]
            if lines:
                blocks.append(line_chart(f"{title}, {where(test)}", "epoch", axis, lines))
        blocks += [_no_curves(one) for one, curves in found.items() if not curves]
    about = "Mean over the steps of an epoch, as the trainer logged them."
    if not blocks:
        about = "None of the runs trained here: give the --output-dir of a training, too."
    return Section("Training", "Training curves", blocks, about)


def _no_curves(one: Seen) -> Code:
    return Code(
        f"{one.folder} holds no TensorBoard file: {one.name} logs no steps, or the file is gone."
    )


def calibration(runs: Sequence[Seen], slots: Mapping[str, int]) -> Section:
    """Accuracy against confidence, and the expected calibration error."""
    blocks: list[Block] = []
    for test, some in by_test([one for one in runs if one.predictions]).items():
        lines = [
            Line(
                one.name,
                slots[one.name],
                [(b.confidence, b.accuracy) for b in bins(one.predictions)],
            )
            for one in some
        ]
        title = where(test)
        ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
        axes = ("mean probability of the predicted class", "share that is right")
        blocks.append(line_chart(title, *axes, lines, (0, 1), ticks, diagonal=True))
        blocks.append(_errors(title, some))
    about = (
        f"Images in {BINS} bins by the probability of the class that was predicted. On the dashed "
        "line a run is as often right as it is sure; below it, it is too sure. ECE weighs the "
        "distances by the images in each bin (arXiv 1706.04599, equation 3)."
    )
    return Section("Calibration", "Calibration", [*blocks, *missing(runs)], about)


def _errors(title: str, runs: Sequence[Seen]) -> Table:
    columns = [
        Column("method"),
        Column("seed", "Of the run.", number=True),
        Column("ECE (%)", "Expected calibration error.", number=True),
        Column("confidence (%)", "Mean probability of the predicted class.", number=True),
        Column("accuracy (%)", "Share of the images that is right.", number=True),
    ]
    rows = []
    for one in runs:
        numbers = (
            100 * calibration_error(one.predictions),
            100 * float(one.predictions.confidence.mean()),
            100 * float(one.predictions.right.mean()),
        )
        cells = (Cell(f"{number:.1f}", number) for number in numbers)
        rows.append([Cell(one.name), Cell(str(one.seed), one.seed), *cells])
    return Table(title, columns, rows)


def confused(runs: Sequence[Seen]) -> Section:
    """The classes that were taken for others, most often first."""
    blocks: list[Block] = []
    for test, some in by_test([one for one in runs if one.predictions]).items():
        counts = {one: confusions(one.predictions) for one in some}
        pairs = {pair for found in counts.values() for pair, _ in found.most_common(PAIRS)}
        order = sorted(pairs, key=lambda p: (-sum(c[p] for c in counts.values()), p))[:PAIRS]
        columns = [
            Column("is", "The true class."),
            Column("taken for", "The class that was predicted."),
            *(Column(one.name, "Number of images.", number=True) for one in some),
        ]
        rows = [
            [*map(Cell, pair), *(Cell(str(found[pair]), found[pair]) for found in counts.values())]
            for pair in order
        ]
        blocks.append(Table(where(test), columns, rows))
    about = f"Up to {PAIRS} pairs for each test."
    return Section("Confusions", "Confused classes", [*blocks, *missing(runs)], about)


def mistakes(runs: Sequence[Seen], at_most: int) -> Section:
    """Pictures that a run got wrong and was surest of."""
    blocks: list[Block] = []
    about = "What it is, with the probability that it was given; then the three likeliest classes."
    few = max(1, MOST_PICTURES // max(1, len(runs)))
    if few < at_most:
        about += f" {few} of each run: more would make the page too large for a browser."
        at_most = few
    for one in runs:
        if found := gallery(one, at_most):
            blocks.append(found)
            if not any(picture.data for picture in found.pictures):
                blocks.append(
                    Code(f"The pictures are not below {one.images}: say where with --root FOLDER.")
                )
        elif one.predictions:
            blocks.append(Code(f"{one.title}: no image is wrong."))
    return Section("Mistakes", "The surest mistakes", [*blocks, *missing(runs)], about)


def missing(runs: Sequence[Seen]) -> Iterator[Code]:
    """What to type for the runs without predictions, or for the first, if there are many."""
    lacking = [one for one in runs if not one.predictions]
    yield from (needs.predictions(one) for one in lacking[:1])
    if len(lacking) > 1:
        yield Code(f"The same for {len(lacking) - 1} more runs.")


def prompts(runs: Sequence[Seen]) -> list[Section]:
    """The words nearest to learned vectors, and the prompts as tokens."""
    near: list[Block] = []
    read: list[Block] = []
    for one in runs:
        if one.trained_here or not one.learns:
            words, tokens = learned(one)
            near += words
            read += tokens
    about = (
        "Words of CLIP's vocabulary nearest to each learned vector (arXiv 2109.01134, section 4.3)"
    )
    none = Code("None of the runs learned anything here: give the --output-dir of a training, too.")
    seen = "As CLIP reads them; v1, v2, … are learned vectors, start and end are CLIP's own marks."
    return [
        Section("Words", "Nearest words", near or [none], f"{about}; they rarely make sense."),
        Section("Prompts", "Prompts as tokens", read or [none], seen),
    ]
