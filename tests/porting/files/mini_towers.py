"""Prompts that the towers themselves hold: in both, or behind the image's patches alone."""

import torch
from mini_parts import Prompts, TextTower, cosines, get_clip
from torch import nn
from torch.nn import functional as F
from trainers.mini_coop import MiniCoOp

from clip import clip
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer


class InBoth(nn.Module):
    def __init__(self, cfg, classnames, model):
        super().__init__()
        self.prompt_learner = Prompts(cfg, classnames, model)
        self.image_encoder, self.text_encoder = model.visual, TextTower(model)
        self.logit_scale, self.dtype = model.logit_scale, model.dtype

    def texts(self):
        return self.text_encoder(self.prompt_learner(), self.prompt_learner.tokens)

    def forward(self, image, label=None):
        output = cosines(self.image_encoder(image.type(self.dtype)), self.texts(), self.logit_scale)
        return F.cross_entropy(output, label) if self.training and label is not None else output


class BehindPatches(InBoth):
    def __init__(self, cfg, classnames, model):
        super().__init__(cfg, classnames, model)
        del self.prompt_learner
        tokens = torch.cat([clip.tokenize(f"a photo of a {name}.") for name in classnames])
        with torch.no_grad():
            self.fixed = model.encode_text(tokens)

    def texts(self):
        return self.fixed.to(self.logit_scale.device)


@TRAINER_REGISTRY.register()
class MiniIVLP(MiniCoOp):
    design, custom_clip, folder = "IVLP", InBoth, "VLPromptLearner"

    def towers(self):
        mini, both = self.cfg.TRAINER.MINI, self.design == "IVLP"
        return get_clip(
            self.cfg,
            trainer=self.design,
            vision_depth=mini.DEPTH_VISION,
            language_depth=mini.DEPTH_TEXT if both else 0,
            vision_ctx=mini.N_CTX,
            language_ctx=mini.N_CTX if both else 0,
        )

    def build_model(self):
        cfg = self.cfg
        self.model = self.custom_clip(cfg, self.dm.dataset.classnames, self.towers())
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_("VPT" in name)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.folder, self.model, self.optim, self.sched)
        self.scaler = None

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        loss = self.model(image, label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def load_model(self, directory, epoch=None):
        for name in self.get_model_names():
            path = f"{directory}/{name}/model.pth.tar-{epoch}"
            state = torch.load(path, map_location="cpu")["state_dict"]
            for constant in ("token_prefix", "token_suffix"):
                state.pop(f"prompt_learner.{constant}", None)
            self._models[name].load_state_dict(state, strict=False)


@TRAINER_REGISTRY.register()
class MiniVPT(MiniIVLP):
    design, custom_clip = "VPT", BehindPatches
