"""The words nearest to each learned context vector (CoOp, arXiv 2109.01134, section 4.3).

Distances are Euclidean, in the space of CLIP's token embeddings, as in upstream's
interpret_prompt.py. The paper's finding is that the words rarely make sense.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import train
from dassl.utils import CheckpointError, ConfigError, load_checkpoint
from encoders.tokens import tokenizer
from sweep.work.folder import RunFolder
from trainers.clip_trainer import load_clip_to_cpu


def nearest(context: Tensor, embeddings: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Returns ids (M, k) and distances (M, k) of the tokens nearest to M context vectors.

    Args:
        context: (M, D).
        embeddings: (V, D), CLIP's token table.

    Raises:
        ConfigError: the context is class-specific, (C, M, D).
    """
    if context.dim() != 2:
        raise ConfigError(
            f"the context has shape {tuple(context.shape)}: it is class-specific, so there is one "
            "list of words per class; use a run with TRAINER.COOP.CSC False"
        )
    distances = torch.cdist(context.double(), embeddings.double())  # (M, V)
    found, ids = distances.topk(k, largest=False)
    return ids, found


def words_of(folder: RunFolder) -> list[tuple[str, float]]:
    """Returns word and distance for each context vector of a finished training."""
    run = folder.run
    path = folder.path / "prompt_learner" / f"model.pth.tar-{run.epochs}"
    try:
        context = load_checkpoint(str(path))["state_dict"]["ctx"].float()  # (M, D)
    except (LookupError, TypeError, AttributeError):
        raise CheckpointError(f"{path} holds no context") from None
    clip_model = load_clip_to_cpu(train.setup_cfg(run.arguments(Path(), "")))
    ids, distances = nearest(context, clip_model.token_embedding.weight.detach())
    names = [tokenizer.decoder[int(i)].replace("</w>", "") for i in ids[:, 0]]
    return list(zip(names, distances[:, 0].tolist()))
