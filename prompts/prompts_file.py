"""A run's learned prompts in one small file, and back: what a checkpoint and config.yaml say."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dassl.engine import TrainerBase, identity
from dassl.engine.run_folder import CONFIG, MODEL
from dassl.utils import CheckpointError, ConfigError, UserError, save_checkpoint, write_json
from dassl.utils.errors import OutputFolderError
from dassl.utils.files import PathLike, listed, write_text
from dassl.utils.results import own_settings
from prompts.predictor import Predictor
from prompts.preparation import portable_name, weights_of
from prompts.run import Run, build_untrained, quietly, read_run
from prompts.tensors import json_of, load, save

FORMAT = "prompt-learning prompts 1"


def export_prompts(predictor: Predictor, path: PathLike) -> None:
    """Writes what the optimizer changed, and in the header all that is needed to use it.

    Raises:
        ConfigError: the method learns nothing, or safetensors is not installed.
    """
    run, trainer = predictor.run, predictor.trainer
    learned = dict(_learned(trainer))
    if not learned:
        raise ConfigError(
            f"{run.cfg.TRAINER.NAME} has learned nothing: its prompts are words. Export its class "
            "weights: --as classifier"
        )
    made_by = trainer.made_by() or {}
    header = {
        "format": FORMAT,
        **{key: made_by.get(key) for key in ("trainer", "classnames", "template")},
        "weights": weights_of(predictor),
        "epoch": trainer.model_epoch,
        "settings": _portable_settings(run),
    }
    save(path, learned, header)


def _learned(trainer: TrainerBase) -> Iterator[tuple[str, Tensor]]:
    for part in trainer.tested_model_names():
        for name, parameter in trainer.parts_of(part)[0].named_parameters():
            yield f"{part}/{name}", parameter


def _portable_settings(run: Run) -> dict[str, Any]:
    """Returns the run's settings but for places on a machine."""
    settings = own_settings(run.cfg)
    settings["MODEL"].pop("INIT_WEIGHTS", None)
    backbone = settings["MODEL"]["BACKBONE"]
    backbone.pop("PATH", None)  # the header has the file's SHA-256
    backbone["NAME"] = portable_name(backbone["NAME"])
    for key in ("CSV", "CLASSNAMES"):  # the header has the names
        settings["DATASET"].pop(key, None)
    return settings


def import_prompts(path: PathLike, folder: PathLike, backbone_path: str = "") -> Path:
    """Makes a run's folder of a file of prompts, which predicts the same.

    Args:
        path: what `export_prompts` wrote.
        folder: is created.
        backbone_path: CLIP's weights, if they are a file, or a folder of open_clip's.

    Raises:
        OutputFolderError: the folder is there.
        CheckpointError, ConfigError: the file is damaged, or does not fit CLIP's weights.
    """
    tensors, header = load(path, FORMAT)
    names = json_of(header, "classnames", list, path)
    settings = json_of(header, "settings", dict, path)
    known = {
        "trainer": header.get("trainer"),
        "classnames": names,
        "template": header.get("template"),
        "weights": json_of(header, "weights", dict, path),
    }
    if known["template"] in ("null", ""):
        known["template"] = None
    epoch = json_of(header, "epoch", int, path)
    with _new_folder(folder) as place:
        write_text(place / CONFIG, json.dumps(settings, indent=1))  # JSON is YAML
        write_json(known, place / MODEL)
        try:
            run = read_run(place, backbone_path=backbone_path)
        except UserError as error:
            said = str(error).replace(str(place / CONFIG), f"the header of {path}")
            raise CheckpointError(said) from None
        cfg = run.cfg
        if cfg.TRAINER.NAME != known["trainer"]:
            raise CheckpointError(f"{path} is damaged: its header names two methods")
        trainer = build_untrained(run, names)
        _check_weights(trainer, known["weights"], path)
        _put(tensors, trainer, path)
        with quietly():
            for part in trainer.get_model_names():
                state = {"state_dict": trainer.parts_of(part)[0].state_dict(), "epoch": epoch}
                save_checkpoint({**state, identity.KEY: trainer.made_by()}, str(place / part))
        cfg.defrost()
        cfg.OUTPUT_DIR = str(folder)
        write_text(place / CONFIG, cfg.dump())
    return Path(folder)


def _check_weights(trainer: TrainerBase, then: dict[str, Any], path: PathLike) -> None:
    now = trainer.weights_used() or {}
    if then and now and then.get("sha256") != now.get("sha256"):
        raise CheckpointError(
            f"{path} was learned for {then.get('name')} with the SHA-256 {then.get('sha256')}, and "
            f"{now.get('name')} here has {now.get('sha256')}: name the right file with "
            "--backbone-path"
        )


@torch.no_grad()
def _put(tensors: dict[str, Tensor], trainer: TrainerBase, path: PathLike) -> None:
    own = dict(_learned(trainer))
    if tensors.keys() != own.keys():
        raise CheckpointError(
            f"{path} holds {listed(sorted(tensors))}; its method learns {listed(sorted(own))}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{path} holds {name} of shape {tuple(tensor.shape)}; its method learns "
                f"{tuple(own[name].shape)}"
            )
        own[name].copy_(tensor)


@contextmanager
def _new_folder(folder: PathLike) -> Iterator[Path]:
    """Yields a folder that gets its name when all is in it, and goes if anything fails."""
    target = Path(folder).expanduser()
    if target.exists():
        raise OutputFolderError(f"{target} is there: give a folder that is to be created")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
        inner = Path(place) / target.name
        inner.mkdir()
        yield inner
        shutil.move(inner, target)
