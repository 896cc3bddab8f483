"""Image encoder and classifier in one ONNX file; for CoCoOp the whole, with its Meta-Net."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from dassl.utils import ConfigError, write_atomically
from dassl.utils.files import PathLike
from prompts.classifier import linear_head, scores_by_matrix
from prompts.optional import package
from prompts.plain import (
    PlainClassifier,
    PlainCoCoOp,
    PlainDePT,
    PlainImageEncoder,
    PlainPLOT,
)
from prompts.predictor import Predictor
from prompts.preparation import preparation, weights_of
from trainers import is_foreign, plot
from trainers.custom_clip import CustomCLIP
from trainers.dept import DecoupledCLIP


def plain_module(predictor: Predictor) -> nn.Module:
    """Returns a run's model as a plain module, images (B, 3, H, W) → logits (B, C).

    Raises:
        ConfigError: its method has no such form.
    """
    trainer, name = predictor.trainer, predictor.run.cfg.TRAINER.NAME
    model = getattr(trainer, "model", None)
    if is_foreign(type(trainer)):
        raise ConfigError(
            f"{name} is somebody else's, and its model may do what cannot be traced. Export what "
            "it learned: --as prompts"
        )
    if not isinstance(model, CustomCLIP):
        visual = trainer.frozen_encoder().visual
        return PlainClassifier(PlainImageEncoder(visual), linear_head(predictor)).eval()
    if isinstance(model, plot.CustomCLIP):
        return PlainPLOT(model).eval()
    if hasattr(model.prompt_learner, "meta_net") and not scores_by_matrix(model):
        return PlainCoCoOp(model).eval()
    if not scores_by_matrix(model):
        raise ConfigError(
            f"{name} has a formula of its own for its logits, which no plain module is written "
            "for. Export what it learned: --as prompts"
        )
    encoder = PlainImageEncoder(model.image_encoder, *model.visual_prompts())
    if isinstance(model, DecoupledCLIP) and model.head.knows:
        return PlainDePT(encoder, linear_head(predictor), model).eval()
    return PlainClassifier(encoder, linear_head(predictor)).eval()


def export_onnx(predictor: Predictor, path: PathLike) -> None:
    """Writes "image" (batch, 3, H, W) → "logits" (batch, C); class names are in its metadata.

    Args:
        predictor: on a CPU.
        path: of the file, which holds all weights.

    Raises:
        ConfigError: see `plain_module` and `write_onnx`.
    """
    cfg = predictor.run.cfg
    metadata = {
        "classnames": json.dumps(predictor.classnames),
        "trainer": cfg.TRAINER.NAME,
        "weights": json.dumps(weights_of(predictor)),
        "preparation": json.dumps(preparation(cfg)),
    }
    write_onnx(plain_module(predictor), tuple(cfg.INPUT.SIZE), metadata, path)


def write_onnx(
    module: nn.Module, size: tuple[int, int], metadata: Mapping[str, str], path: PathLike
) -> None:
    """Writes a module, images (B, 3, H, W) → logits (B, C), of any B.

    Raises:
        ConfigError: onnx is not installed.
    """
    for name in ("onnx", "onnxscript"):
        package(name, "a file of ONNX")
    image = torch.zeros(2, 3, *size)
    with _silently(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (image,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
        )
    program.model.metadata_props.update(metadata)
    write_atomically(path, lambda part: program.save(part, external_data=False))


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """The exporter tells its progress on standard output and warns of its own old parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
