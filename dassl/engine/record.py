"""What an evaluation leaves behind: its record, and the line that says what its number rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.engine import identity
from dassl.utils.errors import NonFiniteScoresError
from dassl.utils.logger import get_logger
from dassl.utils.results import accuracy_of, config_digest, read_records, versions
from dassl.utils.text import counted

logger = get_logger(__name__)


def evaluated(trainer: Any, split: str) -> dict[str, float]:
    """Returns the evaluator's results; scores that are no numbers are refused by image."""
    try:
        return trainer.evaluator.evaluate()
    except NonFiniteScoresError as error:
        items = trainer.dm.dataset.val if split == "val" else trainer.dm.dataset.test
        if error.position is None or not 0 <= error.position < len(items or ()):
            raise
        raise NonFiniteScoresError(f"{error} It is {items[error.position].impath}.") from None


def evaluation_record(
    trainer: Any, split: str, results: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """Returns everything worth knowing about one evaluation of a SimpleTrainer as plain data."""
    cfg = trainer.cfg
    counts = getattr(trainer.evaluator, "per_class_counts", dict)()
    on_gpu = trainer.device.type == "cuda"
    trained, data = identity.training_of(trainer.learned_by), _data_of(trainer)
    return {
        "status": "finished",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "split": split,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
        "shots": trained.get("DATASET.NUM_SHOTS", cfg.DATASET.NUM_SHOTS),
        "seed": trained.get("SEED", cfg.SEED),
        "data": data,
        "epoch": trainer.model_epoch,
        "after_training": trainer.ends_training,
        # Of weights that were loaded, what the configuration of an evaluation need not say.
        **({"trained": trained} if trained and not trainer.ends_training else {}),
        # A training that went on from a checkpoint without the states of the generators.
        **({"draws_differ": True} if trainer.draws_differ else {}),
        "backbone": cfg.MODEL.BACKBONE.PATH or cfg.MODEL.BACKBONE.NAME,
        "weights": trainer.weights_used(),
        "precision": precision_of(trainer),
        "metrics": {name: float(value) for name, value in results.items()},
        "total": sum(total for total, _ in counts.values()),
        "correct": sum(correct for _, correct in counts.values()),
        "per_class": [
            {"label": k, "name": trainer.lab2cname.get(k), "total": n, "correct": c}
            for k, (n, c) in counts.items()
        ],
        "seconds": seconds,
        # Of the run so far, on its GPU; on a CPU nothing tells a run's memory from the process'.
        "peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "config_digest": config_digest(cfg),
        **versions(),
    }


def _data_of(trainer: Any) -> dict[str, Any]:
    """Returns where the data are from; the few-shot sample is that of the training."""
    data = dict(getattr(trainer.dm.dataset, "provenance", {}))
    if trainer.learned_by is not None:
        theirs = trainer.learned_by.get("data")
        data["few_shot"] = theirs.get("few_shot") if isinstance(theirs, dict) else None
    return data


def precision_of(trainer: Any) -> str:
    """Returns what a trainer computes in: what it says, or what its scaler and weights show."""
    if "precision" in vars(trainer):
        return trainer.precision
    scaler = getattr(trainer, "scaler", None)
    if scaler is not None and scaler.is_enabled():
        return "amp"
    registered = (trainer.parts_of(name)[0] for name in trainer.get_model_names())
    modules = (
        part for part in (*registered, *vars(trainer).values()) if isinstance(part, nn.Module)
    )
    types = {p.dtype for module in modules for p in module.parameters()}
    names = {torch.float16: "fp16", torch.bfloat16: "bf16"}
    return next((name for dtype, name in names.items() if dtype in types), "fp32")


def accuracy_if_finished(trainer: Any) -> float | None:
    """Returns what the output folder's record of a trainer's very run says; None: not finished.

    Raises:
        CheckpointError: it was made with other weights or data under the same names.
    """
    path, own = Path(trainer.output_dir) / "results.jsonl", config_digest(trainer.cfg)
    for record in reversed(list(read_records(path)) if path.is_file() else []):
        at_the_end = record.get("after_training") or not trainer.get_model_names()
        if record.get("config_digest") != own or not at_the_end:
            continue
        value = _value_of(record, trainer.cfg.TEST.EVALUATOR == "Classification")
        if value is None:
            logger.warning(f"Note: {path} holds no accuracy that can be true, so it says nothing")
            continue
        now = json.loads(json.dumps(trainer.made_by()))
        parts = {key: record.get(key) for key in ("weights", "data")}
        then = {key: part for key, part in parts.items() if isinstance(part, dict)}
        identity.check_same_run({**then, "classnames": now["classnames"]}, now, path)
        return value
    return None


def _value_of(record: Mapping[str, Any], counted: bool) -> float | None:
    """Returns the first value of a record, the accuracy in per cent of the engine's evaluator."""
    if counted:
        return accuracy_of(record)
    metrics = record.get("metrics")
    values = list(metrics.values()) if isinstance(metrics, dict) else []
    return values[0] if values and isinstance(values[0], float) else None


def title(record: Mapping[str, Any]) -> str:
    """Returns what was evaluated, in a line."""
    classes = "" if record["classes"] == "all" else f", {record['classes']} classes"
    what = f"{record['trainer']} on {record['dataset']}{classes}, {record['split']} set"
    return what + (f", seed {record['seed']}" if record["seed"] >= 0 else "")


def what_it_rests_on(trainer: Any, split: str) -> str:
    """Returns classes, images, shots, split and weights behind a number, in a line."""
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    provenance = getattr(dataset, "provenance", {})
    images = len(dataset.val if split == "val" else dataset.test)
    parts = [
        cfg.DATASET.NAME,
        f"{dataset.num_classes} classes ({cfg.DATASET.get('SUBSAMPLE_CLASSES', 'all')})",
        counted(images, f"{split} image"),
    ]
    trained = identity.training_of(trainer.learned_by)
    if trained or trainer.learned_by is None:
        shots = trained.get("DATASET.NUM_SHOTS", cfg.DATASET.NUM_SHOTS)
        parts.append(_shots(shots, _data_of(trainer).get("few_shot") or {}))
    else:
        parts.append("weights of unknown origin")
    if digest := provenance.get("split_digest"):
        parts.append(f"{getattr(dataset, 'split_source', 'split')} {digest[:8]}")
    if weights := trainer.weights_used():
        parts.append(f"{weights['name']} {weights['sha256'][:8]}")
    return ", ".join(parts)


def _shots(shots: int, sample: Mapping[str, Any]) -> str:
    if shots < 1:
        return "no few-shot sample"
    kind = {True: " (the published sample)", False: " (not the published sample)"}
    return f"{counted(shots, 'shot')}{kind.get(sample.get('published'), '')}"
