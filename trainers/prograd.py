"""ProGrad: prompt-aligned gradient (Zhu et al., ICCV 2023, arXiv 2205.14865).

CoOp whose updates never work against what the frozen CLIP says. G_d is the gradient of the
cross-entropy, G_g that of KL(q, p), the divergence of the predictions p from the zero-shot ones q
(of the data set's hand-written prompt). Where the two point apart, the part of G_d against G_g is
taken out (section 3.2):

    G = G_d                                              if cos(G_d, G_g) >= 0
    G = G_d - lambda (G_d . G_g / |G_g|^2) G_g           otherwise

Shapes: B images, C classes, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.optim.aligned import aligned
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import cosine_logits
from trainers.hand_written import GuidedCLIP, GuidedTrainer


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PROGRAD = CN()
    cfg.TRAINER.PROGRAD.N_CTX = 16  # number of context vectors, M
    cfg.TRAINER.PROGRAD.CTX_INIT = "a photo of a"  # words to start from; empty: random
    cfg.TRAINER.PROGRAD.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.PROGRAD.LAMBDA = 1.0  # how much of the conflicting part is taken out
    cfg.TRAINER.PROGRAD.T = 1.0  # temperature of both predictions in KL


class CustomCLIP(GuidedCLIP):
    config_node = "PROGRAD"

    def __init__(self, cfg: CfgNode, *args: Any) -> None:
        super().__init__(cfg, *args)
        self.temperature = cfg.TRAINER.PROGRAD.T

    def loss(self, image_features: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image features (B, E) of length 1 → cross-entropy (), KL(q, p) (), logits (B, C)."""
        logits = self.logits(image_features)
        zero_shot = cosine_logits(self.logit_scale, image_features, self.hand_written)
        log_p = F.log_softmax(logits / self.temperature, dim=1)
        log_q = F.log_softmax(zero_shot / self.temperature, dim=1)
        general = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
        return F.cross_entropy(logits, label), self.temperature**2 * general, logits


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True, capturable_step=True)
class ProGrad(GuidedTrainer):
    """Prompt-aligned gradient, https://arxiv.org/abs/2205.14865."""

    config_node = "PROGRAD"
    custom_clip_class = CustomCLIP

    def passes(
        self, forward: Callable[..., Any], inputs: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        with self.autocast():
            loss, general, logits = forward(inputs, label)
        learned = list(self.learned.parameters())
        domain_gradients = torch.autograd.grad(self.scaler.scale(loss), learned, retain_graph=True)
        general_gradients = torch.autograd.grad(self.scaler.scale(general), learned)
        strength = self.settings(self.cfg).LAMBDA
        for parameter, g_d, g_g in zip(learned, domain_gradients, general_gradients):
            parameter.grad = aligned(g_d, g_g, strength)
        return loss.detach(), logits.detach()
