"""The plain path: the papers' formulas as they stand, which tests and benchmarks measure against.

Every prompt has all 77 positions, every image of CoCoOp its own pass through the text tower, and
CLIP's own modules compute. Nothing is cut, shared, packed, folded or kept.

Shapes: B images, C classes, M context vectors, L = 77 positions, D width, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.openai import CLIP


def encode_prompts(clip_model: CLIP, prompts: Tensor, eot: Tensor) -> Tensor:
    """CLIP.encode_text, but from embeddings: (N, L, D) and end positions (N,) → (N, E)."""
    x = (prompts + clip_model.positional_embedding).type(clip_model.dtype)  # (N, L, D)
    x = clip_model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = clip_model.ln_final(x).type(clip_model.dtype)
    return x[torch.arange(len(x)), eot] @ clip_model.text_projection


def encode_deep_prompts(
    clip_model: CLIP, prompts: Tensor, eot: Tensor, deep: Tensor | None
) -> Tensor:
    """As `encode_prompts`; from block 2 on, `deep` (J, M, D) stands behind the start token."""
    x = (prompts + clip_model.positional_embedding).type(clip_model.dtype)  # (N, L, D)
    x = x.permute(1, 0, 2)  # (L, N, D)
    for i, block in enumerate(clip_model.transformer.resblocks):
        if deep is not None and 1 <= i <= len(deep):
            own = deep[i - 1][:, None].expand(-1, x.shape[1], -1).type(x.dtype)  # (M, N, D)
            x = torch.cat([x[:1], own, x[1 + len(own) :]])
        x = block(x)
    x = clip_model.ln_final(x.permute(1, 0, 2)).type(clip_model.dtype)
    return x[torch.arange(len(x)), eot] @ clip_model.text_projection


def encode_prompted_images(
    visual: nn.Module, image: Tensor, prompts: Tensor, deep: Tensor | None
) -> Tensor:
    """Images, with (M, D) vectors behind their patches, and (J, M, D) from block 2 on → (B, E)."""
    x = visual.conv1(image.type(visual.conv1.weight.dtype))
    x = x.flatten(2).transpose(1, 2)  # (B, patches, D)
    first = visual.class_embedding.expand(len(x), 1, -1).type(x.dtype)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding.type(x.dtype)
    length = x.shape[1]
    x = visual.ln_pre(torch.cat([x, prompts.expand(len(x), -1, -1).type(x.dtype)], dim=1))
    x = x.permute(1, 0, 2)
    for i, block in enumerate(visual.transformer.resblocks):
        if deep is not None and 1 <= i <= len(deep):
            own = deep[i - 1][:, None].expand(-1, x.shape[1], -1).type(x.dtype)
            x = torch.cat([x[:length], own])
        x = block(x)
    return visual.ln_post(x[0]) @ visual.proj


def prompts_of(learner: nn.Module, ctx: Tensor, position: str = "end") -> Tensor:
    """Context (M, D) or (C, M, D) → prompts (C, L, D): CoOp, section 3.2, equations 2 and 4."""
    n_cls, n_ctx = learner.n_cls, learner.n_ctx
    ctx = ctx.expand(n_cls, -1, -1)
    start, rest = learner.token_prefix, learner.token_suffix
    if position == "end":
        return torch.cat([start, ctx, rest], dim=1)
    before = n_ctx // 2 if position == "middle" else 0
    prompts = [
        torch.cat(
            [start[i], ctx[i, :before], rest[i, :name_len], ctx[i, before:], rest[i, name_len:]]
        )
        for i, name_len in enumerate(learner.name_lens)
    ]
    return torch.stack(prompts)


def coop_features(model: nn.Module, clip_model: CLIP, position: str = "end") -> Tensor:
    """Class features (C, E) of a trainers.coop.CustomCLIP, of length 1."""
    learner = model.prompt_learner
    prompts = prompts_of(learner, learner.ctx, position)
    return _unit(encode_prompts(clip_model, prompts, learner.eot))


def coop_logits(model: nn.Module, clip_model: CLIP, image: Tensor) -> Tensor:
    """Images (B, 3, H, W) → logits (B, C) of a trainers.coop.CustomCLIP."""
    image_features = _unit(clip_model.encode_image(image))
    return clip_model.logit_scale.exp() * image_features @ coop_features(model, clip_model).t()


def cocoop_features(model: nn.Module, clip_model: CLIP, image_features: Tensor) -> Tensor:
    """Image features (B, E) → class features (B, C, E) of a trainers.cocoop.CustomCLIP."""
    learner = model.prompt_learner
    bias = learner.meta_net(image_features.to(learner.ctx.dtype))  # (B, D)
    return torch.stack(
        [
            _unit(encode_prompts(clip_model, prompts_of(learner, learner.ctx + b), learner.eot))
            for b in bias
        ]
    )


def cocoop_logits(model: nn.Module, clip_model: CLIP, image: Tensor) -> Tensor:
    """Images (B, 3, H, W) → logits (B, C) of a trainers.cocoop.CustomCLIP."""
    image_features = _unit(clip_model.encode_image(image))
    text_features = cocoop_features(model, clip_model, image_features)
    return clip_model.logit_scale.exp() * torch.einsum("be,bce->bc", image_features, text_features)


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def tcp_features(model: nn.Module, clip_model: CLIP) -> Tensor:
    """Class features (C, E) of a trainers.tcp.CustomCLIP, of length 1."""
    learner = model.prompt_learner
    down, up = learner.meta_net.linear1, learner.meta_net.linear2
    hidden = down(model.hand_written)
    own = up(hidden * torch.sigmoid(1.702 * hidden)).view(len(hidden), learner.n_ctx, -1)
    x = prompts_of(learner, learner.ctx) + clip_model.positional_embedding  # (C, L, D)
    x = x.permute(1, 0, 2).type(clip_model.dtype)
    for i, block in enumerate(clip_model.transformer.resblocks):
        if i == learner.tree.depth:
            x = torch.cat([x[:1], own.permute(1, 0, 2).type(x.dtype), x[1 + learner.n_ctx :]])
        x = block(x)
    x = clip_model.ln_final(x.permute(1, 0, 2)).type(clip_model.dtype)
    return _unit(x[torch.arange(len(x)), learner.eot] @ clip_model.text_projection)


def maple_loss(model: nn.Module, clip_model: CLIP, image: Tensor, label: Tensor) -> Tensor:
    """A training step's loss of a trainers.maple.CustomCLIP."""
    learner = model.prompt_learner
    f = _unit(encode_prompted_images(clip_model.visual, image, *learner.visual_prompts()))
    prompts = prompts_of(learner, learner.ctx)
    w = _unit(encode_deep_prompts(clip_model, prompts, learner.eot, learner.deep_context()))
    return F.cross_entropy(clip_model.logit_scale.exp() * f @ w.t(), label)


def promptsrc_loss(model: nn.Module, clip_model: CLIP, image: Tensor, label: Tensor) -> Tensor:
    """A training step's loss of a trainers.promptsrc.CustomCLIP; its text features are kept."""
    learner, visual, text = (model.prompts[name] for name in model.prompts)
    scale = clip_model.logit_scale.exp()
    g = model.frozen_text_features.type(clip_model.dtype)
    with torch.no_grad():
        f = _unit(clip_model.encode_image(image))
    f_p = _unit(encode_prompted_images(clip_model.visual, image, visual.VPT, visual.deep()))
    prompts = prompts_of(learner, learner.ctx)
    g_p = _unit(encode_deep_prompts(clip_model, prompts, learner.eot, text.deep()))
    logits = scale * f_p @ g_p.t()
    log_q_p, log_q = logits.log_softmax(dim=1), (scale * f @ g.t()).log_softmax(dim=1)
    regulation = model.text_weight * (g_p - g).abs().mean()
    regulation = regulation + model.image_weight * (f_p - f).abs().mean()
    regulation = regulation + (log_q.exp() * (log_q - log_q_p)).mean()
    return F.cross_entropy(logits, label) + regulation


class ProMetaR:
    """Both parts of a step of a trainers.prometar.ProMetaR, without FAST_ADAPTATION."""

    def __init__(self, trainer: Any, clip_model: CLIP) -> None:
        self.trainer, self.model, self.clip = trainer, trainer.model, clip_model
        self.settings = trainer.settings(trainer.cfg)
        self.theta = dict(trainer.learned.named_parameters())

    def features(self, theta: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        towers = ("text_encoder.transformer", "image_encoder.transformer")
        text, visual = (
            torch.stack([vectors for name, vectors in theta.items() if name.startswith(tower)])
            for tower in towers
        )
        learner = self.model.prompt_learner
        prompts = prompts_of(learner, theta["prompt_learner.ctx"])
        w = encode_deep_prompts(self.clip, prompts, learner.eot, text)
        f = encode_prompted_images(self.clip.visual, image, theta["image_encoder.VPT"], visual)
        return f, _unit(w)

    def altered(
        self, image: Tensor, label: Tensor, second: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns L + R, and G of each parameter."""
        f, w = self.features(self.theta, image)
        f = _unit(f)
        with torch.no_grad():
            frozen = _unit(self.clip.encode_image(image))
        task = F.cross_entropy(self.clip.logit_scale.exp() * f @ w.t(), label)
        regularizer = 50 * (w - self.model.frozen_text_features).abs().mean()
        regularizer = regularizer + 20 * (f - frozen).abs().mean()
        prompts = list(self.theta.values())
        g = torch.autograd.grad(task, prompts, retain_graph=True, create_graph=second)
        r = torch.autograd.grad(regularizer, prompts, create_graph=second)
        altered = {k: self.model.modulation(k, *pair) for k, *pair in zip(self.theta, g, r)}
        return (task + regularizer).detach(), altered

    def whole(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        loss, altered = self.altered(image, label, second=False)
        for name, prompt in self.theta.items():
            prompt.grad = altered[name].detach()
        return loss, loss

    @sdpa_kernel(SDPBackend.MATH)  # the fused kernels' gradients have no gradient
    def meta(self, image: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        label, partner = task[:2].long()
        in_test = task[3] > 0
        _, altered = self.altered(image[~in_test], label[~in_test], second=True)
        theta = {k: v - self.settings.ADAPT_LR * altered[k] for k, v in self.theta.items()}
        f, w = self.features(theta, image)
        share, others = task[4, in_test], partner[in_test]
        mixed = share[:, None] * f[in_test] + (1 - share[:, None]) * f[others]
        logits = self.clip.logit_scale.exp() * _unit(mixed) @ w.t()
        own, theirs = (
            F.cross_entropy(logits, label[i], reduction="none") for i in (in_test, others)
        )
        loss = (share * own + (1 - share) * theirs).mean()
        (self.settings.LR_RATIO * loss).backward()
        return loss.detach(), loss.detach()
