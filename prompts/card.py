"""A model card (Mitchell et al., arXiv 1810.03993) of an exported file, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.engine.run_folder import RECORDS
from dassl.utils.files import content_digest
from dassl.utils.results import accuracy_of, read_records, versions
from dassl.utils.text import on_one_line
from prompts.classifier import class_weights
from prompts.predictor import Predictor
from prompts.preparation import preparation

SHOWN = 200  # classes

_USE = {
    "prompts": """\
What was learned, and nothing of CLIP. In this project:

```bash
python -m prompts import {file} FOLDER
python predict.py FOLDER PICTURE
```
""",
    "classifier": """\
A matrix behind the image encoder of that very CLIP, in whatever program holds it:

```python
import json
from safetensors import safe_open

with safe_open("{file}", "pt") as file:
    names = json.loads(file.metadata()["classnames"])
    {tensors} = [file.get_tensor(name) for name in {listed}]

features = ...  # of that encoder, (batch, {width})
{formula}
```
""",
    "onnx": """\
Images (batch, 3, {height}, {width}), prepared as below, to logits (batch, {n_cls}):

```python
import json, onnxruntime

session = onnxruntime.InferenceSession("{file}")
names = json.loads(session.get_modelmeta().custom_metadata_map["classnames"])
(logits,) = session.run(None, {{"image": images}})
```
""",
}


def card(predictor: Predictor, kind: str, path: Path) -> str:
    """Returns the card of a file that was exported.

    Args:
        predictor: what it was exported from.
        kind: "prompts", "classifier" or "onnx".
        path: the file.
    """
    cfg, run = predictor.run.cfg, predictor.run
    method, names = cfg.TRAINER.NAME, [on_one_line(name) for name in predictor.classnames]
    weights = predictor.trainer.weights_used() or {}
    trained_here = run.made_by.get("classnames") == predictor.classnames
    rows = {
        "method": method,
        "CLIP": f"{weights.get('name', 'not known')}, SHA-256 `{weights.get('sha256', '?')}`",
        "trained on": _data(cfg, run.made_by),
        "recipe": _recipe(cfg, predictor.trainer.model_epoch),
        "accuracy": _accuracy(run.folder / RECORDS, predictor.trainer.model_epoch, trained_here),
        "this file": f"`{path.name}`, SHA-256 `{content_digest(path)}`",
        "made with": ", ".join(f"{k} {v}" for k, v in versions().items() if v),
    }
    use = _USE[kind].format(**_words(predictor, kind), file=path.name)
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


def _words(predictor: Predictor, kind: str) -> dict[str, Any]:
    """Returns what a kind's words on its use leave open."""
    if kind != "classifier":
        height, width = predictor.run.cfg.INPUT.SIZE
        return {"height": height, "width": width, "n_cls": len(predictor.classnames)}
    found = class_weights(predictor)
    tensors = ("weight", "bias") if found.bias is not None else ("weight", "exp_logit_scale")
    width = found.weight.shape[1]
    return {
        "tensors": ", ".join(tensors),
        "listed": tensors,
        "formula": found.formula,
        "width": width,
    }


def _data(cfg: Any, made_by: Mapping[str, Any]) -> str:
    data = made_by.get("data") or {}
    digest = data.get("split_digest") if isinstance(data, dict) else None
    shots = f"{cfg.DATASET.NUM_SHOTS} shots" if cfg.DATASET.NUM_SHOTS >= 1 else "all images"
    part = f"{cfg.DATASET.get('SUBSAMPLE_CLASSES', 'all')} classes"
    split = f", split `{digest[:12]}`" if isinstance(digest, str) else ""
    return f"{cfg.DATASET.NAME}, {part}, {shots}, seed {cfg.SEED}{split}"


def _recipe(cfg: Any, epoch: int | None) -> str:
    if epoch is None:
        return "nothing is learned"
    optim = cfg.OPTIM
    return (
        f"epoch {epoch} of {optim.MAX_EPOCH}, {optim.NAME}, rate {optim.LR:g}, "
        f"{optim.LR_SCHEDULER} schedule, batches of {cfg.DATALOADER.TRAIN_X.BATCH_SIZE}"
    )


def _accuracy(path: Path, epoch: int | None, trained_here: bool) -> str:
    """Returns what the run's own test of these weights said."""
    records = read_records(path) if path.is_file() else ()
    fitting = [r for r in records if r.get("epoch") == epoch and r.get("split") == "test"]
    values = [accuracy for r in fitting if (accuracy := accuracy_of(r)) is not None]
    if not values or not math.isfinite(values[-1]):
        return "not tested"
    classes = "" if trained_here else ", of the classes it was trained on"
    return f"{values[-1]:.1f}% of {fitting[-1].get('total'):,} test images{classes}"
