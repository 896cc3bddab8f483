"""The two classes that a method's file subclasses: its prompt learner and its CLIP.

Shapes: B images, C classes, M context vectors, L positions up to the longest end token, D width,
E embedding size, G groups that differ in their context, V learned vectors: M, or C * M with
class-specific context.
"""

from __future__ import annotations

import html
import unicodedata
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.config import mark_not_determining
from dassl.utils import ConfigError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import counted, unseen
from encoders.image import ImageEncoder
from encoders.kernels.folding import Fingerprint
from encoders.openai import CLIP
from encoders.prompt_tree import PromptTree, learned_token
from encoders.text import TextEncoder
from encoders.tokens import tokenize, tokenizer_of
from encoders.tower import normalize, without_autocast
from trainers.clip_trainer import image_products

logger = get_logger(__name__)

CTX_STD = 0.02  # random context; CoOp (arXiv 2109.01134), section 4.1: N(0, 0.02^2)


def extend_cfg(cfg: CfgNode) -> None:
    # Tokens that the text encoder takes at a time; 0: as many as half of the free memory holds.
    cfg.MODEL.TEXT_CHUNK = 0
    mark_not_determining(cfg, "MODEL.TEXT_CHUNK")


class BasePromptLearner(nn.Module):
    """Learns M context vectors that stand with the class names in C prompts.

    The prompt of a class is [start, context, name, full stop, end]; `prompt` says otherwise. If
    `settings.CTX_INIT` is set, the context starts as its words' embeddings, and M is the number of
    words, unless `n_ctx` says that only the first are learned; otherwise it is drawn at random,
    `settings.N_CTX` vectors.

    Parameters and buffers that checkpoints hold (a public format):
        ctx: (M, D), or (C, M, D) with class-specific context; float32 in every precision.
        token_prefix: (C, 1, D) embedding of the start token.
        token_suffix: (C, 77 - 1 - M, D) embeddings of name, full stop, end and padding.

    Attributes:
        tree: the prompts as a prefix tree, for the text encoder.
        class_specific: whether each class has a context of its own.

    Args:
        settings: TRAINER.<METHOD>, with N_CTX and CTX_INIT.
        classnames: C names; "_" counts as a blank.
        clip_model: gives the token embeddings.
        class_specific: an own context for each class; ignored if CTX_INIT is set.
        n_ctx: M, where it does not follow from the settings.

    Raises:
        ConfigError: CTX_INIT or a class name cannot be read as it is meant, or a prompt has more
            tokens than CLIP reads.
    """

    def __init__(
        self,
        settings: CfgNode,
        classnames: list[str],
        clip_model: CLIP,
        class_specific: bool = False,
        n_ctx: int | None = None,
    ) -> None:
        super().__init__()
        self.n_cls, self.tokenizer = len(classnames), tokenizer_of(clip_model)
        classnames = [name.replace("_", " ") for name in classnames]
        ctx_init = context_words(settings.CTX_INIT)
        # As upstream: where words are more tokens than words, the last tokens stay constant.
        n_words = len(ctx_init.split())
        self.n_ctx = n_ctx or n_words or settings.N_CTX
        self.context_length = clip_model.positional_embedding.shape[0]
        if self.n_ctx >= self.context_length:
            raise ConfigError(
                f"{self.n_ctx:,} context vectors (N_CTX, or the words of CTX_INIT) do not fit: "
                f"CLIP reads {self.context_length} tokens, the class name among them"
            )
        prompt_prefix = ctx_init or " ".join(["X"] * self.n_ctx)
        self.prompts = [f"{prompt_prefix} {name}." for name in classnames]
        self.name_lens = [self.tokenizer.count(name) for name in classnames]
        self.tokenized_prompts = self._tokenize(self.prompts, classnames)  # (C, 77)
        self._check_prompts(classnames, prompt_prefix)

        ctx = self._initial_context(ctx_init, clip_model, class_specific)
        self.ctx = nn.Parameter(ctx)
        self.class_specific = class_specific and not ctx_init
        device = clip_model.token_embedding.weight.device
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts.to(device))
        embedding = embedding.to(clip_model.dtype)
        self.register_buffer("token_prefix", embedding[:, :1].clone())
        self.register_buffer("token_suffix", embedding[:, 1 + self.n_ctx :].clone())
        # The end token is found before anything is rearranged.
        eot = self.tokenizer.ends(self.tokenized_prompts)
        self.register_buffer("eot", eot, persistent=False)  # (C,)
        self.length = int(eot.max()) + 1
        self.tree = PromptTree([self.sequence(c) for c in range(self.n_cls)])
        if n_ctx is None and n_words not in (0, settings.N_CTX):
            logger.warning(
                f"Note: CTX_INIT has {counted(n_words, 'word')} and wins over N_CTX, which is "
                f"{settings.N_CTX}"
            )
        if class_specific and ctx_init:
            logger.warning(
                "Note: CTX_INIT wins over CSC: one context, of its words, for all classes. For one "
                "a class, leave CTX_INIT empty ('')"
            )
        self._announce(prompt_prefix, n_words)

    def _tokenize(self, texts: list[str], names: list[str] | None = None) -> Tensor:
        return tokenize(texts, self.context_length, names, self.tokenizer)

    def _initial_context(self, ctx_init: str, clip_model: CLIP, class_specific: bool) -> Tensor:
        dim = clip_model.ln_final.weight.shape[0]
        if ctx_init:
            with torch.no_grad():
                tokens = self._tokenize([ctx_init])
                tokens = tokens.to(clip_model.token_embedding.weight.device)
                words = clip_model.token_embedding(tokens)[0, 1 : 1 + self.n_ctx]
            return words.float().clone()
        shape = (self.n_cls, self.n_ctx, dim) if class_specific else (self.n_ctx, dim)
        return nn.init.normal_(torch.empty(shape), std=CTX_STD)

    def _announce(self, prompt_prefix: str, n_words: int) -> None:
        n_tokens = self.tokenizer.count(prompt_prefix)
        if n_words and n_tokens > self.n_ctx:
            logger.warning(
                f"Note: CTX_INIT's length is {counted(n_words, 'word')}, {n_tokens} tokens; as in "
                f"the public implementation, the vectors of the first {self.n_ctx} are learned"
            )
        other = [c for c in dict.fromkeys(prompt_prefix) if not c.isascii()]
        if other:
            names = listed([f"{c} ({unicodedata.name(c, 'without a name')})" for c in other])
            logger.warning(f"Note: CTX_INIT has letters that CLIP has hardly seen: {names}")
        logger.info(f'Initial context: "{prompt_prefix}"')
        logger.info(f"Number of context words (tokens): {self.n_ctx}")

    def _check_prompts(self, classnames: list[str], prompt_prefix: str) -> None:
        """Raises ConfigError where the words do not stand in the prompts as they do alone."""
        empty = [i for i, name_len in enumerate(self.name_lens) if not name_len]
        if empty:
            raise ConfigError(f"class {empty[0]} has the name {classnames[empty[0]]!r}: no words")
        context = self.tokenized_prompts.new_tensor(self.tokenizer.encode(prompt_prefix))
        found = self.tokenized_prompts[:, 1 : 1 + len(context)]  # (C, tokens of the context)
        wrong = (found != context).any(dim=1).nonzero().flatten().tolist()
        if wrong:
            raise ConfigError(
                f"the prompt {self.prompts[wrong[0]]!r} is not read as {prompt_prefix!r} and a "
                "name: write the context in plain words, such as 'a photo of a'"
            )

    def first_prompts(self, n: int = 2) -> str:
        """Returns the first prompts as CLIP reads them: their texts, and their tokens."""
        shown = []
        for text, row, end in zip(self.prompts[:n], self.tokenized_prompts.tolist(), self.eot):
            tokens = [self.tokenizer.decode([i]).strip() for i in row[1 : int(end)]]
            shown.append(f'"{text}" ({" | ".join(tokens)})')
        return ", ".join(shown)

    # --- prompts ----------------------------------------------------------------------------------

    def prompt(self, context: list[int], name: list[int]) -> list[int]:
        """Returns a prompt's words, from the numbers of its M context vectors and its name."""
        return [*context, *name]

    def sequence(self, c: int) -> list[int]:
        """Returns the prompt of class c to its end token: token ids and learned vectors' numbers.

        Context vectors count as one token each, in whatever order `prompt` puts them.
        """
        tokens, end = self.tokenized_prompts[c].tolist(), int(self.eot[c])
        first = c * self.n_ctx if self.class_specific else 0  # of the class's context vectors
        context = [learned_token(first + m) for m in range(self.n_ctx)]
        name_start = 1 + self.n_ctx
        name_end = name_start + self.name_lens[c]
        name, rest = tokens[name_start:name_end], tokens[name_end : end + 1]
        return [tokens[0], *self.prompt(context, name), *rest]

    def context(self) -> Tensor:
        """Returns the learned vectors as `tree` counts them, (G, V, D)."""
        return self.ctx.reshape(1, -1, self.ctx.shape[-1])

    def suffix(self) -> Tensor:
        """Returns (C, L - 1 - M, D): name, full stop and end, cut after the longest prompt."""
        return self.token_suffix[:, : self.length - 1 - self.n_ctx]

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        errors = args[-1]
        for name in ("token_prefix", "token_suffix"):
            theirs, ours = state_dict.get(prefix + name), getattr(self, name)
            if theirs is None:
                continue
            if theirs.shape != ours.shape or not torch.allclose(
                theirs.float().cpu(), ours.float().cpu(), atol=1e-2
            ):
                errors.append(f"{name} differs: it was trained on other classes or another CLIP")
        super()._load_from_state_dict(state_dict, prefix, *args)


class SeveralContexts(BasePromptLearner):
    """Learns N contexts, each of which stands with every name: N prompts a class.

    Parameters:
        ctx: (N, M, D). Words, if there are any, begin all of them.
    """

    def __init__(self, n: int, settings: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        self.n_contexts = n
        super().__init__(settings, classnames, clip_model)

    def _initial_context(self, *args: Any) -> Tensor:
        initial = super()._initial_context
        return torch.stack([initial(*args) for _ in range(self.n_contexts)])

    def context(self) -> Tensor:
        return self.ctx


def context_words(ctx_init: str) -> str:
    """Returns the words of CTX_INIT with single blanks between them; "_" counts as a blank.

    White space is no word: "a photo of a " has four words, as "a photo of a" has.

    Raises:
        ConfigError: there is white space alone, or a place for the class name.
    """
    problem = context_problem(ctx_init)
    if problem:
        raise ConfigError(f"CTX_INIT is {ctx_init!r}{problem}")
    return " ".join(ctx_init.replace("_", " ").split())


def context_problem(ctx_init: str) -> str:
    """Returns what is wrong with CTX_INIT, as the end of a sentence; "" if nothing is."""
    words = ctx_init.replace("_", " ").split()
    if ctx_init and not words:
        return ", which holds no word; leave it empty ('') to start at random."
    if any(mark in ctx_init for mark in "{}"):
        return ", but the class name follows by itself: write the words alone, 'a photo of a'."
    if unseen(ctx_init):
        return f", with characters that nobody sees ({unseen(ctx_init)[0]}): leave them out."
    if html.unescape(ctx_init) != ctx_init:
        return f", which CLIP reads as {html.unescape(ctx_init)!r}: write it so."
    return ""


class CustomCLIP(nn.Module):
    """A frozen CLIP with learned prompts.

    A subclass names its `prompt_learner_class`. Where class features depend on the image, it
    defines `logits`; otherwise `encode_prompts` says what they are. With a method
    `loss(image_features, label)`, which returns loss () and logits (B, C), it says itself what
    training minimizes.

    Args:
        cfg: the whole configuration.
        classnames: C names.
        clip_model: the frozen CLIP.
    """

    prompt_learner_class: type[BasePromptLearner] = BasePromptLearner
    _kept: tuple[tuple, Fingerprint, Tensor] | None = None  # precision, parameters, class features

    def __init__(self, cfg: CfgNode, classnames: list[str], clip_model: CLIP) -> None:
        super().__init__()
        self.prompt_learner = self.build_prompt_learner(cfg, classnames, clip_model)
        self.text_encoder = TextEncoder(clip_model, cfg.MODEL.TEXT_CHUNK)
        self.image_encoder = clip_model.visual
        self.frozen_image_encoder = ImageEncoder(clip_model.visual, products=image_products(cfg))
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def build_prompt_learner(
        self, cfg: CfgNode, classnames: list[str], clip_model: CLIP
    ) -> BasePromptLearner:
        return self.prompt_learner_class(cfg, classnames, clip_model)

    @property
    def learned(self) -> nn.Module:
        """What the optimizer changes and checkpoints hold."""
        return self.prompt_learner

    def train(self, mode: bool = True) -> CustomCLIP:
        """Only what is learned has a training mode; the frozen encoders stay in evaluation."""
        self._kept = None
        super().train(False)
        self.learned.train(mode)
        self.training = mode
        return self

    # --- class features ---------------------------------------------------------------------------

    def encode_prompts(self) -> Tensor:
        """Returns class features g(t), (C, E), of length 1."""
        learner = self.prompt_learner
        return normalize(self.text_encoder(learner.context(), learner.tree)[0])

    def text_features(self) -> Tensor:
        """Returns `encode_prompts()`; without gradients, it is kept."""
        if torch.is_grad_enabled():
            self._kept = None
            return self.encode_prompts()
        learned = list(self.learned.parameters())
        device = self.logit_scale.device.type
        precision = (torch.is_autocast_enabled(device), self.text_encoder.dtype)
        if self._kept is None or self._kept[0] != precision or not self._kept[1].matches(learned):
            self._kept = (precision, Fingerprint(learned), self.encode_prompts())
        return self._kept[2]

    # --- images -----------------------------------------------------------------------------------

    def visual_prompts(self) -> tuple[Tensor | None, Tensor | None]:
        """Returns vectors behind the patches, (N, V), and those of deeper blocks, (J, N, V)."""
        return None, None

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) → image features (B, E) of length 1."""
        return normalize(self.frozen_image_encoder(image, *self.visual_prompts()))

    def logits(self, image_features: Tensor) -> Tensor:
        """Image features (B, E) of length 1 → logits (B, C)."""
        return cosine_logits(self.logit_scale, image_features, self.text_features())

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) → logits (B, C); with labels (B,) → loss () and logits."""
        return self._answer(self.encode_image(image), label)

    def from_features(
        self, features: Tensor, label: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `forward`, for the image encoder's features (B, E), not normalized."""
        return self._answer(normalize(features), label)

    def _answer(self, image_features: Tensor, label: Tensor | None):
        return self.logits(image_features) if label is None else self.loss(image_features, label)

    def step_constants(self) -> tuple[object, ...]:
        """Returns what a training step reads beside its batch, parameters and buffers.

        A CUDA graph keeps hold of it, and is made anew when another object has taken its place.
        """
        encoders = (self.text_encoder.folded, self.frozen_image_encoder.folded)
        tree = getattr(self.prompt_learner, "tree", None)
        return (*(folded.value for folded in encoders), tree)


def cosine_logits(logit_scale: Tensor, image_features: Tensor, text_features: Tensor) -> Tensor:
    """cos(f, w_i) / tau: features (B, E) and (C, E) of length 1 → logits (B, C), in float32."""
    with without_autocast(image_features):
        return logit_scale.exp() * image_features @ text_features.t()
