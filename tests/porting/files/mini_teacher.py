"""A trainer with parts of its own: loader, wrapper, evaluator, a teacher that follows slowly."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from dassl.data.data_manager import DatasetWrapper, build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.trainer import TrainerX, build_lr_scheduler, build_optimizer, count_num_param
from dassl.evaluation import EVALUATOR_REGISTRY, Classification
from dassl.modeling.ops.utils import ema_model_update
from dassl.utils import read_image, set_random_seed


class TwoViews(DatasetWrapper):
    def __getitem__(self, index):
        again = super().__getitem__(index)["img"]
        return {**super().__getitem__(index), "img2": again}


@EVALUATOR_REGISTRY.register()
class MiniEvaluator(Classification):
    def evaluate(self):
        results = super().evaluate()
        results["wrong"] = self._total - self._correct
        assert self._correct == sum(a == b for a, b in zip(self._y_true, self._y_pred))
        return results


@TRAINER_REGISTRY.register()
class MiniTeacher(TrainerX):
    def build_data_loader(self):
        super().build_data_loader()
        cfg, dataset = self.cfg, self.dm.dataset
        groups = dataset.split_dataset_by_label(dataset.train_x)
        self.train_loader_x = build_data_loader(
            cfg,
            sampler_type="RandomSampler",
            data_source=[items[0] for items in groups.values()],
            batch_size=2,
            tfm=build_transform(cfg, is_train=True),
            is_train=True,
            dataset_wrapper=TwoViews,
        )
        assert read_image(dataset.train_x[0].impath).mode == "RGB"

    def build_model(self):
        set_random_seed(self.cfg.SEED)
        size = 3 * self.cfg.INPUT.SIZE[0] * self.cfg.INPUT.SIZE[1]
        self.student = nn.Sequential(nn.Flatten(), nn.Linear(size, self.num_classes))
        self.student.to(self.device)
        assert count_num_param(self.student) == (size + 1) * self.num_classes
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        optim = build_optimizer(self.student, self.cfg.OPTIM)
        sched = build_lr_scheduler(optim, self.cfg.OPTIM)
        self.register_model("student", self.student, optim, sched)
        self.register_model("teacher", self.teacher)

    def parse_batch_train(self, batch):
        assert len(batch["impath"]) == len(batch["label"]) == len(batch["index"])
        return [batch[key].to(self.device) for key in ("img", "img2", "label")]

    def forward_backward(self, batch):
        image, again, label = self.parse_batch_train(batch)
        with torch.no_grad():
            taught = self.teacher(again).softmax(1)
        output = self.student(image)
        parts = {"hard": F.cross_entropy(output, label), "soft": F.cross_entropy(output, taught)}
        self.model_backward_and_update(sum(parts.values()), "student")
        ema_model_update(self.student, self.teacher, 0.9)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr("student")
        return {name: part.item() for name, part in parts.items()}

    def model_inference(self, image):
        return self.teacher(image)
