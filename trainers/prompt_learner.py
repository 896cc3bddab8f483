"""What every prompt learner shares: the context's start, the class tokens, the fixed buffers.

Shapes: C classes, M context vectors, L positions up to the longest end token, D width, G groups
that differ in their context, V learned vectors: M, or C * M with class-specific context.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from trainers.clip_utils import CLIP, token_count, tokenize
from trainers.prompt_layout import PromptLayout, learned

CTX_STD = 0.02  # random context; CoOp (arXiv 2109.01134), section 4.1: N(0, 0.02^2)


class BasePromptLearner(nn.Module):
    """Learns M context vectors that stand before the class names of C prompts.

    The prompt of a class is [start, context, name, full stop, end]. If `settings.CTX_INIT` is set,
    the context starts as its words' embeddings, and M is the number of words; otherwise it is drawn
    at random, `settings.N_CTX` vectors.

    Parameters and buffers that checkpoints hold (a public format):
        ctx: (M, D), or (C, M, D) with class-specific context; float32 in every precision.
        token_prefix: (C, 1, D) embedding of the start token.
        token_suffix: (C, 77 - 1 - M, D) embeddings of name, full stop, end and padding.

    Args:
        settings: TRAINER.<METHOD>, with N_CTX and CTX_INIT.
        classnames: C names; "_" counts as a blank.
        clip_model: gives the token embeddings.
        class_specific: an own context for each class; ignored if CTX_INIT is set.

    Raises:
        ConfigError: a prompt has more tokens than CLIP reads.
    """

    def __init__(
        self,
        settings: CfgNode,
        classnames: list[str],
        clip_model: CLIP,
        class_specific: bool = False,
    ) -> None:
        super().__init__()
        self.n_cls = len(classnames)
        classnames = [name.replace("_", " ") for name in classnames]
        ctx_init = settings.CTX_INIT.replace("_", " ")
        # The number of context vectors is the number of words, whatever their number of tokens.
        self.n_ctx = len(ctx_init.split(" ")) if ctx_init else settings.N_CTX
        prompt_prefix = ctx_init or " ".join(["X"] * self.n_ctx)
        self.prompts = [f"{prompt_prefix} {name}." for name in classnames]
        self.name_lens = [token_count(name) for name in classnames]
        self.context_length = clip_model.positional_embedding.shape[0]
        self.tokenized_prompts = tokenize(self.prompts, self.context_length, classnames)  # (C, 77)

        ctx = self._initial_context(ctx_init, clip_model, class_specific)
        self.ctx = nn.Parameter(ctx)
        device = clip_model.token_embedding.weight.device
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts.to(device))
        embedding = embedding.to(clip_model.dtype)
        self.register_buffer("token_prefix", embedding[:, :1].clone())
        self.register_buffer("token_suffix", embedding[:, 1 + self.n_ctx :].clone())
        # The end token is found before anything is rearranged: it has the largest id.
        eot = self.tokenized_prompts.argmax(dim=-1)
        self.register_buffer("eot", eot, persistent=False)  # (C,)
        self.length = int(eot.max()) + 1
        self.layout = PromptLayout(self._sequences())
        self._announce(settings, ctx_init, prompt_prefix, class_specific)

    def _initial_context(self, ctx_init: str, clip_model: CLIP, class_specific: bool) -> Tensor:
        dim = clip_model.ln_final.weight.shape[0]
        if ctx_init:
            with torch.no_grad():
                tokens = tokenize([ctx_init], self.context_length)
                tokens = tokens.to(clip_model.token_embedding.weight.device)
                words = clip_model.token_embedding(tokens)[0, 1 : 1 + self.n_ctx]
            return words.float().clone()
        shape = (self.n_cls, self.n_ctx, dim) if class_specific else (self.n_ctx, dim)
        return nn.init.normal_(torch.empty(shape), std=CTX_STD)

    def _announce(
        self, settings: CfgNode, ctx_init: str, prompt_prefix: str, class_specific: bool
    ) -> None:
        if ctx_init and self.n_ctx != settings.N_CTX:
            print(
                f"Note: CTX_INIT has {self.n_ctx} words and wins over N_CTX, "
                f"which is {settings.N_CTX}"
            )
        print(f'Initial context: "{prompt_prefix}"')
        print(f"Number of context words (tokens): {self.n_ctx}")

    def token_order(self, index: int) -> list[int]:
        """Returns which position of [start, context, name, ...] comes where in a class's prompt."""
        return list(range(self.length))

    def _sequences(self) -> list[list[int]]:
        """Returns each prompt as token ids and numbers of context vectors, to its end token."""
        sequences = []
        ids, ends = self.tokenized_prompts.tolist(), self.eot.tolist()
        for c, (tokens, end) in enumerate(zip(ids, ends)):
            first = c * self.n_ctx if self.ctx.dim() == 3 else 0  # of the class's context vectors
            for m in range(self.n_ctx):
                tokens[1 + m] = learned(first + m)
            sequences.append([tokens[i] for i in self.token_order(c)[: end + 1]])
        return sequences

    def context(self) -> Tensor:
        """Returns the learned vectors as `layout` counts them, (G, V, D)."""
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
