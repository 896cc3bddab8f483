"""What a sweep looks at before it runs on images of one's own: classes, split, backbone."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import train
from dassl.data.datasets import build_dataset
from dassl.utils import ConfigError
from dassl.utils.files import write_text
from dassl.utils.logger import quiet
from dassl.utils.random_state import random_state_kept
from dassl.utils.text import counted, csv_cell
from datasets.base import BenchmarkDataset
from datasets.readers.split_files import PARTS, paths_below
from encoders.tiny import KNOWS
from sweep.plan.own import is_own, own_name
from sweep.plan.recipes import EMBEDDED
from sweep.plan.run import Run

SPLITS = "splits"  # folder in the output folder
HALVES = 4  # classes, so that both base and new classes are two or more


def prepare_own_data(runs: Sequence[Run], root: str, output: Path) -> list[str]:
    """Keeps the split of each dataset of one's own in `<output>/splits/<name>.csv`.

    The files have the columns path,label,split, which DATASET.CSV reads.

    Args:
        runs: the plan.
        root: of --root.
        output: the sweep's output folder.

    Returns:
        Sentences that say what the runs are done on.

    Raises:
        ConfigError: there are too few classes for base and new ones.
        DataError, MissingFileError: the images cannot be used.
    """
    said = []
    for name in dict.fromkeys(run.dataset for run in runs if is_own(run.dataset)):
        mine = [run for run in runs if run.dataset == name]
        dataset = _whole_dataset(mine[0], root)
        n_cls = dataset.num_classes
        if n_cls < HALVES and any(run.classes == "new" for run in mine):
            raise ConfigError(
                f"{own_name(name)} has {counted(n_cls, 'class', 'classes')}; from base to new "
                f"classes takes {HALVES} or more, two to learn and two that are new. `fewshot` "
                "trains and tests on all classes."
            )
        path = output.absolute() / SPLITS / f"{own_name(name)}.csv"
        write_text(path, split_table(dataset))
        sizes = ", ".join(f"{len(items):,} {part}" for part, items in _parts(dataset).items())
        said.append(
            f"{own_name(name)}: {counted(n_cls, 'class', 'classes')}; {sizes} images. The split "
            f"is kept in {path}; to hold on to it when images come or go: --opts DATASET.CSV "
            f"{shlex.quote(str(path))}"
        )
    return said + embedded_note(runs)


def embedded_note(runs: Sequence[Run]) -> list[str]:
    """Returns what to know where the embedded CLIP is to look at pictures; [] if it is not."""
    strange = {
        own_name(run.dataset)
        for run in runs
        if run.dataset != EMBEDDED and run.settings["MODEL"]["BACKBONE"]["NAME"] == "tiny"
    }
    if not strange:
        return []
    return [f"Note: {', '.join(sorted(strange))}: {KNOWS} Next: --backbone ViT-B/16"]


def _whole_dataset(run: Run, root: str) -> BenchmarkDataset:
    with quiet(), random_state_kept():
        cfg = train.setup_cfg(run.arguments(Path(), root))
        cfg.defrost()
        cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES = -1, "all"
        return build_dataset(cfg)


def _parts(dataset: BenchmarkDataset) -> dict[str, list]:
    return dict(zip(PARTS, (dataset.train_x, dataset.val or [], dataset.test)))


def split_table(dataset: BenchmarkDataset) -> str:
    """Returns a CSV table: path below the dataset's root, class, part."""
    classes = [pair[0] for pair in dataset.provenance["class_names"]]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split"))
    for part, items in _parts(dataset).items():
        for path, item in zip(paths_below(dataset.image_dir, items), items):
            table.writerow((csv_cell(path), csv_cell(classes[item.label]), part))
    return text.getvalue()
