"""What zero-shot CLIP says of a class, without building it: for that, every prompt is encoded."""

from __future__ import annotations

from types import SimpleNamespace

from dassl.engine import TRAINER_REGISTRY
from encoders import open_clip
from encoders.open_clip import Source
from encoders.tokens import OPENAI, Tokenizer
from prompts.run import Run
from trainers.clip_trainer import backbone_of
from trainers.zsclip import ZeroshotCLIP


def templates_of(run: Run) -> list[str]:
    """Returns the templates of a run that learns nothing; []: it is of another method."""
    cls = TRAINER_REGISTRY.get(run.cfg.TRAINER.NAME)
    if not issubclass(cls, ZeroshotCLIP):
        return []
    known = SimpleNamespace(**({"template": run.template} if run.template else {}))
    trainer = object.__new__(cls)
    vars(trainer).update(cfg=run.cfg, dm=SimpleNamespace(dataset=known))
    return trainer.templates()


def tokenizer_of_run(run: Run) -> Tokenizer:
    """Returns what reads a run's texts; no weights are loaded.

    Raises:
        ConfigError: MODEL.BACKBONE is wrong.
    """
    backbone = backbone_of(run.cfg)
    return open_clip.tokenizer_for(backbone) if isinstance(backbone, Source) else OPENAI
