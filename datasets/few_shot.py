"""The few-shot sample of a run: drawn once per seed and kept beside the data."""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from dassl.data.datasets import Datum
from dassl.utils import DataError, read_json
from dassl.utils.logger import get_logger
from dassl.utils.safe_pickle import InertUnpickler, Record
from dassl.utils.text import composed
from datasets.readers.derived_files import derived_paths, save_derived
from datasets.resources import PUBLISHED

logger = get_logger(__name__)

Sample = tuple[list[Datum], list[Datum]]  # train, val


class SampledDataset(Protocol):
    """The part of a dataset (`BenchmarkDataset`) that drawing needs."""

    dataset_dir: str  # of the class: name of its folder; of the dataset: full path

    def relative_paths(self, items: list[Datum]) -> list[str]: ...

    def generate_fewshot_dataset(self, *sources: list[Datum], num_shots: int, rng: Any) -> Any: ...


def few_shot_sample(
    dataset: SampledDataset,
    train: list[Datum],
    val: list[Datum],
    num_shots: int,
    max_val_shots: int,
    seed: int,
    source: str,
) -> Sample:
    """Draws `num_shots` training and min(num_shots, max_val_shots) validation images per class.

    Python's generator is seeded with `seed` for this alone, and draws the training sample first:
    the same images as in the papers, whatever else was drawn before. A negative seed draws from
    the global generator and keeps nothing.

    Args:
        dataset: gives the folder, and draws.
        train, val: the full lists.
        source: digest of the split; a sample from another split is not used again.
    """
    shots = (num_shots, min(num_shots, max_val_shots))
    if seed < 0:
        return draw_sample(dataset, train, val, shots, random)
    name = f"split_fewshot/shot_{num_shots}-seed_{seed}.json"
    for stored in derived_paths(dataset.dataset_dir, name):
        sample = _read_stored(stored, dataset, source, train, val)
        if sample is not None and _is_of_size(sample, train, val, shots):
            return sample
    sample = draw_sample(dataset, train, val, shots, random.Random(seed))
    content = {"shots": num_shots, "seed": seed, "drawn_from": source}
    content["digest"] = sample_digests(dataset, *sample)
    for part, items in zip(("train", "val"), sample):
        paths = dataset.relative_paths(items)
        content[part] = [[path, i.label, i.classname] for path, i in zip(paths, items)]
    kept = save_derived(content, dataset.dataset_dir, name)
    if kept is not None:
        logger.info(f"Saving preprocessed few-shot data to {kept}")
    return sample


def draw_sample(
    dataset: SampledDataset,
    train: list[Datum],
    val: list[Datum],
    shots: tuple[int, int],
    rng: Any,
) -> Sample:
    """Draws the training sample and then the validation sample, `shots` images per class."""
    return (
        dataset.generate_fewshot_dataset(train, num_shots=shots[0], rng=rng),
        dataset.generate_fewshot_dataset(val, num_shots=shots[1], rng=rng),
    )


def sample_info(dataset: SampledDataset, sample: Sample, shots: int, seed: int) -> dict[str, Any]:
    """Compares a sample with the published one.

    Returns:
        {"shots", "seed", "digest": {"train", "val"}, "published"}; the last is None where there
        is no reference.
    """
    digest = sample_digests(dataset, *sample)
    references = _published().get(type(dataset).dataset_dir, {})
    reference = references.get(f"shot_{shots}-seed_{seed}")
    published = None
    if reference is not None:
        published = all(reference[part]["sha256"] == digest[part] for part in digest)
    return {"shots": shots, "seed": seed, "digest": digest, "published": published}


def describe_sample(folder: str, info: dict[str, Any]) -> str:
    """Returns what `sample_info` found for the dataset whose folder is called `folder`."""
    which = f"shots {info['shots']}, seed {info['seed']}"
    if info["published"] is None:
        return f"Few-shot sample: drawn here ({which}); none is published for {folder}"
    verdict = "the published one" if info["published"] else "differs from the published one"
    return f"Few-shot sample: {verdict} ({which})"


# --- digests --------------------------------------------------------------------------------------


def sample_digests(dataset: SampledDataset, train: list[Datum], val: list[Datum]) -> dict:
    """Returns both digests of a sample, on the paths that upstream's layout would have."""
    parts = {"train": train, "val": val}
    return {part: _paths_digest(dataset.relative_paths(items)) for part, items in parts.items()}


def split_digest(dataset: SampledDataset, split: tuple[list[Datum], ...]) -> str:
    """Returns SHA-256 over all lists of a split with their order, labels and class names."""
    whole = hashlib.sha256()
    parts: dict[int, bytes] = {}  # a list may be two parts of a split
    for items in split:
        if id(items) not in parts:
            rows = zip(dataset.relative_paths(items), items)
            text = "\n".join(f"{path}\t{item.label}\t{item.classname}" for path, item in rows)
            parts[id(items)] = hashlib.sha256(composed(text).encode()).digest()
        whole.update(parts[id(items)])
    return whole.hexdigest()


def _paths_digest(paths: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(map(composed, paths))).encode()).hexdigest()


@cache
def _published() -> dict[str, Any]:
    return {entry["root"]: entry for entry in read_json(PUBLISHED)["datasets"].values()}


# --- stored samples -------------------------------------------------------------------------------


def _is_of_size(
    sample: Sample, train: list[Datum], val: list[Datum], shots: tuple[int, int]
) -> bool:
    """Returns whether a sample has the images per class that a draw would have."""
    for items, full, n in zip(sample, (train, val), shots):
        wanted = {label: min(n, count) for label, count in _counts(full).items()}
        if n > 0 and _counts(items) != wanted:
            logger.warning(
                "Note: the stored few-shot sample has another number of images; drawing anew"
            )
            return False
    return True


def _counts(items: list[Datum]) -> Counter[int]:
    return Counter(item.label for item in items)


def _read_stored(
    stored: Path,
    dataset: SampledDataset,
    source: str,
    train: list[Datum],
    val: list[Datum],
) -> Sample | None:
    """Returns the stored sample, or None if there is none that was drawn from this very split."""
    old = stored.with_suffix(".pkl")  # written by the public implementation
    try:
        if stored.is_file():
            content = read_json(stored)
            if content["drawn_from"] != source:
                logger.warning(f"Note: {stored} was drawn from another split; drawing anew")
                return None
            rows = {part: [(row[0], row[1]) for row in content[part]] for part in ("train", "val")}
            if content["digest"] != {p: _paths_digest([r[0] for r in rows[p]]) for p in rows}:
                raise DataError(f"{stored} was changed after it was written")
            logger.info(f"Loading preprocessed few-shot data from {stored}")
        elif old.is_file():
            folder = Path(type(dataset).dataset_dir).name
            rows = {part: _rows_below(items, folder) for part, items in _unpickle(old).items()}
            logger.info(f"Loading preprocessed few-shot data from {old}")
        else:
            return None
        return _pick(dataset, train, rows["train"]), _pick(dataset, val, rows["val"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        logger.warning(
            f"Note: the stored few-shot sample does not fit the data ({error}); drawing anew"
        )
        return None


def _pick(dataset: SampledDataset, items: list[Datum], rows: list[tuple[str, int]]) -> list[Datum]:
    known = dict(zip(dataset.relative_paths(items), items))
    for path, label in rows:
        if known[path].label != label:
            raise DataError(f"{path} has label {label} there and {known[path].label} here")
    return [known[path] for path, _ in rows]


def _rows_below(items: list[Datum], folder: str) -> list[tuple[str, int]]:
    """Returns paths relative to the dataset's folder, wherever that lay when they were stored."""
    rows = []
    for item in items:
        parts = Path(item.impath.replace("\\", "/")).parts
        if folder not in parts:
            raise DataError(f"{item.impath} lies in no folder called {folder}")
        start = len(parts) - parts[::-1].index(folder)
        rows.append(("/".join(parts[start:]), item.label))
    return rows


class _DatumUnpickler(InertUnpickler):
    """Admits nothing but Datum, and of that only the attributes: a pickle could run any code."""

    def find_class(self, module: str, name: str) -> type[Record]:
        if (module, name) == ("dassl.data.datasets.base_dataset", "Datum"):
            return super().find_class(module, name)
        raise DataError(f"it wants to load {module}.{name}")


def _datum(record: Record) -> Datum:
    state = record.state
    return Datum(state["_impath"], state["_label"], state["_domain"], state["_classname"])


def _unpickle(path: Path) -> dict[str, list[Datum]]:
    try:
        content = _DatumUnpickler(io.BytesIO(path.read_bytes())).load()
        stored = {"train": content["train"], "val": content.get("val", ())}
        return {part: [_datum(record) for record in items] for part, items in stored.items()}
    except DataError as error:
        raise DataError(f"{path} is not opened: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(f"{path} is damaged: {error!r}") from None
