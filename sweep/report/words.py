"""The words nearest to each learned context vector of a sweep's run (`prompts.words`)."""

from __future__ import annotations

from pathlib import Path

import train
from dassl.utils import CheckpointError, load_checkpoint
from prompts.words import words_of_context
from sweep.work.folder import RunFolder
from trainers.clip_trainer import load_clip_to_cpu


def words_of(folder: RunFolder) -> list[tuple[str, float]]:
    """Returns word and distance for each context vector of a finished training."""
    run = folder.run
    path = folder.path / "prompt_learner" / f"model.pth.tar-{run.epochs}"
    try:
        context = load_checkpoint(str(path))["state_dict"]["ctx"].float()  # (M, D)
    except (LookupError, TypeError, AttributeError):
        raise CheckpointError(f"{path} holds no context") from None
    clip_model = load_clip_to_cpu(train.setup_cfg(run.arguments(Path(), "")))
    words = words_of_context(context, clip_model.token_embedding.weight.detach())
    return [first for (first,) in words]
