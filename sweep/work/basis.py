"""What a run rests on beside its settings: the content of files that may change under their names.

    weights     SHA-256 of the backbone's weights file; of OpenAI's names, the published checksum
    split       the dataset's `split_digest`: all lists with their order, labels and class names
    few_shot    the digests of the sample that the run's shots and seed draw
    template    the dataset's prompt, for methods that learn nothing
    <KEY>       SHA-256 of the file that any other setting names, such as MODEL.INIT_WEIGHTS
    trained     for an evaluation: which record the training has that it evaluates

A run counts as finished only if its record rests on what a run would rest on now. What cannot be
told, then or now, is taken as the same. Nothing large is read twice: digests are kept in the user's
cache, those of files by the files' state, those of data by the state of all that lists are made of.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import datasets
import train
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.engine.identity import flat
from dassl.utils import UserError, write_json
from dassl.utils.download import sha256_of
from dassl.utils.files import file_state, user_cache_home
from dassl.utils.logger import quiet
from dassl.utils.random_state import random_state_kept
from datasets.base import BenchmarkDataset
from datasets.folder import Folder
from datasets.readers.derived_files import derived_paths
from datasets.resources import SPLITS
from encoders.openai import MODEL_URLS, TINY, weights_file
from sweep.plan.run import Run
from sweep.work.kept import DamagedFileError, json_of, say_once

Basis = dict[str, Any]

LEVELS = 3  # of folders that a benchmark's lists are made of: <images>/<part>/<class>
BACKBONE = ("MODEL.BACKBONE.NAME", "MODEL.BACKBONE.PATH")

_listed: dict[tuple, str] | None = None  # states of folders, while nothing is to change


def basis_of(run: Run, root: str) -> Basis:
    """Returns what a run would rest on now, as far as it can be told.

    Args:
        run: the run.
        root: the run's DATASET.ROOT; empty: not known, so nothing is said of data.
    """
    settings = flat(run.settings)
    basis: Basis = {"weights": _weights(*(str(settings.get(key, "")) for key in BACKBONE))}
    for key, value in settings.items():
        if isinstance(value, str) and key not in BACKBONE and (path := _file(value, root)):
            basis[key] = digest_of(path)
    if root:
        basis |= _data(run, settings, Path(root))
    if run.source is not None:
        basis.pop("few_shot", None)  # its record has that of its training, which it rests on
    if run.source is None and not run.trains:
        dataset = DATASET_REGISTRY.get(settings["DATASET.NAME"])
        basis["template"] = settings.get("DATASET.TEMPLATE") or getattr(dataset, "template", None)
    return {key: value for key, value in basis.items() if value is not None}


def recorded_basis(record: Mapping[str, Any], begun_with: Mapping[str, Any]) -> Basis:
    """Returns what a record rests on.

    Args:
        record: what it says itself counts.
        begun_with: what was known when the run began.
    """
    data, weights = record.get("data"), record.get("weights")
    data = data if isinstance(data, dict) else {}
    sample = data.get("few_shot")
    own = {
        "split": data.get("split_digest"),
        "few_shot": sample.get("digest") if isinstance(sample, dict) else None,
        "weights": weights.get("sha256") if isinstance(weights, dict) else None,
    }
    return {**begun_with, **{key: value for key, value in own.items() if value}}


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the keys that both know and that differ."""
    return [key for key in sorted(then.keys() & now.keys()) if then[key] != now[key]]


def described(key: str, run: Run) -> str:
    """Returns in words what of a run's basis has changed."""
    names = {
        "weights": "the weights file",
        "split": f"the split of {run.dataset}",
        "few_shot": f"the few-shot sample of {run.dataset}, seed {run.seed}",
        "template": f"the template of {run.dataset}",
        "trained": "the training that it evaluates",
    }
    return names.get(key, f"the file that {key} names")


def fingerprint(record: Mapping[str, Any]) -> str:
    """Returns what tells a record from all others."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


# --- files ----------------------------------------------------------------------------------------


def digest_of(path: Path) -> str | None:
    """Returns a file's SHA-256 in hexadecimal; None: it cannot be read."""
    try:
        kept = _kept("files", (*file_state(path), path.stat().st_ino))
        known = _known(kept).get("sha256")
        if known is None:
            known = sha256_of(path)
            _keep(kept, {"sha256": known})
        return known
    except OSError:
        return None


def _weights(name: str, path: str) -> str | None:
    if not path and name in MODEL_URLS and name != TINY:
        return Path(MODEL_URLS[name]).parent.name  # OpenAI puts the checksum into the address
    if not path and name != TINY:
        return None  # of another package
    return digest_of(weights_file(Path(path) if path else name))


def _file(value: str, root: str) -> Path | None:
    """Returns the file that a setting names, as it is or below `root`."""
    given = os.path.expanduser(value)
    places = (given, os.path.join(root, given)) if value else ()
    return next((Path(place) for place in places if os.path.isfile(place)), None)


# --- data -----------------------------------------------------------------------------------------


@contextmanager
def data_stay() -> Iterator[None]:
    """Says that data do not change meanwhile, so that each folder is listed once."""
    global _listed
    before, _listed = _listed, {} if _listed is None else _listed
    try:
        yield
    finally:
        _listed = before


def _data(run: Run, settings: Mapping[str, Any], root: Path) -> Basis:
    """Returns the digests of the split and of the sample that a run would draw now."""
    dataset = DATASET_REGISTRY.get(settings["DATASET.NAME"])
    if not issubclass(dataset, BenchmarkDataset):
        return {}
    root = root.expanduser().absolute()
    folder, images = dataset.locate(root)
    if not images.is_dir():
        return {}
    own = {k: v for k, v in settings.items() if k.startswith("DATASET.") and "SUBSAMPLE" not in k}
    sample = f"split_fewshot/shot_{settings['DATASET.NUM_SHOTS']}-seed_{run.seed}"
    try:
        states = [_states(p) for p in derived_paths(folder, f"{sample}.json")]
        states += [_states(p) for p in derived_paths(folder, f"{sample}.pkl")]
        states += [_states(p) for p in _split_files(dataset, folder)]
        states += [_states(path) for v in own.values() if (path := _file(str(v), str(root)))]
        levels = 0 if issubclass(dataset, Folder) else LEVELS
        key = (str(root), sorted(own.items()), run.seed, states, _tree(folder, levels), _code())
        kept = _kept("data", key)
        known = _known(kept)
        if not known:
            known = _read_data(run, str(root))
            _keep(kept, known)
        return known
    except (UserError, OSError) as error:
        say_once(
            f"{run.dataset} cannot be read ({str(error).splitlines()[0]}), so results are taken to "
            "rest on it as it was"
        )
        return {}


def _read_data(run: Run, root: str) -> Basis:
    with quiet(), random_state_kept():
        args = run.arguments(Path(), "")
        args.root = root
        dataset = build_dataset(train.setup_cfg(args))
    return recorded_basis({"data": dataset.provenance}, {})


def _split_files(dataset: type[BenchmarkDataset], folder: Path) -> list[Path]:
    name = dataset.split_file
    return [*derived_paths(folder, name), SPLITS / f"{name}.gz"] if name else []


def _states(path: Path) -> tuple:
    with suppress(OSError):
        return file_state(path)
    return (str(path),)


def _tree(folder: Path, levels: int) -> str:
    """Returns a digest of what is in a folder, from which lists of images could be made.

    Args:
        folder: where the data lie.
        levels: so many levels of folders are listed, the next only asked for its time, and images
            count by their names; 0: all are listed, and the states of all files count.
    """
    key = (folder, levels)
    if _listed is None or key not in _listed:
        digest = hashlib.blake2b()
        for entry in _entries(folder, levels, set()):
            digest.update(repr(entry).encode())
        if _listed is None:
            return digest.hexdigest()
        _listed[key] = digest.hexdigest()
    return _listed[key]


def _entries(folder: Path, levels: int, above: set[tuple[int, int]]) -> Iterator[tuple]:
    """Yields what `_tree` is the digest of; `above` are the folders around, as links may loop."""
    found = folder.stat()
    place = (found.st_dev, found.st_ino)
    if place in above:
        return
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name.startswith(".") or _is_ours(entry.name):
            continue
        yield (entry.path,)
        if not entry.is_dir():
            if levels < 1 or not _is_image(entry.name):
                yield _states(Path(entry.path))
        elif levels == 1:
            yield (entry.stat().st_mtime_ns, entry.stat().st_ctime_ns)
        else:
            yield from _entries(Path(entry.path), levels - 1, above | {place})


def _is_ours(name: str) -> bool:
    """Whether it is called like what we write among the data."""
    return name == "split_fewshot" or (name.startswith("index_") and name.endswith(".json"))


def _is_image(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"))


def _code() -> str:
    """Returns a digest of the code that makes lists of files."""
    if _listed is not None and ("code",) in _listed:
        return _listed["code",]
    digest = hashlib.blake2b()
    for path in sorted(Path(datasets.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    if _listed is not None:
        _listed["code",] = digest.hexdigest()
    return digest.hexdigest()


# --- digests that are kept ------------------------------------------------------------------------


def _kept(kind: str, key: tuple) -> Path:
    """Returns the file in the user's cache that holds what was found out for a key."""
    name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    return user_cache_home() / "digests" / kind / f"{name}.json"


def _known(path: Path) -> dict[str, Any]:
    try:
        return json_of(path) or {}
    except DamagedFileError:
        return {}


def _keep(path: Path, content: Mapping[str, Any]) -> None:
    with suppress(OSError):  # the next one finds it out again
        write_json(dict(content), path)
