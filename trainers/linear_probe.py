"""Linear probe: logistic regression on CLIP's frozen image features, the baseline of CoOp's paper.

CoOp (arXiv 2109.01134, section 4.1) follows CLIP's recipe: the strength of the L2 penalty is
searched on the few-shot validation set, over seven values first, then by halving the interval
around the best of them, on a logarithmic scale.

Shapes: N images, C classes, E embedding size.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import CheckpointError, DataError
from dassl.utils.errors import NonFiniteScoresError
from dassl.utils.files import listed
from dassl.utils.logger import get_logger
from dassl.utils.text import counted
from encoders.image import ImageEncoder
from trainers.clip_trainer import CLIPTrainer, frozen_clip, image_products

logger = get_logger(__name__)

# Upstream's lpclip/linear_probe.py: values of C, steps of the search, solver's iterations.
START_VALUES = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
SEARCH_STEPS = 8
MAX_ITER = 1000
VAL_SHOTS = 4  # at most so many validation images per class

Features = tuple[np.ndarray, np.ndarray]  # (N, E) float64, (N,) labels


class ProbeHead(nn.Linear):
    """Features (B, E) → logits (B, C); its checkpoint remembers the class names."""

    def __init__(self, vis_dim: int, classnames: list[str]) -> None:
        super().__init__(vis_dim, len(classnames))
        self.classnames = list(classnames)

    def get_extra_state(self) -> dict[str, list[str]]:
        return {"classnames": self.classnames}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """The names stay those of the classes at hand."""


@TRAINER_REGISTRY.register()
@frozen_clip(image_features=True)
class LinearProbe(CLIPTrainer):
    """Fits one linear layer, in a single "epoch"; images are seen as in testing."""

    def build_model(self) -> None:
        self.precision = self.inference_precision()
        visual = self.load_clip().to(self.device).visual
        self.image_encoder = ImageEncoder(visual, products=image_products(self.cfg))
        self.head = ProbeHead(visual.output_dim, self.dm.dataset.classnames)
        self.head.to(self.device)
        self.register_model("linear_probe", self.head)
        self.max_epoch = 1

    def frozen_encoder(self) -> ImageEncoder:
        return self.image_encoder

    def model_inference(self, input: Tensor) -> Tensor:
        return self.feature_inference(self.encode_images(input))

    def feature_inference(self, features: Tensor) -> Tensor:
        return self.head(features)  # not normalized, as upstream

    def run_epoch(self) -> None:
        """Searches the penalty and sets the head to the winner."""
        dataset = self.dm.dataset
        with self.stopping_at_once():
            train = self.features(dataset.train_x)
            val = self.features(validation_sample(dataset.val or [], self.cfg))
            coefficients, intercepts, c = search(train, val)
        logger.info(f"Regularization: C = {c:g}")
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(coefficients))
            self.head.bias.copy_(torch.from_numpy(intercepts))

    def features(self, items: list[Datum]) -> Features:
        """Encodes images without augmentation."""
        loader = build_data_loader(
            self.cfg,
            data_source=items,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(self.cfg, is_train=False),
            is_train=False,
        )
        batches = [
            (
                batch["features"] if "features" in batch else self.encode_images(batch["img"]),
                batch["label"],
            )
            for batch in self.image_features.stored(loader)
        ]
        features, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*batches))
        wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(wrong):
            raise NonFiniteScoresError(
                f"the features of {len(wrong):,} of {len(features):,} images are NaN or infinite: "
                f"CLIP's weights are damaged, or an image is. The first: {items[wrong[0]].impath}",
                int(wrong[0]),
            )
        return features.astype(np.float64), labels

    def load_weights(self, name: str, state_dict: dict[str, Any]) -> None:
        """Copies the rows of the classes at hand: data of fewer classes can be tested.

        Raises:
            CheckpointError: another method wrote the file, or it does not know all classes.
        """
        known = state_dict.get("_extra_state", {}).get("classnames")
        if known is None:
            raise CheckpointError(
                f"the checkpoint holds {', '.join(sorted(state_dict))}, no linear probe: another "
                "method wrote it. Set --trainer to that method."
            )
        rows = matching_rows(known, self.head.classnames)
        state = {key: state_dict[key][rows] for key in ("weight", "bias")}
        self.head.load_state_dict({**state, "_extra_state": None})


def matching_rows(known: list[str], wanted: list[str]) -> list[int]:
    """Returns the row of each wanted class; the k-th of several that share a name is the k-th.

    Raises:
        CheckpointError: a class was not trained on.
    """
    places: dict[str, list[int]] = {}
    for row, name in enumerate(known):
        places.setdefault(name, []).append(row)
    missing = [name for name in wanted if name not in places]
    if missing:
        raise CheckpointError(
            f"the linear probe was trained on {counted(len(known), 'class', 'classes')} without "
            f"{listed(missing)}: it can tell only the classes it was trained on"
        )
    seen: Counter[str] = Counter()
    rows = []
    for name in wanted:
        rows.append(places[name][min(seen[name], len(places[name]) - 1)])
        seen[name] += 1
    return rows


def validation_sample(items: list[Datum], cfg: CfgNode) -> list[Datum]:
    """Returns at most min(shots, 4) items per class, drawn with SEED where there are more.

    Raises:
        DataError: the data set has no validation images.
    """
    if not items:
        raise DataError(f"{cfg.DATASET.NAME} has no validation images to search the penalty on")
    shots = cfg.DATASET.NUM_SHOTS if cfg.DATASET.NUM_SHOTS >= 1 else VAL_SHOTS
    by_label: dict[int, list[Datum]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    rng = random.Random(cfg.SEED)
    drawn: list[Datum] = []
    for group in by_label.values():
        few = min(shots, VAL_SHOTS)
        drawn += group if len(group) <= few else rng.sample(group, few)
    return drawn


def search(train: Features, val: Features) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns coefficients (C, E), intercepts (C,) and the penalty's inverse strength.

    The interval starts at a tenth and ten times the best of START_VALUES; each step keeps the end
    that does better on `val` (the lower one in a tie) and moves the other halfway towards it.
    """

    def accuracy(c: float) -> tuple[float, Any]:
        model = fit(train, c)
        return float((model.predict(val[0]) == val[1]).mean()), model

    if len(np.unique(train[1])) < 2:
        raise DataError("a linear probe needs at least two classes to tell apart")
    scores = [accuracy(c)[0] for c in START_VALUES]
    shown = ", ".join(f"{c:g}: {s:.4f}" for c, s in zip(START_VALUES, scores))
    logger.info(f"Accuracy on the val set: {shown}")
    peak = np.log10(START_VALUES[int(np.argmax(scores))])
    left, right = peak - 1, peak + 1  # log10 of C
    for _ in range(SEARCH_STEPS):
        (score_left, model_left), (score_right, model_right) = (
            accuracy(10**left),
            accuracy(10**right),
        )
        middle = (left + right) / 2
        if score_left < score_right:
            best, model, left = right, model_right, middle
        else:
            best, model, right = left, model_left, middle
    return *_weights(model, len(np.unique(train[1]))), float(10**best)


def fit(train: Features, c: float) -> Any:
    """Returns scikit-learn's logistic regression with an L2 penalty of strength 1 / c."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties stop at MAX_ITER
        return LogisticRegression(solver="lbfgs", max_iter=MAX_ITER, C=c).fit(*train)


def _weights(model: Any, n_cls: int) -> tuple[np.ndarray, np.ndarray]:
    coefficients, intercepts = model.coef_, model.intercept_
    if n_cls == 2:  # scikit-learn keeps one row, of the second class
        half, offset = coefficients[0] / 2, intercepts[0] / 2
        coefficients, intercepts = np.stack([-half, half]), np.array([-offset, offset])
    return coefficients, intercepts
