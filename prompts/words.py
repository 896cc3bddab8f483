"""The vocabulary's words nearest to learned context vectors (CoOp, arXiv 2109.01134, section 4.3).

The paper compares by Euclidean distance in the space of CLIP's token embeddings, and finds that the
words rarely make sense. The cosine passes over lengths, which differ: learned vectors may be much
longer than any word's.

Shapes: C classes, B pictures, M context vectors, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dassl.utils import ConfigError
from dassl.utils.errors import not_one_of
from dassl.utils.logger import get_logger, quiet
from dassl.utils.random_state import random_state_kept
from encoders.prompt_tree import ForkedTree
from encoders.tokens import OPENAI, Tokenizer, tokenizer_of
from prompts.pictures import Picture
from prompts.predictor import Predictor
from prompts.run import quietly
from trainers.clip_trainer import CLIPTrainer, load_clip
from trainers.custom_clip import CustomCLIP

logger = get_logger(__name__)

METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class Words:
    """What stands nearest to the M vectors of one context.

    Attributes:
        of: the class or the picture whose context it is; "": of all.
        nearest: for each vector the nearest words, each with its distance or cosine.
    """

    of: str
    nearest: list[list[tuple[str, float]]]


def nearest(
    context: Tensor, embeddings: Tensor, k: int = 1, metric: str = "euclidean"
) -> tuple[Tensor, Tensor]:
    """Returns ids (M, k) of the tokens nearest to M context vectors, and how near, (M, k).

    Args:
        context: (M, D).
        embeddings: (V, D), CLIP's token table.
        k: at most V.
        metric: "euclidean": distances, from the smallest; "cosine": from the largest.

    Raises:
        ConfigError: the context is class-specific, (C, M, D), or there is no such metric.
    """
    if context.dim() != 2:
        raise ConfigError(
            f"the context has shape {tuple(context.shape)}: it is class-specific, so there is one "
            "list of words per class; use a run with TRAINER.COOP.CSC False"
        )
    if metric not in METRICS:
        raise ConfigError(not_one_of("the metric", metric, METRICS))
    context, embeddings = context.double(), embeddings.double()
    if metric == "euclidean":
        found, ids = torch.cdist(context, embeddings).topk(k, largest=False)
    else:
        found, ids = (F.normalize(context) @ F.normalize(embeddings).T).topk(k)
    return ids, found


def word(token: int, by: Tokenizer) -> str:
    """Returns a token as a reader writes it; of one that is part of a letter, its number."""
    text = by.decode([token]).strip()
    return f"token {token}" if not text or "\ufffd" in text else text


def words_of_context(
    context: Tensor,
    embeddings: Tensor,
    k: int = 1,
    metric: str = "euclidean",
    by: Tokenizer = OPENAI,
) -> list[list[tuple[str, float]]]:
    """Returns, for each of M vectors, its k nearest words, and how near each is."""
    ids, found = nearest(context, embeddings, k, metric)
    return [
        [(word(i, by), value) for i, value in zip(row, values)]
        for row, values in zip(ids.tolist(), found.tolist())
    ]


def interpret(
    predictor: Predictor,
    pictures: Sequence[Picture] = (),
    k: int = 1,
    metric: str = "euclidean",
) -> list[Words]:
    """Returns the words nearest to what a run has learned.

    Args:
        predictor: of a method that learns vectors which stand among words.
        pictures: for CoCoOp, whose context they shift.
        k: words for each vector.
        metric: see `nearest`.

    Returns:
        One entry; or one for each class, where contexts are class-specific; or one for each
        picture.

    Raises:
        ConfigError: the method learns no such vectors, or pictures do not shift them.
    """
    with quietly():
        context = learned_context(predictor)
        embeddings, by = vocabulary(predictor)
    if not 1 <= k <= len(embeddings):
        raise ConfigError(f"{k} words are asked for; expected 1 to {len(embeddings):,}")
    if pictures:
        contexts, labels = shifted(predictor, context, pictures), [str(p) for p in pictures]
    elif context.dim() == 3 and predictor.trainer.model.prompt_learner.class_specific:
        contexts, labels = context, predictor.classnames
    elif context.dim() == 3:  # PLOT: several prompts a class, the same for all
        contexts, labels = context, [f"prompt {n + 1}" for n in range(len(context))]
    else:
        contexts, labels = context[None], [""]
    return [
        Words(label, words_of_context(one, embeddings, k, metric, by))
        for label, one in zip(labels, contexts)
    ]


def vocabulary(predictor: Predictor) -> tuple[Tensor, Tokenizer]:
    """Returns CLIP's token table (V, D), and what reads its tokens."""
    trainer = predictor.trainer
    with random_state_kept(), quiet():  # the trainer's own, mostly, which this process holds
        ours = isinstance(trainer, CLIPTrainer)
        model = trainer.load_clip() if ours else load_clip(predictor.run.cfg, "fp32")
    embeddings = model.token_embedding.weight.detach().float().cpu()
    return embeddings, tokenizer_of(model)


def learned_context(predictor: Predictor) -> Tensor:
    """Returns the vectors that enter the text tower with the words: (M, D) or (C, M, D).

    Raises:
        ConfigError: the method has none.
    """
    learner = getattr(getattr(predictor.trainer, "model", None), "prompt_learner", None)
    context = getattr(learner, "ctx", None)
    if not isinstance(context, Tensor):
        raise ConfigError(
            f"{predictor.run.cfg.TRAINER.NAME} learns no vectors among words, so no words are near "
            "to them"
        )
    deep = [name for name, _ in learner.named_parameters() if "compound" in name]
    deep += [learner.tree] if class_aware(learner) else []
    if deep or "text_encoder" in getattr(predictor.trainer.model, "prompts", ()):
        logger.warning(
            "Note: vectors of deeper blocks, and those of the image tower, are left out: words "
            "are no neighbours of theirs"
        )
    return context.detach().float().cpu()


def class_aware(learner: nn.Module) -> bool:
    """Whether classes have vectors of their own behind some block, as TCP's; no picture does it."""
    return isinstance(getattr(learner, "tree", None), ForkedTree)


@torch.no_grad()
def shifted(predictor: Predictor, context: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Returns CoCoOp's contexts v_m + h(x), (B, M, D) (arXiv 2203.05557, section 3.2)."""
    model = predictor.trainer.model
    shifts_it = isinstance(model, CustomCLIP) and hasattr(model.prompt_learner, "meta_net")
    if not shifts_it or class_aware(model.prompt_learner):
        raise ConfigError(
            f"{predictor.run.cfg.TRAINER.NAME}'s context is the same for all pictures: leave "
            "--pictures out"
        )
    shifts = [
        model.prompt_learner.meta_net(model.encode_image(images)).float().cpu()  # (B, D)
        for images in predictor.images(pictures)
    ]
    return context + torch.cat(shifts)[:, None]
