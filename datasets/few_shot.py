"""The few-shot sample of a run: drawn once per seed and kept beside the data."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import DataError, read_json, write_json


def few_shot_sample(
    dataset: DatasetBase,
    train: list[Datum],
    val: list[Datum],
    num_shots: int,
    max_val_shots: int,
    seed: int,
) -> tuple[list[Datum], list[Datum]]:
    """Draws `num_shots` training and min(num_shots, max_val_shots) validation images per class.

    Python's generator is seeded with `seed` for this alone, and draws the training sample first:
    the same images as in the papers, whatever else was drawn before. A negative seed draws from
    the global generator and keeps nothing.

    Args:
        dataset: gives the folder, and draws.
        train, val: the full lists.
    """
    val_shots = min(num_shots, max_val_shots)
    if seed < 0:
        return _draw(dataset, train, val, num_shots, val_shots, random)
    root = Path(dataset.dataset_dir)
    cache = root / "split_fewshot" / f"shot_{num_shots}-seed_{seed}.json"
    source = _digest(_rows(train, root) + _rows(val, root))
    stored = _read_cache(cache, root, source, train, val)
    if stored is not None:
        return stored
    sample = _draw(dataset, train, val, num_shots, val_shots, random.Random(seed))
    _write_cache(cache, root, source, num_shots, seed, sample)
    return sample


def sample_digest(items: list[Datum], root: Path) -> str:
    """Returns SHA-256 of the sorted relative paths, the form of the published digests."""
    return hashlib.sha256("\n".join(sorted(r[0] for r in _rows(items, root))).encode()).hexdigest()


def _draw(dataset, train, val, num_shots, val_shots, rng):  # type: ignore[no-untyped-def]
    return (
        dataset.generate_fewshot_dataset(train, num_shots=num_shots, rng=rng),
        dataset.generate_fewshot_dataset(val, num_shots=val_shots, rng=rng),
    )


def _rows(items: list[Datum], root: Path) -> list[tuple[str, int, str]]:
    return [(Path(i.impath).relative_to(root).as_posix(), i.label, i.classname) for i in items]


def _digest(rows: list) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _write_cache(
    cache: Path,
    root: Path,
    source: str,
    num_shots: int,
    seed: int,
    sample: tuple[list[Datum], list[Datum]],
) -> None:
    train, val = sample
    content = {
        "shots": num_shots,
        "seed": seed,
        "drawn_from": source,
        "train": _rows(train, root),
        "val": _rows(val, root),
    }
    print(f"Saving preprocessed few-shot data to {cache}")
    try:
        write_json(content, cache)
    except OSError as error:
        print(f"Note: the sample is not kept, because {cache.parent} cannot be written ({error})")


def _read_cache(
    cache: Path, root: Path, source: str, train: list[Datum], val: list[Datum]
) -> tuple[list[Datum], list[Datum]] | None:
    """Returns the stored sample, or None if there is none that was drawn from this very split."""
    old = cache.with_suffix(".pkl")  # written by the public implementation
    known = {"train": _by_path(train, root), "val": _by_path(val, root)}
    try:
        if cache.is_file():
            content = read_json(cache)
            if content["drawn_from"] != source:
                print(f"Note: {cache} was drawn from another split; drawing anew")
                return None
            paths = {part: [row[0] for row in content[part]] for part in known}
            print(f"Loading preprocessed few-shot data from {cache}")
        elif old.is_file():
            paths = {part: _paths_below(items, root) for part, items in _unpickle(old).items()}
            print(f"Loading preprocessed few-shot data from {old}")
        else:
            return None
        return tuple([known[part][p] for p in paths[part]] for part in ("train", "val"))
    except (KeyError, TypeError, DataError) as error:
        print(f"Note: the stored few-shot sample does not fit the data ({error}); drawing anew")
        return None


def _by_path(items: list[Datum], root: Path) -> dict[str, Datum]:
    return {Path(item.impath).relative_to(root).as_posix(): item for item in items}


def _paths_below(items: list[Datum], root: Path) -> list[str]:
    """Returns paths relative to the data set's folder, wherever that lay when they were stored."""
    paths = []
    for item in items:
        parts = Path(item.impath.replace("\\", "/")).parts
        if root.name not in parts:
            raise DataError(f"{item.impath} lies in no folder called {root.name}")
        start = len(parts) - parts[::-1].index(root.name)
        paths.append("/".join(parts[start:]))
    return paths


class _DatumUnpickler(pickle.Unpickler):
    """Admits nothing but Datum: a pickle could otherwise run any code."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("dassl.data.datasets.base_dataset", "Datum"):
            return Datum
        raise DataError(f"it wants to load {module}.{name}")


def _unpickle(path: Path) -> dict[str, list[Datum]]:
    try:
        content = _DatumUnpickler(io.BytesIO(path.read_bytes())).load()
        parts = {part: list(content[part]) for part in ("train", "val")}
    except DataError as error:
        raise DataError(f"{path} is not opened: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(f"{path} is damaged: {error!r}") from None
    if not all(isinstance(item, Datum) for items in parts.values() for item in items):
        raise DataError(f"{path} holds other things than images")
    return parts
