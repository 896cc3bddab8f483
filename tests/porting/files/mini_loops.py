"""A trainer with loops of its own: epochs, evaluations, the model kept, two optimizers."""

import copy
import time

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter


@TRAINER_REGISTRY.register()
class MiniLoops(TrainerX):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.seen, self.mean = 0, None

    def build_data_loader(self):
        dm = DataManager(self.cfg)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.lab2cname, self.dm = dm.num_classes, dm.lab2cname, dm

    def build_model(self):
        size = 3 * self.cfg.INPUT.SIZE[0] * self.cfg.INPUT.SIZE[1]
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(size, 8)).to(self.device)
        self.head = nn.Linear(8, self.num_classes).to(self.device)
        for name in ("body", "head"):
            part = getattr(self, name)
            optim = build_optimizer(part, self.cfg.OPTIM)
            self.register_model(name, part, optim, build_lr_scheduler(optim, self.cfg.OPTIM))
        self.evaluator = build_evaluator(self.cfg, lab2cname=self.lab2cname)

    def before_epoch(self):
        self.seen = 0

    def run_epoch(self):
        self.set_model_mode("train")
        losses, batch_time, end = MetricMeter(), AverageMeter(), time.time()
        self.num_batches = len(self.train_loader_x)
        for batch_idx, batch in enumerate(self.train_loader_x):
            self.batch_idx = batch_idx
            losses.update(self.forward_backward(batch))
            batch_time.update(time.time() - end)
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(["head"]), step)
            if self._writer is not None:
                self._writer.add_scalar("train/seen", self.seen, step)
            end = time.time()

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model_inference(image), label)
        self.model_zero_grad(["body", "head"])
        self.model_backward(loss)
        self.model_update("head")
        self.model_update(["body"])
        self.seen += len(label)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr(["body", "head"])
        return {"loss": loss.item()}

    def after_epoch(self):
        weights = copy.deepcopy(self._models["head"].state_dict())
        old = self.mean or weights
        self.mean = {key: (old[key] + value) / 2 for key, value in weights.items()}
        if self.epoch + 1 == self.max_epoch:
            self._models["head"].load_state_dict(self.mean)
            result = self.test(split="val")
            self.save_model(self.epoch, self.output_dir, val_result=result)
            self.save_model(self.epoch, self.output_dir, model_name="model-best.pth.tar")

    @torch.no_grad()
    def test(self, split=None):
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" and self.val_loader else self.test_loader
        for batch in tqdm(loader):
            image, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(image), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        print(f"found {next(iter(results.values())):.2f} on {split}")
        return next(iter(results.values()))

    def model_inference(self, input):
        return self.head(self.body(input))
