"""Prompt embeddings → text features: the one place that knows about sequences.

CLIP's text tower is causal and only the output at the end token is read. So nothing after the
longest end token can matter, and sequences are cut there: 77 positions become 10 to 30, and the
numbers stay the same.

Shapes: N prompts, L positions, D width, E embedding size, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainers.clip_utils import CLIP

# Tokens encoded at a time. In training at ViT-B/16 size a token keeps about 0.4 MB of activations
# (float32); beyond one chunk they are recomputed in the backward pass instead of kept.
CHUNK_TOKENS = 8192


class TextEncoder(nn.Module):
    """CLIP's text tower on embeddings instead of token ids.

    Args:
        clip_model: gives the (frozen) transformer, positions, final norm and projection.
        chunk_tokens: tokens encoded at a time; bounds memory, changes no number.
    """

    def __init__(self, clip_model: CLIP, chunk_tokens: int = CHUNK_TOKENS) -> None:
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.token_embedding = clip_model.token_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.chunk_tokens = chunk_tokens

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def forward(self, prompts: Tensor, eot: Tensor) -> Tensor:
        """Encodes prompts.

        Args:
            prompts: (N, L, D) embeddings without positions; L at least max(eot) + 1.
            eot: (N,) position of each end token.

        Returns:
            (N, E) features, not normalized.
        """
        per_chunk = max(1, self.chunk_tokens // prompts.shape[1])
        if len(prompts) <= per_chunk:
            return self._encode(prompts, eot)
        chunks = zip(prompts.split(per_chunk), eot.split(per_chunk))
        if not (torch.is_grad_enabled() and prompts.requires_grad):
            return torch.cat([self._encode(*chunk) for chunk in chunks])
        return torch.cat(
            [checkpoint(self._encode, *chunk, use_reentrant=False) for chunk in chunks]
        )

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Encodes token ids (N, 77) without gradients: (N, E) features, not normalized."""
        eot = tokens.argmax(dim=-1)  # the end token has the largest id
        with torch.no_grad():
            prompts = self.token_embedding(tokens[:, : int(eot.max()) + 1])
            return self(prompts, eot)

    def _encode(self, prompts: Tensor, eot: Tensor) -> Tensor:
        length = prompts.shape[1]
        x = (prompts + self.positional_embedding[:length]).to(self.dtype)  # (N, L, D)
        for block in self.transformer.resblocks:
            x = x + _causal_attention(block.attn, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        x = x[torch.arange(len(x), device=x.device), eot]  # (N, D): the norm acts on each row alone
        return self.ln_final(x).to(self.dtype) @ self.text_projection  # (N, E)


def _causal_attention(attn: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Multi-head self-attention in which a position sees itself and earlier ones, (N, L, D)."""
    n, length, width = x.shape
    qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.view(n, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, L, D/H)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attn.out_proj(out.transpose(1, 2).reshape(n, length, width))
