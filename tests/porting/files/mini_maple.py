"""Prompts of the text tower, and a coupling that makes those of the image tower of them."""

import torch
from torch import nn
from torch.nn import functional as F
from trainers.mini_parts import Prompts, TextTower, cosines, get_clip
from trainers.mini_towers import MiniIVLP

from dassl.engine import TRAINER_REGISTRY


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
    custom_clip, folder = CustomCLIP, "MultiModalPromptLearner"

    def towers(self):
        return get_clip(
            self.cfg,
            trainer="MaPLe",
            **{"vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0},
            maple_length=self.cfg.TRAINER.MINI.N_CTX,
        )
