"""ProMetaR: prompt learning via meta-regularization (Park et al., CVPR 2024, arXiv 2404.00851).

Deep prompts theta in both towers, as IVLP. A step that fits some classes of a batch, meta-train,
and is held by a regularizer, shall help on the others, meta-test. With L the cross-entropy and R
the distance from the frozen CLIP's features (PromptSRC's, arXiv 2307.06948):

    g = grad L(theta; meta-train),  r = grad R(theta; meta-train)
    theta' = theta - alpha g - beta M(r)                          inner step
    M(r) = sigmoid(phi([theta, r])) * r                           gradient modulation
    theta and phi go down the gradient of L(theta'; virtual task)

phi is a bottleneck of two layers for each tower. A virtual task (task augmentation) mixes features
and labels of meta-test and meta-train by manifold mixup (arXiv 1806.05236). The outer gradient goes
through the inner step, as in MAML (arXiv 1703.03400); with FAST_ADAPTATION it takes g and r for
constants. docs/methods.md says what is known of the method, and what was chosen here.

Shapes: B images, n of them meta-train, C classes, M vectors, D width, E embedding size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
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

WEIGHTS = 25.0, 10.0  # of class and image features' distances in R, PromptSRC's


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PROMETAR = CN()
    cfg.TRAINER.PROMETAR.N_CTX_VISION = 4  # vectors a block in the image tower
    cfg.TRAINER.PROMETAR.N_CTX_TEXT = 4  # vectors a block in the text tower
    cfg.TRAINER.PROMETAR.CTX_INIT = "a photo of a"  # where the first start; empty: at random
    cfg.TRAINER.PROMETAR.PREC = "fp16"  # fp16, fp32, amp
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_VISION = 9  # blocks with vectors of their own
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_TEXT = 9
    cfg.TRAINER.PROMETAR.ADAPT_LR = 0.0005  # alpha
    cfg.TRAINER.PROMETAR.LR_RATIO = 0.0005  # beta
    cfg.TRAINER.PROMETAR.FAST_ADAPTATION = False  # first order
    cfg.TRAINER.PROMETAR.MIXUP_ALPHA = 0.5  # the share of meta-test in a virtual task is drawn
    cfg.TRAINER.PROMETAR.MIXUP_BETA = 0.5  # from Beta(alpha, beta)
    cfg.TRAINER.PROMETAR.DIM_RATE = 8  # D over the width of phi's bottleneck
    cfg.OPTIM_VNET = cfg.OPTIM.clone()  # for phi
    cfg.OPTIM_VNET.update(NAME="sgd", LR=0.00025, LR_SCHEDULER="cosine")
    cfg.OPTIM_VNET.update(WARMUP_EPOCH=1, WARMUP_TYPE="constant", WARMUP_CONS_LR=1e-6)


class GradientModulation(nn.ModuleDict):
    """M: how much of each number of the regularizer's gradient the inner step follows.

    Args:
        prompts: name → (M, D); the image tower's begin with "image_encoder".
        dim_rate: D over the width of the bottleneck.
    """

    def __init__(self, prompts: Mapping[str, Tensor], dim_rate: int) -> None:
        super().__init__()
        for tower, width in {self.tower(k): p.shape[-1] for k, p in prompts.items()}.items():
            narrow = max(1, width // dim_rate)
            layers = nn.Linear(2 * width, narrow), nn.ReLU(), nn.Linear(narrow, width)
            self[tower] = nn.Sequential(*layers, nn.Sigmoid())

    @staticmethod
    def tower(name: str) -> str:
        return "image" if name.startswith("image_encoder") else "text"

    def forward(self, name: str, prompt: Tensor, gradient: Tensor) -> Tensor:
        """Prompts and their gradient r, (M, D) → M(r), (M, D)."""
        with without_autocast(prompt):
            return self[self.tower(name)](torch.cat([prompt, gradient], dim=-1)) * gradient


class CustomCLIP(VLGuidedCLIP):
    """CLIP with learned prompts in both towers, which knows its features without them."""

    config_node = "PROMETAR"

    def __init__(self, cfg: CfgNode, *args: Any) -> None:
        super().__init__(cfg, *args)
        prompts, settings = dict(self.learned.named_parameters()), cfg.TRAINER.PROMETAR
        self.modulation = GradientModulation(prompts, settings.DIM_RATE)

    def forward(self, image: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) → logits (B, C), or image (B, E) and class features (C, E)."""
        if features:
            return self.encode_image(image), self.text_features()
        return super().forward(image)

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns L and R, ()."""
        image_features, text_features = self(image, features=True)
        logits = cosine_logits(self.logit_scale, image_features, text_features)
        frozen = self.frozen_features(image)
        distance = self.distance(text_features, image_features, frozen, WEIGHTS)
        return F.cross_entropy(logits, label), distance


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
        # Meta-test's and meta-train's in a step's virtual task; a replayed step reads them here.
        self.shares = torch.tensor([0.5, 0.5], device=self.device)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        return self.divided(*super().parse_batch_train(batch))

    def divided(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Draws a task: returns images and labels, (B, ...), with those of meta-train first."""
        # Images by classes in random order; nothing is read back. A class at the cut is in both.
        place = torch.randperm(self.model.prompt_learner.n_cls).to(label.device, non_blocking=True)
        order = place[label].argsort(stable=True)
        settings = self.settings(self.cfg)
        share = random.betavariate(settings.MIXUP_ALPHA, settings.MIXUP_BETA)
        self.shares.copy_(torch.tensor([share, 1 - share]), non_blocking=True)
        return image[order], label[order]

    def passes(self, forward: Callable, inputs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = self.meta_loss(inputs, label)
        self.scaler.scale(loss).backward()
        return loss.detach(), logits.detach()

    def meta_loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """A divided batch → L of a virtual task after the inner step, and its logits."""
        n = max(1, len(label) // 2)
        adapted = self.adapt(image[:n], label[:n])
        # The same modules under two names are no tied weights: torch would not put them back.
        call = partial(functional_call, self.model, adapted, tie_weights=False)
        with self.autocast():
            features = call((image,), {"features": True})
            return virtual_task(self.model.logit_scale, features, label, n, self.shares)

    def adapt(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """The inner step on meta-train: returns theta', by the names that the model has for it."""
        settings = self.settings(self.cfg)
        second = not settings.FAST_ADAPTATION
        with self.autocast(), twice_differentiable(second):
            task, regularizer = self.model.losses(image, label)
        names, prompts = zip(*self.learned.named_parameters())
        g = torch.autograd.grad(task, prompts, retain_graph=True, create_graph=second)
        r = torch.autograd.grad(regularizer, prompts, create_graph=second)
        adapted = {}
        for name, prompt, g_i, r_i in zip(names, prompts, g, r):
            modulated = self.model.modulation(name, prompt if second else prompt.detach(), r_i)
            step = settings.ADAPT_LR * g_i + settings.LR_RATIO * modulated
            adapted[f"prompts.{name}"] = prompt - step
        return adapted


def virtual_task(
    logit_scale: Tensor, features: tuple[Tensor, Tensor], label: Tensor, n: int, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """L on images of meta-test, each mixed with one of meta-train; one image alone with itself.

    Args:
        logit_scale: log(1 / tau), ().
        features: of images (B, E), the first n meta-train's, and of classes (C, E), of length 1.
        label: (B,).
        n: images of meta-train.
        shares: of meta-test and of meta-train in the mixture, (2,); their sum is 1.

    Returns:
        The loss, (), and logits of the mixtures (B - n, C).
    """
    image_features, text_features = features
    n_test = max(1, len(label) - n)
    partner = torch.arange(n_test, device=label.device) % n
    test, train = shares
    mixed = test * image_features[-n_test:] + train * image_features[partner]
    logits = cosine_logits(logit_scale, normalize(mixed), text_features)
    losses = [F.cross_entropy(logits, label[i]) for i in (slice(-n_test, None), partner)]
    return test * losses[0] + train * losses[1], logits
