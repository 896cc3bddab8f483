"""A trainer that takes a GPU, the widths of ViT-B/16 and the papers' data sets for granted."""

import torch
from torch import nn
from torch.nn import functional as F
from trainers.mini_coop import MiniCoOp
from trainers.mini_parts import Prompts, TextTower, cosines, get_clip

from clip import clip
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler, build_optimizer

WORDS = {"ImageNet": "a photo of a {}.", "EuroSAT": "a satellite photo of {}."}


class Learned(Prompts):
    def __init__(self, cfg, classnames, model):
        super().__init__(cfg, classnames, model)
        self.couplings = nn.ModuleList(nn.Linear(512, 768) for _ in range(2))
        self.deep = nn.ParameterList([nn.Parameter(0.02 * torch.randn(self.n_ctx, 512))])
        frozen = get_clip(cfg).float().cuda()
        texts = [clip.tokenize(WORDS[cfg.DATASET.NAME].format(name)) for name in classnames]
        with torch.no_grad():
            self.by_hand = frozen.encode_text(torch.cat(texts).cuda())


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, model):
        super().__init__()
        self.prompt_learner = learned = Learned(cfg, classnames, model)
        self.image_encoder, self.text_encoder = model.visual, nn.DataParallel(TextTower(model))
        self.logit_scale, self.tokens = model.logit_scale, learned.tokens.to(torch.device("cuda"))

    def forward(self, image):
        learned = self.prompt_learner
        texts = self.text_encoder(learned(), self.tokens, learned.deep)
        first, deep = (
            couple(x) for couple, x in zip(learned.couplings, (learned.ctx, *learned.deep))
        )
        images = self.image_encoder(image, first, [deep])
        both = (
            cosines(images, texts, self.logit_scale) for texts in (texts, learned.by_hand.cuda())
        )
        return tuple(both)


@TRAINER_REGISTRY.register()
class MiniWide(MiniCoOp):
    def build_model(self):
        cfg, self.device = self.cfg, torch.device("cuda:0")
        assert set(self.dm.dataset.classnames) <= set(self.dm.dataset.all_class_names)
        model = get_clip(cfg, trainer="MiniWide", maple_length=cfg.TRAINER.MINI.N_CTX)
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, model).to(self.device)
        for name, param in self.model.named_parameters():
            param.requires_grad_("prompt_learner" in name)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output, by_hand = self.model(image)
        apart = F.kl_div(output.log_softmax(1), by_hand.softmax(1), reduction="batchmean")
        self.prograd_backward_and_update(F.cross_entropy(output, label), apart, 1.0)
        return {"apart": apart.item()}

    def model_inference(self, image):
        return self.model(image)[0]
