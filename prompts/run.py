"""A run's folder → its trainer, built without any data.

config.yaml                   the merged configuration: method, backbone, preparation of images
model.json                    method, class names, template, SHA-256 of CLIP's weights
<part>/model.pth.tar-<epoch>  what was learned; nothing, where there is nothing to learn

Folders of earlier versions have no model.json: the checkpoint says the same, but for the template.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from yacs.config import CfgNode

import train
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, TrainerBase, identity
from dassl.engine.build import supplied
from dassl.engine.others import load_trained
from dassl.engine.run_folder import CONFIG, MODEL
from dassl.utils import CheckpointError, ConfigError, MissingFileError, load_checkpoint, read_json
from dassl.utils.checkpoint import BEST_FILE, saved_epochs
from dassl.utils.device import DeviceError, prepare_device
from dassl.utils.files import PathLike, listed
from dassl.utils.logger import quiet
from dassl.utils.random_state import random_state_kept
from encoders.open_clip import LOCAL, PREFIX
from trainers import is_foreign
from trainers.clip_trainer import backbone_name

# Settings that say where a training began: nothing of it is needed once it has ended.
BEGINNINGS = ("RESUME", "", "MODEL.INIT_WEIGHTS", "")


@dataclass(frozen=True)
class Run:
    """What a run's folder says.

    Attributes:
        folder: the folder.
        cfg: the configuration.
        made_by: method, class names, template, weights (`dassl.engine.identity`).
    """

    folder: Path
    cfg: CfgNode
    made_by: Mapping[str, Any]

    @property
    def classnames(self) -> list[str]:
        return self.made_by["classnames"]

    @property
    def backbone(self) -> str:
        """What to call CLIP's weights: a name, a file, or both."""
        return backbone_name(self.cfg)

    @property
    def template(self) -> str | None:
        """The dataset's hand-written prompt; None: not known."""
        own = getattr(self.cfg.DATASET, "TEMPLATE", "") or _template_of(self.cfg.DATASET.NAME)
        return self.made_by.get("template") or own


def read_run(folder: PathLike, backbone_path: str = "", device: str = "") -> Run:
    """Reads what a run's folder says; no weights are loaded.

    Args:
        folder: output folder of `train.py`.
        backbone_path: where CLIP's weights are now, if they were a file that has moved, or a folder
            of open_clip's.
        device: "cpu" or "cuda"; "": as the run's configuration says.

    Raises:
        MissingFileError: there is no such folder, or it is of no run.
        ConfigError, DataError, CheckpointError: it is damaged.
        DeviceError: the device is not there.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise MissingFileError(f"there is no folder {path}: give the --output-dir of a training")
    if not (path / CONFIG).is_file():
        raise MissingFileError(
            f"{path} holds no {CONFIG}, so it is no run's folder: give the --output-dir of a "
            "training"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("the device is to be cuda, and torch finds no GPU: leave it out, or cpu")
    opts = [*BEGINNINGS, *(["USE_CUDA", str(device == "cuda")] if device else [])]
    file, name = backbone_path, ""
    if backbone_path and Path(backbone_path).expanduser().is_dir():
        file, name = "", f"{PREFIX}{LOCAL}{backbone_path}"
    args = Namespace(config_file=str(path / CONFIG), backbone=name, backbone_path=file, opts=opts)
    cfg = train.setup_cfg(args)
    return Run(path, cfg, _made_by(path, cfg))


def _made_by(folder: Path, cfg: CfgNode) -> dict[str, Any]:
    source = folder / MODEL
    if source.is_file():
        found = read_json(source)
    else:
        files = sorted(folder.glob("*/model*.pth.tar*"))
        source = files[0] if files else source
        content = load_checkpoint(str(files[0])) if files else {}
        found = content.get(identity.KEY) if isinstance(content, dict) else None
        found = {"trainer": cfg.TRAINER.NAME} if found is None else found  # nobody says
    names = found.get("classnames", []) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{source} is damaged: it does not list the names of classes")
    return {**found, "classnames": names}


def _template_of(dataset: str) -> str | None:
    known = DATASET_REGISTRY.get(dataset) if dataset in DATASET_REGISTRY else None
    return getattr(known, "template", None)


def checked_classes(names: list[str]) -> list[str]:
    """Returns names of classes, without blanks around them.

    Raises:
        ConfigError: there is none, one is empty, or two are the same to CLIP.
    """
    names = [name.strip() for name in names]
    if not any(names):
        raise ConfigError("no class is named: give names with commas between them, such as cat,dog")
    if not all(names):
        raise ConfigError(
            f"class {names.index('') + 1} of {len(names)} has no name: remove a comma"
        )
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(name.replace("_", " ").lower().split())  # what CLIP's tokenizer reads
        if not key:
            raise ConfigError(f"class {len(seen) + 1} has the name {name!r}, which holds no word")
        if key in seen:
            raise ConfigError(f"the classes {seen[key]!r} and {name!r} are the same to CLIP")
        seen[key] = name
    return names


def build(
    run: Run, classnames: list[str] | None = None, template: str = "", epoch: int | None = None
) -> TrainerBase:
    """Returns the run's trainer with what it has learned, in evaluation mode.

    Args:
        run: see `read_run`.
        classnames: other classes than the run's.
        template: another hand-written prompt than the run's; {} stands for the class name.
        epoch: of which the weights are; None: those that the run itself tested.

    Raises:
        MissingFileError: the run has no such weights.
        CheckpointError: they are of another method or CLIP, or say nothing about the classes.
        ConfigError: the classes are not known, or cannot be read.
    """
    names = run.classnames if classnames is None else checked_classes(classnames)
    if not names:
        raise ConfigError(
            f"{run.folder} does not say which classes it is of (there is no {MODEL}, and no "
            "checkpoint that knows): name them with --classes, in the order of the training"
        )
    if template and "{}" not in template:
        raise ConfigError(f"the template {template!r} has no place {{}} for the class name")
    trainer = build_untrained(run, names, template)
    with quietly():
        if not trainer.get_model_names():
            problems = identity.other_weights(run.made_by, trainer.made_by() or {})
            if problems:
                raise CheckpointError(f"{run.folder} does not fit: {problems[0]}")
        else:
            _load(run, trainer, epoch)
        trainer.set_model_mode("eval")
    return trainer


def build_untrained(run: Run, names: list[str], template: str = "") -> TrainerBase:
    """Returns the run's trainer as it is before training; see `build`."""
    with quietly(), random_state_kept():
        prepare_device(run.cfg)
        with quiet():  # what is worth a note was noted in training
            trainer = _without_data(run.cfg, names, template or run.template)
            if names != run.classnames:
                _check_class_specific(run, trainer)
                _check_sizes(run, trainer)
    if template and trainer.get_model_names():
        raise ConfigError(
            f"--template is {template!r}, but {run.cfg.TRAINER.NAME} has learned what it says "
            "of a class: leave --template out"
        )
    return trainer


def _check_class_specific(run: Run, trainer: TrainerBase) -> None:
    """Raises ConfigError for other classes than those of class-specific contexts."""
    node = getattr(trainer, "config_node", "") or run.cfg.TRAINER.NAME.upper()
    own = run.cfg.TRAINER.get(node, {})
    if own.get("CSC", False) and not own.get("CTX_INIT", "") and run.classnames:
        raise ConfigError(
            f"{run.folder} learned a context for each of its {len(run.classnames)} classes "
            f"({listed(run.classnames)}), which says nothing about other classes: leave --classes "
            f"out, or train with TRAINER.{node}.CSC False"
        )


def _check_sizes(run: Run, trainer: TrainerBase) -> None:
    """Raises ConfigError if somebody else's trainer learns something for each class.

    Such a file knows no names: with as many other classes, it would fit and mean nothing.
    """
    names = trainer.dm.dataset.classnames
    if not is_foreign(type(trainer)) or len(names) != len(run.classnames):
        return
    other = _without_data(run.cfg, [*names, "one more"], run.template)
    if _sizes(other) != _sizes(trainer):
        raise ConfigError(
            f"{run.cfg.TRAINER.NAME} learns something of its own for each class, which says "
            "nothing about other classes: leave --classes out"
        )


def _sizes(trainer: TrainerBase) -> list[tuple[int, ...]]:
    parts = [trainer.parts_of(name)[0] for name in trainer.get_model_names()]
    return [tuple(weight.shape) for part in parts for weight in part.parameters()]


def _without_data(cfg: CfgNode, names: list[str], template: str | None) -> TrainerBase:
    """Builds a registered trainer that knows its classes and has no images."""
    by_label = dict(enumerate(names))
    known = {"classnames": names, "lab2cname": by_label, "num_classes": len(names)}
    known["all_class_names"] = names  # other people's LASP asks for it
    parts = dict.fromkeys(("train_x", "train_u", "val", "test"))
    dataset = SimpleNamespace(**known, **parts, provenance={})
    if template:
        dataset.template = template
    loaders = dict.fromkeys(("train_loader_x", "train_loader_u", "val_loader", "test_loader"))
    shared = {"num_classes": len(names), "lab2cname": by_label, "num_source_domains": 0, **loaders}
    cls = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    trainer = cls.__new__(cls, cfg)  # a subclass would lose what `frozen_clip` says
    data = {**shared, "dm": SimpleNamespace(dataset=dataset, **shared)}
    trainer.build_data_loader = lambda: vars(trainer).update(data)
    return supplied(cls, cfg, lambda: trainer.__init__(cfg) or trainer)


def _load(run: Run, trainer: TrainerBase, epoch: int | None) -> None:
    folders = [run.folder / name for name in trainer.tested_model_names()]
    best = run.cfg.TEST.FINAL_MODEL == "best_val" and epoch is None
    if epoch is None and not (best and all((f / BEST_FILE).is_file() for f in folders)):
        epochs = [set(saved_epochs(folder)) for folder in folders]
        common = set.intersection(*epochs)
        if not common:
            raise MissingFileError(
                f"{run.folder} holds no checkpoint in {folders[0].name}/: its training has not "
                "ended, or it is the folder of an evaluation; give that of a finished training"
            )
        epoch = max(common)
    load_trained(trainer, str(run.folder), epoch)
    if trainer.model_epoch is None:  # somebody else's way of loading
        trainer.model_epoch = run.cfg.OPTIM.MAX_EPOCH if epoch is None else epoch


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps standard output for answers: warnings go to standard error, reports nowhere."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)
