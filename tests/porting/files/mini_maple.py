"""Prompts of the text tower, and a coupling that makes those of the image tower of them."""

import torch
from torch import nn
from torch.nn import functional as F
from trainers.mini_parts import Prompts, TextTower, cosines, get_clip
from trainers.mini_towers import MiniIVLP

from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer


class Coupled(Prompts):
    def __init__(self, cfg, classnames, model):
        super().__init__(cfg, classnames, model)
        width, to = self.ctx.shape[1], model.visual.class_embedding.shape[0]
        deep = cfg.TRAINER.MINI.DEPTH_TEXT - 1
        self.deep_text = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(self.n_ctx, width)) for _ in range(deep)
        )
        self.couplings = nn.ModuleList(nn.Linear(width, to) for _ in range(1 + deep))

    def forward(self):
        first, *others = self.couplings
        deep_image = [couple(text) for couple, text in zip(others, self.deep_text)]
        return super().forward(), first(self.ctx), self.deep_text, deep_image


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, model):
        super().__init__()
        self.prompt_learner = Coupled(cfg, classnames, model)
        self.image_encoder, self.text_encoder = model.visual, TextTower(model)
        self.logit_scale, self.dtype = model.logit_scale, model.dtype

    def forward(self, image, label=None):
        prompts, shared, deep_text, deep_image = self.prompt_learner()
        texts = self.text_encoder(prompts, self.prompt_learner.tokens, deep_text)
        images = self.image_encoder(image.type(self.dtype), shared, deep_image)
        output = cosines(images, texts, self.logit_scale)
        return F.cross_entropy(output, label) if self.prompt_learner.training else output


@TRAINER_REGISTRY.register()
class MiniMaPLe(MiniIVLP):
    def build_model(self):
        cfg = self.cfg
        model = get_clip(
            cfg,
            trainer="MaPLe",
            **{"vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0},
            maple_length=cfg.TRAINER.MINI.N_CTX,
        )
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, model)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_("VPT" in name)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("MultiModalPromptLearner", self.model, self.optim, self.sched)
        self.scaler = None
