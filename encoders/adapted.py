"""Towers of other packages under OpenAI's names: whatever reads a CLIP reads them as well.

A causal text tower becomes OpenAI's Transformer, a plain vision transformer OpenAI's
VisionTransformer, around the very layers they had: their widths, heads, norms and activations stay.
An image tower of another kind runs as it is.

Shapes: B images, N texts, L tokens, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils import ConfigError
from encoders.kernels.frozen_linear import activation_of
from encoders.openai import CLIP, Transformer, VisionTransformer
from encoders.tokens import Tokenizer

CPU_IMAGES = 16  # at a time on a CPU, of a tower that runs as it is: bounds memory


class AdaptedCLIP(CLIP):
    """A CLIP with another package's towers.

    Attributes:
        tokenizer: how it reads texts.

    Args:
        visual: see `adapted_image_tower`.
        text: has `transformer`, `token_embedding`, `positional_embedding` (L, D), `ln_final` and
            `text_projection` (D, E); causal.
        logit_scale: the logarithm of the cosine similarities' factor, one number.
        tokenizer: the text tower's.
    """

    def __init__(
        self, visual: nn.Module, text: Any, logit_scale: Tensor, tokenizer: Tokenizer
    ) -> None:
        length, width = text.positional_embedding.shape
        with torch.device("meta"):  # OpenAI's parts have the right names; all are replaced
            super().__init__(1, 1, 1, 64, 1, length, 1, width, 1, 1)
        mask = torch.full((length, length), float("-inf")).triu_(1)
        self.visual, self.tokenizer = visual, tokenizer
        self.transformer = _transformer(text.transformer, mask)
        self.token_embedding, self.ln_final = text.token_embedding, text.ln_final
        self.positional_embedding = text.positional_embedding
        self.text_projection = text.text_projection
        self.vocab_size = text.token_embedding.num_embeddings
        self.logit_scale = nn.Parameter(logit_scale.detach().float().reshape(()))

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def encode_text(self, text: Tensor) -> Tensor:
        """Token ids (N, L) → features (N, E), not normalized."""
        x = self.token_embedding(text).to(self.dtype) + self.positional_embedding.to(self.dtype)
        x = self.ln_final(self.transformer(x.transpose(0, 1)).transpose(0, 1))  # (N, L, D)
        ends = self.tokenizer.ends(text)
        return x[torch.arange(len(x), device=x.device), ends].to(self.dtype) @ self.text_projection


class OtherTower(nn.Module):
    """An image tower of another kind than OpenAI's, which runs as it is.

    Attributes:
        kind: what to call it.
        input_resolution: height and width of its images, in pixels.
        output_dim: E.
    """

    def __init__(self, tower: nn.Module, kind: str, input_resolution: int, output_dim: int) -> None:
        super().__init__()
        self.tower, self.kind = tower, kind
        self.input_resolution, self.output_dim = input_resolution, output_dim

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, E)"""
        image = image.to(next(self.tower.parameters()).dtype)
        groups = image.split(CPU_IMAGES) if image.device.type == "cpu" else (image,)
        return torch.cat([self.tower(group) for group in groups])


def adapted_image_tower(theirs: Any, kind: str, size: int, output_dim: int) -> nn.Module:
    """Returns an image tower as OpenAI's, if it is of that kind; else as it is.

    Args:
        theirs: images (B, 3, H, W) → features (B, E).
        kind: what to call it if it is another kind.
        size: height and width of its images, in pixels.
        output_dim: E.
    """
    if is_plain_vit(theirs):
        return _vision_transformer(theirs, size)
    if hasattr(theirs, "attnpool") and hasattr(theirs, "layer4"):  # OpenAI's ResNet, name by name
        theirs.input_resolution, theirs.output_dim = size, output_dim
        return theirs
    return OtherTower(theirs, kind, size, output_dim)


def is_plain_vit(visual: Any) -> bool:
    """Whether a tower computes what OpenAI's VisionTransformer does, but for sizes and GELU."""
    parts = ("conv1", "class_embedding", "positional_embedding", "ln_post", "proj", "transformer")
    if any(getattr(visual, name, None) is None for name in parts):
        return False
    return (
        getattr(visual, "pool_type", "") == "tok"
        and visual.attn_pool is None
        and not visual.output_tokens
        and isinstance(visual.ln_pre, nn.LayerNorm)
        and all(map(is_plain_block, visual.transformer.resblocks))
    )


def is_plain_block(block: Any) -> bool:
    """Whether a residual attention block computes what OpenAI's does, but for sizes and GELU."""
    if not isinstance(block.attn, nn.MultiheadAttention) or block.attn.in_proj_weight is None:
        return False
    scales = [getattr(block, name, None) for name in ("ls_1", "ls_2")]
    if any(not isinstance(scale, (nn.Identity, type(None))) for scale in scales):
        return False
    try:
        activation_of(block)
    except ConfigError:
        return False
    return [name for name, _ in block.mlp.named_children()] == ["c_fc", "gelu", "c_proj"]


def _vision_transformer(theirs: Any, size: int) -> VisionTransformer:
    with torch.device("meta"):
        ours = VisionTransformer(size, theirs.conv1.kernel_size[0], 1, 0, 1, theirs.proj.shape[1])
    for name in ("conv1", "class_embedding", "positional_embedding", "ln_pre", "ln_post", "proj"):
        setattr(ours, name, getattr(theirs, name))
    ours.transformer = _transformer(theirs.transformer, None)
    return ours


def _transformer(theirs: Any, mask: Tensor | None) -> Transformer:
    """Returns OpenAI's Transformer, (L, B, D) → (L, B, D), around the layers of another's."""
    blocks = list(theirs.resblocks)
    with torch.device("meta"):
        ours = Transformer(1, len(blocks), 1)
    ours.width = blocks[0].attn.embed_dim
    for block, their in zip(ours.resblocks, blocks):
        for name in ("attn", "ln_1", "mlp", "ln_2"):
            setattr(block, name, getattr(their, name))
        block.attn.batch_first = False  # OpenAI's tokens come first
        block.attn_mask = mask
    return ours
