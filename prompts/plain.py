"""CLIP's towers with learned prompts as plain modules, formula by formula, for programs that trace.

What our own encoders compute with folded weights and shared prefixes, written as it is defined;
the tests hold the two together.

Shapes: B pictures, C classes, L tokens, M context vectors, N visual prompts, P places of a picture,
D and V widths of the text and the image tower, E embedding size.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.adapted import OtherTower
from trainers.plot import sinkhorn


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """(B, L, D) each → (B, L, D), before the projection behind the heads."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def block(layer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A residual attention block of CLIP's on (B, L, D)."""
    attn = layer.attn
    qkv = F.linear(layer.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    x = x + attn.out_proj(attention(*qkv.chunk(3, dim=-1), attn.num_heads, mask))
    return x + layer.mlp(layer.ln_2(x))


class PlainImageEncoder(nn.Module):
    """A vision transformer with prompts behind its patches (VPT, arXiv 2203.12119), or a ResNet.

    Args:
        visual: clip's image tower.
        prompts: (N, V) of the first block; None: there are none.
        deep: (J, N, V), which take the place of what the block before made of them.
    """

    def __init__(self, visual: Any, prompts: Tensor | None = None, deep: Tensor | None = None):
        super().__init__()
        self.visual = visual
        self.prompts = None if prompts is None else nn.Parameter(prompts.detach())
        self.deep = None if deep is None else nn.Parameter(deep.detach())

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, E), not normalized."""
        visual = self.visual
        if isinstance(visual, OtherTower):  # which takes its images in groups: no program traces it
            return visual.tower(image)
        if not hasattr(visual, "class_embedding"):  # a ResNet has no place for prompts
            return visual(image)
        return visual.ln_post(self.tokens(image)[:, 0]) @ visual.proj

    def tokens(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, L + N, V), what a vision transformer's last block returns."""
        visual = self.visual
        x = visual.conv1(image).flatten(2).transpose(1, 2)  # (B, L - 1, V)
        first = visual.class_embedding.expand(image.shape[0], 1, -1)
        x = torch.cat([first, x], dim=1) + visual.positional_embedding  # (B, L, V)
        n = 0
        if self.prompts is not None:
            n = len(self.prompts)
            x = torch.cat([x, self.prompts.expand(image.shape[0], -1, -1)], dim=1)  # (B, L + N, V)
        x = visual.ln_pre(x)
        for i, layer in enumerate(visual.transformer.resblocks):
            if self.deep is not None and 0 < i <= len(self.deep):
                x = torch.cat([x[:, :-n], self.deep[i - 1].expand(image.shape[0], -1, -1)], dim=1)
            x = block(layer, x)
        return x


class PlainPlaces(PlainImageEncoder):
    """The features of a picture's places (`encoders.ImageEncoder.local`)."""

    def __init__(self, visual: Any):
        super().__init__(visual)
        if not hasattr(visual, "class_embedding"):
            self.body = copy.copy(visual)
            self.body._modules = {**visual._modules, "attnpool": nn.Identity()}

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, P, E), not normalized."""
        visual = self.visual
        if hasattr(visual, "class_embedding"):
            return visual.ln_post(self.tokens(image)[:, 1:]) @ visual.proj
        pool, x = visual.attnpool, self.body(image).flatten(2).transpose(1, 2)  # (B, P, V)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding
        q, k, v = pool.q_proj(x), pool.k_proj(x), pool.v_proj(x)
        return pool.c_proj(attention(q, k, v, pool.num_heads))[:, 1:]


class PlainTextEncoder(nn.Module):
    """Embedded prompts (B, C, L, D) → class features (B, C, E), not normalized.

    Args:
        encoder: our text encoder, which holds clip's weights.
        eot: (C,), where each prompt ends.
        length: L.
    """

    def __init__(self, encoder: Any, eot: Tensor, length: int):
        super().__init__()
        self.blocks = encoder.transformer.resblocks
        self.ln_final = encoder.ln_final
        self.projection = encoder.text_projection
        self.register_buffer("positions", encoder.positional_embedding[:length].detach())
        self.register_buffer("eot", eot.detach().clone())
        self.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, prompts: Tensor) -> Tensor:
        b, c, length, d = prompts.shape
        x = (prompts + self.positions).reshape(b * c, length, d)
        for layer in self.blocks:
            x = block(layer, x, self.mask)
        x = x.reshape(b, c, length, d)
        ends = self.eot[None, :, None, None].expand(b, -1, 1, d)
        x = x.gather(2, ends)[:, :, 0]  # (B, C, D)
        return self.ln_final(x) @ self.projection


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


class PlainClassifier(nn.Module):
    """Images (B, 3, H, W) → logits (B, C), by one matrix (`prompts.classifier`)."""

    def __init__(self, image_encoder: nn.Module, head: Any):
        super().__init__()
        self.image_encoder = image_encoder
        self.layer = None if head.layer is None else nn.Parameter(head.layer)
        self.weight = nn.Parameter(head.weight * head.scale)
        self.bias = None if head.bias is None else nn.Parameter(head.bias)
        self.normalized = head.normalized

    def forward(self, image: Tensor) -> Tensor:
        return self.from_features(self.image_encoder(image))

    def from_features(self, features: Tensor) -> Tensor:
        """(B, E), not normalized → (B, C)"""
        features = features if self.layer is None else features @ self.layer.T
        features = unit(features) if self.normalized else features
        return F.linear(features, self.weight, self.bias)


class PlainDePT(PlainClassifier):
    """Images (B, 3, H, W) → log p (B, C), of one matrix and a head (DePT, arXiv 2309.07439).

    Args:
        image_encoder: see PlainImageEncoder.
        matching: the matrix.
        model: a DecoupledCLIP, whose head knows the classes.
    """

    def __init__(self, image_encoder: nn.Module, matching: Any, model: Any):
        super().__init__(image_encoder, matching)
        self.head, self.share = model.head, model.weight  # lambda

    def forward(self, image: Tensor) -> Tensor:
        features = unit(self.image_encoder(image))
        head = self.head(features).softmax(dim=1)
        p = self.share * head + (1 - self.share) * self.from_features(features).softmax(dim=1)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


class PlainPLOT(nn.Module):
    """Images (B, 3, H, W) → logits (B, C), by optimal transport (PLOT, arXiv 2210.01253).

    Args:
        model: a CustomCLIP of PLOT's.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.places, self.transport = PlainPlaces(model.image_encoder), model.transport
        self.register_buffer("prompts", model.text_features().detach())  # (C, N prompts, E)
        self.register_buffer("scale", model.logit_scale.detach().exp())

    def forward(self, image: Tensor) -> Tensor:
        similarity = torch.einsum("bme,cne->bcmn", unit(self.places(image)), self.prompts)
        plan = sinkhorn(1 - similarity, *self.transport)
        return self.scale * (plan * similarity).sum(dim=(-2, -1))


class PlainCoCoOp(nn.Module):
    """Images (B, 3, H, W) → logits (B, C), with the Meta-Net (CoCoOp, arXiv 2203.05557, eq. 3).

    Args:
        model: a CustomCLIP whose prompt learner has a Meta-Net.
    """

    def __init__(self, model: Any):
        super().__init__()
        learner = model.prompt_learner
        self.image_encoder = PlainImageEncoder(model.image_encoder)
        self.text_encoder = PlainTextEncoder(model.text_encoder, learner.eot, learner.length)
        self.ctx, self.meta_net = learner.ctx, learner.meta_net
        self.register_buffer("prefix", learner.token_prefix.detach())  # (C, 1, D)
        self.register_buffer("suffix", learner.suffix().detach())  # (C, L - 1 - M, D)
        self.register_buffer("scale", model.logit_scale.detach().exp())

    def forward(self, image: Tensor) -> Tensor:
        features = unit(self.image_encoder(image))  # f, (B, E)
        context = self.ctx + self.meta_net(features)[:, None]  # v_m + h(x), (B, M, D)
        b, c = image.shape[0], len(self.prefix)
        prompts = torch.cat(
            [
                self.prefix.expand(b, -1, -1, -1),
                context[:, None].expand(-1, c, -1, -1),
                self.suffix.expand(b, -1, -1, -1),
            ],
            dim=2,
        )  # (B, C, L, D)
        classes = unit(self.text_encoder(prompts))  # g(t(x)), (B, C, E)
        return self.scale * (classes @ features[:, :, None])[:, :, 0]
