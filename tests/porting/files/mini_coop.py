"""Learned words on a plain CLIP, with all that the trainers of this kind do to the engine."""

import os.path as osp

from torch import nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.engine.trainer import SummaryWriter
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.radam import RAdam
from dassl.utils import load_checkpoint
from dassl.utils.tools import mkdir_if_missing
from dassl.utils.torchtools import count_num_param
from trainers.imagenet_templates import IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT
from trainers.zsclip import CUSTOM_TEMPLATES

from .mini_parts import Prompts, TextTower, cosines, get_clip

TEMPLATES = IMAGENET_TEMPLATES_SELECT + IMAGENET_TEMPLATES
OPTIMIZERS = {"radam": RAdam}


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, model):
        super().__init__()
        self.prompt_learner = Prompts(cfg, classnames, model)
        self.image_encoder, self.text_encoder = model.visual, TextTower(model)
        self.logit_scale, self.dtype = model.logit_scale, model.dtype

    def forward(self, image):
        texts = self.text_encoder(self.prompt_learner(), self.prompt_learner.tokens)
        return cosines(self.image_encoder(image.type(self.dtype)), texts, self.logit_scale)


@TRAINER_REGISTRY.register()
class MiniCoOp(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.MINI.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        assert CUSTOM_TEMPLATES[cfg.DATASET.NAME].count("{}") == 1
        model = get_clip(cfg)
        assert cfg.INPUT.SIZE[0] == model.visual.input_resolution
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, model)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.scaler = GradScaler() if cfg.TRAINER.MINI.PREC == "amp" else None
        assert count_num_param(self.model.prompt_learner) == self.model.prompt_learner.ctx.numel()

    def before_train(self):
        mkdir_if_missing(osp.join(self.output_dir, "extra"))
        SummaryWriter(log_dir=osp.join(self.output_dir, "extra")).close()
        super().before_train()

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        if self.scaler:
            with autocast():
                output = self.model(image)
                loss = F.cross_entropy(output, label)
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            output = self.model(image)
            loss = F.cross_entropy(output, label)
            self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        for name in self.get_model_names():
            file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
            state = load_checkpoint(osp.join(directory, name, file))["state_dict"]
            for constant in ("token_prefix", "token_suffix"):
                state.pop(constant, None)
            self._models[name].load_state_dict(state, strict=False)
