"""A homework: CoCoOp on CLIP, typed into a notebook beside the code base of a paper.

Its cells, in our words, make the calls that such notebooks make, and read ProMetaR's configs. What
is the embedded default's: the data set, the backbone and the config's name.
"""

# %% what the notebook works with
import argparse
import datetime
import math
import os.path as osp
import time
from collections import OrderedDict

import torch
import torch.nn as nn
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F
from tqdm import tqdm
from yacs.config import CfgNode as CN

import datasets.caltech101
import datasets.digits
import datasets.dtd
import datasets.eurosat
import datasets.fgvc_aircraft
import datasets.food101
import datasets.imagenet
import datasets.imagenet_a
import datasets.imagenet_r
import datasets.imagenet_sketch
import datasets.imagenetv2
import datasets.oxford_flowers
import datasets.oxford_pets
import datasets.stanford_cars
import datasets.sun397
import datasets.ucf101  # noqa: F401
from clip import clip
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    collect_env_info,
    load_checkpoint,
    load_pretrained_weights,
    set_random_seed,
    setup_logger,
)

_tokenizer = _Tokenizer()


# %% the configuration
def print_args(args, cfg):
    print("***************\n** Arguments **\n***************")
    for key in sorted(vars(args)):
        print(f"{key}: {vars(args)[key]}")
    print("************\n** Config **\n************")
    print(cfg)


def reset_cfg(cfg, args):
    if args.root:
        cfg.DATASET.ROOT = args.root
    if args.output_dir:
        cfg.OUTPUT_DIR = args.output_dir
    if args.seed:
        cfg.SEED = args.seed
    if args.resume:
        cfg.RESUME = args.resume
    if args.source_domains:
        cfg.DATASET.SOURCE_DOMAINS = args.source_domains
    if args.target_domains:
        cfg.DATASET.TARGET_DOMAINS = args.target_domains
    if args.transforms:
        cfg.INPUT.TRANSFORMS = args.transforms
    if args.trainer:
        cfg.TRAINER.NAME = args.trainer
    if args.backbone:
        cfg.MODEL.BACKBONE.NAME = args.backbone
    if args.head:
        cfg.MODEL.HEAD.NAME = args.head
    cfg.DATASET.NUM_SHOTS = 16
    cfg.DATASET.SUBSAMPLE_CLASSES = args.subsample_classes
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = args.train_batch_size
    cfg.OPTIM.MAX_EPOCH = args.epoch


def extend_cfg(cfg):
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 16
    cfg.TRAINER.COOP.CSC = False
    cfg.TRAINER.COOP.CTX_INIT = ""
    cfg.TRAINER.COOP.PREC = "fp16"
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"

    cfg.TRAINER.COCOOP = CN()
    cfg.TRAINER.COCOOP.N_CTX = 4
    cfg.TRAINER.COCOOP.CTX_INIT = "a photo of a"
    cfg.TRAINER.COCOOP.PREC = "fp16"

    cfg.TRAINER.PROMETAR = CN()
    cfg.TRAINER.PROMETAR.N_CTX_VISION = 4
    cfg.TRAINER.PROMETAR.N_CTX_TEXT = 4
    cfg.TRAINER.PROMETAR.CTX_INIT = "a photo of a"
    cfg.TRAINER.PROMETAR.PREC = "fp16"
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_VISION = 9
    cfg.TRAINER.PROMETAR.PROMPT_DEPTH_TEXT = 9
    cfg.TRAINER.PROMETAR.ADAPT_LR = 0.0005
    cfg.TRAINER.PROMETAR.LR_RATIO = 0.0005
    cfg.TRAINER.PROMETAR.FAST_ADAPTATION = False
    cfg.TRAINER.PROMETAR.MIXUP_ALPHA = 0.5
    cfg.TRAINER.PROMETAR.MIXUP_BETA = 0.5
    cfg.TRAINER.PROMETAR.DIM_RATE = 8

    cfg.OPTIM_VNET = CN()
    cfg.OPTIM_VNET.NAME = "sgd"
    cfg.OPTIM_VNET.LR = 0.0003
    cfg.OPTIM_VNET.WEIGHT_DECAY = 5e-4
    cfg.OPTIM_VNET.MOMENTUM = 0.9
    cfg.OPTIM_VNET.MAX_EPOCH = 10
    cfg.OPTIM_VNET.LR_SCHEDULER = "single_step"
    cfg.OPTIM_VNET.WARMUP_EPOCH = -1
    cfg.OPTIM_VNET.WARMUP_TYPE = "linear"
    cfg.OPTIM_VNET.WARMUP_CONS_LR = 1e-5

    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.DATALOADER.NUM_WORKERS = 8
    cfg.OPTIM.NEW_LR = False


def setup_cfg(args):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    if args.dataset_config_file:
        cfg.merge_from_file(args.dataset_config_file)
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    reset_cfg(cfg, args)
    if args.opts:
        cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


# %% CLIP
def load_clip_to_cpu(cfg):
    url = clip._MODELS[cfg.MODEL.BACKBONE.NAME]
    model_path = clip._download(url)
    try:
        archive = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    design_details = {
        "trainer": cfg.TRAINER.NAME or "CoOp",
        "vision_depth": 0,
        "language_depth": 0,
        "vision_ctx": 0,
        "language_ctx": 0,
    }
    return clip.build_model(state_dict or archive.state_dict(), design_details)


# %% a first look at it
cfg = get_cfg_default()
cfg.MODEL.BACKBONE.NAME = "tiny"
clip_model = load_clip_to_cpu(cfg)
print(clip_model.visual.input_resolution, clip_model.ln_final.weight.shape, clip_model.dtype)
with torch.no_grad():
    tokens = clip.tokenize(["a photo of a cat.", "a photo of a dog."])
    print("tokens", tokens.shape, "features", clip_model.float().encode_text(tokens).shape)


# %% the text encoder
class TextEncoder(nn.Module):
    def __init__(self, clip_model):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts, tokenized_prompts):
        hidden = prompts + self.positional_embedding.type(self.dtype)
        hidden = self.transformer(hidden.permute(1, 0, 2)).permute(1, 0, 2)
        hidden = self.ln_final(hidden).type(self.dtype)
        ends = tokenized_prompts.argmax(dim=-1)
        return hidden[torch.arange(hidden.shape[0]), ends] @ self.text_projection


# %% CoOp's prompt learner, which the notebook shows
class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        settings, dtype = self.settings(cfg), clip_model.dtype
        ctx_dim = clip_model.ln_final.weight.shape[0]
        assert cfg.INPUT.SIZE[0] == clip_model.visual.input_resolution
        if settings.CTX_INIT:
            words = settings.CTX_INIT.replace("_", " ")
            n_ctx = len(words.split(" "))
            with torch.no_grad():
                embedding = clip_model.token_embedding(clip.tokenize(words)).type(dtype)
            ctx_vectors = embedding[0, 1 : 1 + n_ctx, :]
        else:
            n_ctx = settings.N_CTX
            words = " ".join(["X"] * n_ctx)
            ctx_vectors = torch.empty(n_ctx, ctx_dim, dtype=dtype)
            nn.init.normal_(ctx_vectors, std=0.02)
        print(f'Initial context: "{words}"')
        print(f"Number of context words (tokens): {n_ctx}")
        self.ctx = nn.Parameter(ctx_vectors)

        classnames = [name.replace("_", " ") for name in classnames]
        self.name_lens = [len(_tokenizer.encode(name)) for name in classnames]
        prompts = [f"{words} {name}." for name in classnames]
        self.tokenized_prompts = torch.cat([clip.tokenize(prompt) for prompt in prompts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :, :])
        self.n_cls, self.n_ctx = len(classnames), n_ctx

    def settings(self, cfg):
        return cfg.TRAINER.COOP

    def construct_prompts(self, ctx):
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)

    def forward(self):
        return self.construct_prompts(self.ctx.unsqueeze(0).expand(self.n_cls, -1, -1))


class CoOpCustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.cfg = cfg
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image):
        image_features = self.image_encoder(image.type(self.dtype))
        text_features = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image_features @ text_features.t()


# %% the exercise: CoCoOp's, with the Meta-Net
class CoCoOpPromptLearner(PromptLearner):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__(cfg, classnames, clip_model)
        vis_dim, ctx_dim = clip_model.visual.output_dim, self.ctx.shape[-1]
        self.meta_net = nn.Sequential(
            OrderedDict(
                [
                    ("linear1", nn.Linear(vis_dim, vis_dim // 16)),
                    ("relu", nn.ReLU(inplace=True)),
                    ("linear2", nn.Linear(vis_dim // 16, ctx_dim)),
                ]
            )
        )
        if cfg.TRAINER.COCOOP.PREC == "fp16":
            self.meta_net.half()

    def settings(self, cfg):
        return cfg.TRAINER.COCOOP

    def forward(self, im_features):
        bias = self.meta_net(im_features).unsqueeze(1)  # (B, 1, D)
        shifted = self.ctx.unsqueeze(0) + bias  # (B, M, D)
        return torch.stack(
            [self.construct_prompts(ctx.unsqueeze(0).expand(self.n_cls, -1, -1)) for ctx in shifted]
        )


class CoCoOpCustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = CoCoOpPromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image, label=None):
        image_features = self.image_encoder(image.type(self.dtype))
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        logits = []
        for prompts_of_one, feature in zip(self.prompt_learner(image_features), image_features):
            text_features = self.text_encoder(prompts_of_one, self.tokenized_prompts)
            text_features = text_features / text_features.norm(dim=-1, keepdim=True)
            logits.append(self.logit_scale.exp() * feature @ text_features.t())
        logits = torch.stack(logits)
        return F.cross_entropy(logits, label) if self.prompt_learner.training else logits


# %% the trainers
@TRAINER_REGISTRY.register(force=True)
class CoCoOp(TrainerX):
    custom_clip = CoCoOpCustomCLIP

    def precision(self):
        return self.cfg.TRAINER.COCOOP.PREC

    def check_cfg(self, cfg):
        assert cfg.TRAINER.COCOOP.PREC in ["fp16", "fp32", "amp"]

    def before_train(self):
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        self.start_epoch = self.resume_model_if_exist(directory)
        self.time_start = time.time()

    def after_train(self):
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = round(time.time() - self.time_start)
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")

    def train(self):
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def build_model(self):
        cfg, classnames = self.cfg, self.dm.dataset.classnames
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        clip_model = load_clip_to_cpu(cfg)
        if self.precision() in ("fp32", "amp"):
            clip_model.float()
        print("Building custom CLIP")
        self.model = self.custom_clip(cfg, classnames, clip_model)
        print("Turning off gradients in both the image and the text encoder")
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        enabled = {name for name, param in self.model.named_parameters() if param.requires_grad}
        print(f"Parameters to be updated: {enabled}")
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.scaler = GradScaler() if self.precision() == "amp" else None
        if torch.cuda.device_count() > 1:
            self.model = nn.DataParallel(self.model)

    def loss(self, image, label):
        return self.model(image, label)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        if self.precision() == "amp":
            with autocast():
                loss = self.loss(image, label)
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            loss = self.loss(image, label)
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = osp.join(directory, name, file)
            if not osp.exists(path):
                raise FileNotFoundError(f"no model at {path}")
            checkpoint = load_checkpoint(path)
            state_dict = checkpoint["state_dict"]
            for fixed in ("token_prefix", "token_suffix"):
                if fixed in state_dict:
                    del state_dict[fixed]
            print(f"Loading weights to {name} from {path} (epoch = {checkpoint['epoch']})")
            self._models[name].load_state_dict(state_dict, strict=False)


@TRAINER_REGISTRY.register(force=True)
class CoOp(CoCoOp):
    custom_clip = CoOpCustomCLIP

    def precision(self):
        return self.cfg.TRAINER.COOP.PREC

    def loss(self, image, label):
        output = self.model(image)
        self.accuracy = compute_accuracy(output, label)[0].item()
        return F.cross_entropy(output, label)


# %% train, or test
def main(args):
    cfg = setup_cfg(args)
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    print_args(args, cfg)
    print(collect_env_info())
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        return trainer.test()
    if not args.no_train:
        trainer.train()
    return None


# %% the arguments
parser = argparse.ArgumentParser()
parser.add_argument("--root", type=str, default="data/")
parser.add_argument("--output-dir", type=str, default="outputs/cocoop")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--resume", type=str, default="")
parser.add_argument("--source-domains", type=str, nargs="+")
parser.add_argument("--target-domains", type=str, nargs="+")
parser.add_argument("--transforms", type=str, nargs="+")
parser.add_argument("--backbone", type=str, default="")
parser.add_argument("--head", type=str, default="")
parser.add_argument("--config-file", type=str, default="configs/trainers/ProMetaR/tiny.yaml")
parser.add_argument("--dataset-config-file", type=str, default="configs/datasets/digits.yaml")
parser.add_argument("--trainer", type=str, default="CoCoOp")
parser.add_argument("--eval-only", action="store_true")
parser.add_argument("--model-dir", type=str, default="")
parser.add_argument("--load-epoch", type=int)
parser.add_argument("--no-train", action="store_true")
parser.add_argument("--train-batch-size", type=int, default=4)
parser.add_argument("--epoch", type=int, default=2)
parser.add_argument("--subsample-classes", type=str, default="base")
parser.add_argument("opts", default=None, nargs=argparse.REMAINDER)

# %% the paper's own file fits too
public_config = "configs/trainers/ProMetaR/vit_b16_c2_ep10_batch4_4+4ctx.yaml"
print(setup_cfg(parser.parse_args(["--config-file", public_config])).OPTIM)

# %% CoOp on the base classes
args = parser.parse_args(["--trainer", "CoOp", "--output-dir", "outputs/coop"])
main(args)

# %% CoOp on the new classes
args.model_dir, args.output_dir = "outputs/coop", "outputs/coop/new_classes"
args.subsample_classes, args.load_epoch, args.eval_only = "new", 2, True
coop_new = main(args)

# %% CoCoOp on the base classes
args = parser.parse_args(["TRAINER.COCOOP.PREC", "fp32"])
main(args)

# %% CoCoOp on the new classes
args.model_dir, args.output_dir = "outputs/cocoop", "outputs/cocoop/new_classes"
args.subsample_classes, args.load_epoch, args.eval_only = "new", 2, True
cocoop_new = main(args)
assert math.isfinite(coop_new) and math.isfinite(cocoop_new)
print(f"new classes: CoOp {coop_new:.1f}%, CoCoOp {cocoop_new:.1f}%")

# %% the images that were wrong
trainer = build_trainer(setup_cfg(args))
trainer.load_model("outputs/cocoop", epoch=2)
trainer.set_model_mode("eval")
names, wrong = trainer.dm.dataset.classnames, []
for batch in tqdm(trainer.test_loader):
    image, label = trainer.parse_batch_test(batch)
    with torch.no_grad():
        found = trainer.model_inference(image).argmax(dim=1)
    for path, one, other in zip(batch["impath"], label.tolist(), found.tolist()):
        if one != other:
            wrong.append((path, names[one], trainer.lab2cname[other]))
assert all(osp.exists(path) for path, _, _ in wrong)
print(f"wrong images: {len(wrong)}")
