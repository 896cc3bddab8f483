"""A model card (Mitchell et al., arXiv 1810.03993) of an exported file, in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl import __version__
from dassl.engine.run_folder import RECORDS
from dassl.utils.files import content_digest
from dassl.utils.results import accuracy_of, is_of, read_records, versions
from dassl.utils.text import on_one_line, visible
from prompts.predictor import Predictor
from prompts.preparation import preparation, weights_of
from prompts.usage import usage

SHOWN = 200  # classes
OWN_DATA = "Folder"


def card(predictor: Predictor, kind: str, path: Path) -> str:
    """Returns the card of a file that was exported.

    Args:
        predictor: what it was exported from.
        kind: "prompts", "classifier" or "onnx".
        path: the file.
    """
    cfg, run = predictor.run.cfg, predictor.run
    method, names = cfg.TRAINER.NAME, list(map(_as_text, predictor.classnames))
    weights = weights_of(predictor)
    made_with = {"prompt-learning": __version__, **versions()}
    learns = bool(predictor.trainer.get_model_names())
    trained_here = run.made_by.get("classnames") == predictor.classnames
    template = getattr(predictor.trainer.dm.dataset, "template", None)
    rows = {
        "method": method,
        "CLIP": f"{weights.get('name', 'not known')}, SHA-256 `{weights.get('sha256', '?')}`",
        "trained on" if learns else "made for": _data(cfg, run.made_by),
        "recipe": _recipe(predictor),
        **({} if learns else {"prompt": f"`{_as_text(str(template))}`"}),
        "accuracy": _accuracy(predictor, trained_here)
        if learns or template == run.template
        else "not tested with this prompt",
        "this file": f"`{path.name}`, SHA-256 `{content_digest(path)}`",
        "made with": ", ".join(f"{k} {v}" for k, v in made_with.items() if v),
    }
    use = usage(predictor, kind, path.name)
    prepared = "".join(f"- {key}: {value}\n" for key, value in preparation(cfg).items())
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN:,} more, in the file"
    new = "" if trained_here else " It was trained on others; these came with the export."
    return (
        f"# {method} for {len(names)} classes\n\n"
        "| | |\n| --- | --- |\n"
        + "".join(f"| {key} | {value} |\n" for key, value in rows.items())
        + f"\n## Use\n\n{use}\n## Pictures\n\n{prepared}"
        f"\n## Classes\n\n{', '.join(names[:SHOWN])}{more}.{new}\n"
        "\n## Limits\n\nIt names one of its classes for whatever it is shown. Accuracy holds for "
        "pictures like those of the test set; CLIP's own limits and terms of use come with it.\n"
    )


def _as_text(name: str) -> str:
    """Returns a name on one line, with what Markdown and HTML would take for theirs escaped."""
    return re.sub(r"([\\`<>|])", r"\\\1", visible(on_one_line(name)))


def _data(cfg: Any, made_by: Mapping[str, Any]) -> str:
    data = made_by.get("data") or {}
    digest = data.get("split_digest") if isinstance(data, dict) else None
    shots = f"{cfg.DATASET.NUM_SHOTS} shots" if cfg.DATASET.NUM_SHOTS >= 1 else "all images"
    part = f"{cfg.DATASET.get('SUBSAMPLE_CLASSES', 'all')} classes"
    split = f", split `{digest[:12]}`" if isinstance(digest, str) else ""
    name = cfg.DATASET.NAME
    if name == OWN_DATA:
        name = f"own images, {_as_text(Path(cfg.DATASET.CSV or cfg.DATASET.ROOT).stem)}"
    return f"{name}, {part}, {shots}, seed {cfg.SEED}{split}"


def _recipe(predictor: Predictor) -> str:
    cfg, trainer = predictor.run.cfg, predictor.trainer
    if trainer.model_epoch is None:
        return "nothing is learned: hand-written prompts"
    if all(trainer.parts_of(name)[1] is None for name in trainer.get_model_names()):
        return "solved at once, without gradient descent"
    optim = cfg.OPTIM
    return (
        f"epoch {trainer.model_epoch} of {optim.MAX_EPOCH}, {optim.NAME}, rate {optim.LR:g}, "
        f"{optim.LR_SCHEDULER} schedule, batches of {cfg.DATALOADER.TRAIN_X.BATCH_SIZE}"
    )


def _accuracy(predictor: Predictor, trained_here: bool) -> str:
    """Returns what the run's own test of these weights said."""
    path, epoch = predictor.run.folder / RECORDS, predictor.trainer.model_epoch
    records = (
        [r for r in read_records(path) if is_of(r, predictor.run.cfg)] if path.is_file() else []
    )
    fitting = [r for r in records if r.get("epoch") == epoch and r.get("split") == "test"]
    values = [accuracy for r in fitting if (accuracy := accuracy_of(r)) is not None]
    if not values or not math.isfinite(values[-1]):
        return "not tested"
    classes = "" if trained_here else ", of the classes it was trained on"
    return f"{values[-1]:.1f}% of {fitting[-1].get('total'):,} test images{classes}"
