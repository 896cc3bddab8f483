"""ProMetaR: prompt learning via meta-regularization (Park et al., CVPR 2024, arXiv 2404.00851).

Deep prompts theta in both towers, as IVLP. With L the cross-entropy and R the distance from the
frozen CLIP's features (PromptSRC's first two terms, arXiv 2307.06948), their gradients g and r are
altered to

    G = g + gamma * r,  gamma = sigmoid(phi([g, r]))              gradient modulation

by a network phi for each parameter, whose every output counts for DIM_RATE numbers. A step has two:

    theta <- theta - lr G(theta; batch)
    theta' = theta - alpha G(theta; meta-train)                   inner step
    theta and phi go down the gradient of rho L(theta'; virtual task)

Meta-test is one class of the batch, meta-train all others; a batch of one class has the first step
alone. A virtual task (task augmentation) mixes features and labels of each image of meta-test with
one of meta-train by manifold mixup (arXiv 1806.05236). The outer gradient goes through the inner
step, as in MAML (arXiv 1703.03400); with FAST_ADAPTATION it takes g and r for constants.
docs/methods.md says what is the paper's and what is the public implementation's.

Shapes: B images, C classes, M vectors, D width, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.func import functional_call
from torch.nn import functional as F
from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer
from encoders.kernels.second_order import twice_differentiable
from encoders.tower import normalize, without_autocast
from trainers.clip_trainer import frozen_clip
from trainers.custom_clip import cosine_logits
from trainers.deep_prompts import VLTrainer
from trainers.hand_written import VLGuidedCLIP

WEIGHTS = 50.0, 20.0  # of class and image features' distances in R, as in the public implementation


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PROMETAR = CN()
    cfg.TRAINER.PROMETAR.N_CTX_VISION = 4  # vectors a block in the image tower
    cfg.TRAINER.PROMETAR.N_CTX_TEXT = 4  # vectors a block in the text tower
    cfg.TRAINER.PROMETAR.CTX_INIT = "a photo of a"  # where the first start; empty: at random
    cfg.TRAINER.PROMETAR.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_VISION = 9  # blocks with vectors of their own
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_TEXT = 9
    cfg.TRAINER.PROMETAR.ADAPT_LR = 0.0005  # alpha
    cfg.TRAINER.PROMETAR.LR_RATIO = 0.0005  # of the virtual task's loss, rho
    cfg.TRAINER.PROMETAR.FAST_ADAPTATION = False  # first order
    cfg.TRAINER.PROMETAR.MIXUP_ALPHA = 0.5  # an image's share in its mixture is drawn
    cfg.TRAINER.PROMETAR.MIXUP_BETA = 0.5  # from Beta(alpha, beta)
    cfg.TRAINER.PROMETAR.DIM_RATE = 8  # numbers of a parameter over those of phi's layers
    cfg.OPTIM_VNET = cfg.OPTIM.clone()  # for phi
    cfg.OPTIM_VNET.update(NAME="sgd", LR=0.00025, LR_SCHEDULER="cosine")
    cfg.OPTIM_VNET.update(WARMUP_EPOCH=1, WARMUP_TYPE="constant", WARMUP_CONS_LR=1e-6)


class GradientModulation(nn.Module):
    """phi: how much of each number of the regularizer's gradient is followed.

    Args:
        prompts: name → (M, D); the image tower's begin with "image_encoder".
        dim_rate: M * D over the width of both layers.
    """

    def __init__(self, prompts: Mapping[str, Tensor], dim_rate: int) -> None:
        super().__init__()
        self.dim_rate = dim_rate
        self.linear_vision_gamma, self.linear_text_gamma = nn.ModuleList(), nn.ModuleList()
        self._networks: dict[str, tuple[nn.ModuleList, int]] = {}
        for name, prompt in prompts.items():
            is_visual = name.startswith("image_encoder")
            networks = self.linear_vision_gamma if is_visual else self.linear_text_gamma
            self._networks[name] = networks, len(networks)
            size, narrow = prompt.numel(), -(-prompt.numel() // dim_rate)
            layers = nn.Linear(2 * size, narrow, bias=False), nn.Linear(narrow, narrow, bias=False)
            networks.append(nn.Sequential(*layers, nn.Sigmoid()))

    def forward(self, name: str, g: Tensor, r: Tensor) -> Tensor:
        """Gradients of a parameter (M, D) → G, (M, D)."""
        networks, place = self._networks[name]
        with without_autocast(g):
            each = networks[place](torch.cat([g.flatten(), r.flatten()]))
            gamma = each[:, None].expand(-1, self.dim_rate).flatten()[: r.numel()]
            return g + gamma.view_as(r) * r


class CustomCLIP(VLGuidedCLIP):
    """CLIP with learned prompts in both towers, which knows its features without them."""

    config_node = "PROMETAR"

    def __init__(self, cfg: CfgNode, *args: Any) -> None:
        super().__init__(cfg, *args)
        prompts, settings = dict(self.learned.named_parameters()), cfg.TRAINER.PROMETAR
        self.modulation = GradientModulation(prompts, settings.DIM_RATE)

    def forward(self, image: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) → logits (B, C), or image features (B, E), not normalized, and class
        features (C, E)."""
        if features:
            return self.frozen_image_encoder(image, *self.visual_prompts()), self.text_features()
        return super().forward(image)

    def losses(self, image: Tensor, label: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns L and R, (), and logits (B, C); an image counts for its share, (B,)."""
        image_features, text_features = self(image, features=True)
        image_features = normalize(image_features)
        logits = cosine_logits(self.logit_scale, image_features, text_features)
        task = (share * F.cross_entropy(logits, label, reduction="none")).sum()
        text_weight, image_weight = WEIGHTS
        distance = (image_features - self.frozen_features(image)).abs().mean(dim=1)
        regularizer = image_weight * (share * distance).sum()
        regularizer = regularizer + text_weight * F.l1_loss(
            text_features, self.frozen_text_features
        )
        return task, regularizer, logits


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=False, capturable_step=True)
class ProMetaR(VLTrainer):
    """Prompt learning via meta-regularization, https://arxiv.org/abs/2404.00851."""

    config_node = "PROMETAR"
    custom_clip_class = CustomCLIP
    only_for_training = ("gradient_modulation",)

    @classmethod
    def context_problems(cls, settings: CfgNode, key: str) -> list[str]:
        wrong = {
            "0 or more": [k for k in ("ADAPT_LR", "LR_RATIO") if settings[k] < 0],
            "more than 0": [k for k in ("MIXUP_ALPHA", "MIXUP_BETA") if settings[k] <= 0],
            "1 or more": [k for k in ("DIM_RATE",) if settings[k] < 1],
        }
        return super().context_problems(settings, key) + [
            f"{key}.{k} is {settings[k]}; expected {what}." for what in wrong for k in wrong[what]
        ]

    def build_model(self) -> None:
        super().build_model()
        phi, optim_cfg = self.model.modulation, self.cfg.OPTIM_VNET
        optim = build_optimizer(phi, optim_cfg)
        sched = build_lr_scheduler(optim, optim_cfg)
        self.register_model(*self.only_for_training, phi, optim, sched)

    def forward_backward(self, batch: dict) -> dict[str, float | Tensor]:
        image, label = self.parse_batch_train(batch)
        whole = partial(self.passes, self.model)
        loss, logits = self.descend(whole, image, label, self.checkpoint_folder)
        task = self.draw_task(batch["label"])
        if task is not None:
            task = task.to(self.device, non_blocking=True)
            # With amp, g and r may overflow, and L with them: the scaler skips the step then.
            checked = not self.scaler.is_enabled()
            self.descend(partial(self.meta_passes), image, task, checked=checked)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return self.summarize(loss, logits, label)

    def passes(self, forward: Any, inputs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The step on the whole batch: L + R, and logits; leaves G."""
        share = torch.full_like(label, 1 / len(label), dtype=torch.float32)
        altered, loss, logits = self.altered_gradients(inputs, label, share)
        for name, prompt in self.learned.named_parameters():
            prompt.grad = self.scaler.scale(altered[name])
        return loss, logits

    def altered_gradients(
        self, image: Tensor, label: Tensor, share: Tensor, second: bool = False, phi: bool = False
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Returns G of each parameter, L + R and logits; `second`: g, r and so G with gradients;
        `phi`: G has those of phi."""
        with self.autocast(), twice_differentiable(second):
            task, regularizer, logits = self.model.losses(image, label, share)
        names, prompts = zip(*self.learned.named_parameters())
        g = self._gradients(task, prompts, retain_graph=True, create_graph=second)
        r = self._gradients(regularizer, prompts, create_graph=second)
        with torch.set_grad_enabled(phi or second):
            altered = {k: self.model.modulation(k, *pair) for k, *pair in zip(names, g, r)}
        return altered, (task + regularizer).detach(), logits.detach()

    def _gradients(self, loss: Tensor, of: tuple, **flags: bool) -> tuple[Tensor, ...]:
        """As autograd's; with amp by way of a scaled loss, whose gradients fit half precision."""
        if not self.scaler.is_enabled():
            return torch.autograd.grad(loss, of, **flags)
        scale = self.scaler.scale(torch.ones_like(loss))
        return tuple(g / scale for g in torch.autograd.grad(scale * loss, of, **flags))

    def draw_task(self, label: Tensor) -> Tensor | None:
        """Divides a batch: (B,) → (5, B), or None where there is one class.

        Returns:
            Rows: label; partner, an image of meta-train; share in meta-train's loss; share in the
            virtual task's; share in the mixture with the partner.
        """
        label = label.cpu()
        classes = label.unique()
        if len(classes) == 1:
            return None
        in_test = label == classes[torch.randperm(len(classes))[0]]
        test, train = in_test.nonzero().flatten(), (~in_test).nonzero().flatten()
        settings = self.settings(self.cfg)
        mixture = Beta(settings.MIXUP_ALPHA, settings.MIXUP_BETA).sample((len(test),))
        task = torch.zeros(5, len(label))
        task[0] = label
        task[1, test] = train[torch.randint(len(train), (len(test),))].float()
        task[2, train], task[3, test], task[4, test] = 1 / len(train), 1 / len(test), mixture
        return task

    def meta_passes(self, inputs: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """L of the virtual task, and its logits; leaves the gradients of rho L."""
        loss, logits = self.meta_loss(inputs, task)
        self.scaler.scale(loss).backward()
        for parameter in (*self.learned.parameters(), *self.model.modulation.parameters()):
            parameter.grad.mul_(self.settings(self.cfg).LR_RATIO)  # not before: half precision
        return loss.detach(), logits.detach()

    def meta_loss(self, image: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Images and their task → L of the virtual task after the inner step, and its logits."""
        label, partner = task[:2].long()
        in_train, in_test, mixture = task[2:]
        train = slice(None) if self.encodes_all() else in_train.nonzero().flatten()
        adapted = self.adapt(image[train], label[train], in_train[train])
        pairs = torch.stack([torch.arange(len(label), device=label.device), partner])
        places = pairs
        if not self.encodes_all():
            pairs, in_test, mixture = (x[..., in_test > 0] for x in (pairs, in_test, mixture))
            seen, places = pairs.unique(return_inverse=True)
            image = image[seen]
        # The same modules under two names are no tied weights: torch would not put them back.
        call = partial(functional_call, self.model, adapted, tie_weights=False)
        with self.autocast():
            image_features, text_features = call((image,), {"features": True})
            own, others = image_features[places]  # (n, E)
            mixed = mixture[:, None] * own + (1 - mixture[:, None]) * others
            logits = cosine_logits(self.model.logit_scale, normalize(mixed), text_features)
            own, others = (F.cross_entropy(logits, label[i], reduction="none") for i in pairs)
        return (in_test * (mixture * own + (1 - mixture) * others)).sum(), logits

    def adapt(self, image: Tensor, label: Tensor, share: Tensor) -> dict[str, Tensor]:
        """The inner step on meta-train: returns theta', by the names that the model has for it."""
        settings = self.settings(self.cfg)
        second = not settings.FAST_ADAPTATION
        altered, _, _ = self.altered_gradients(image, label, share, second, phi=True)
        return {
            f"prompts.{name}": prompt - settings.ADAPT_LR * altered[name]
            for name, prompt in self.learned.named_parameters()
        }

    def encodes_all(self) -> bool:
        """Whether images that a part of the step does without go through it, so that all steps have
        the same shapes."""
        return self.device.type == "cuda" or self.captures_step()
