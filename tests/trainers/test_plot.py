"""PLOT's transport and logits: plain loops in float64, a linear program, CLIP's own modules."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.nn import functional as F

from tests.fast_paths.test_deep_prompts import plain_text
from tests.fast_paths.test_image_encoder import plain_local
from tests.golden_recipes import (
    assert_close,
    golden_clip,
    image_size,
    images,
    make_cfg,
    weights_file,
)
from tests.runs import make_eurosat, run
from trainers import plot
from trainers.plot import sinkhorn

NAMES = ["cat", "snow_leopard", "hand-held computer"]
SIZES = [(1, 1), (1, 4), (5, 1), (4, 3), (49, 4)]


def costs(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float64)


def plain_sinkhorn(cost: np.ndarray, eps: float, max_iter: int, threshold: float) -> np.ndarray:
    """One plan (M, N), number by number."""
    m, n = cost.shape
    kernel = [[math.exp(-x / eps) for x in row] for row in cost.tolist()]
    r, c = [1.0] * m, [1.0] * n
    for _ in range(max_iter):
        new_r = [1 / m / sum(kernel[i][j] * c[j] for j in range(n)) for i in range(m)]
        change = sum(abs(a - b) for a, b in zip(new_r, r)) / m
        r = new_r
        c = [1 / n / sum(kernel[i][j] * r[i] for i in range(m)) for j in range(n)]
        if change < threshold:
            break
    return np.array([[r[i] * kernel[i][j] * c[j] for j in range(n)] for i in range(m)])


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("max_iter", [1, 3, 100])
def test_the_plan_of_a_plain_loop(m: int, n: int, max_iter: int):
    """Several at once, each of which stops for itself, and alone."""
    cost = costs(3, 2, m, n)
    plans = sinkhorn(cost, 0.1, max_iter, 0.01)
    for i in range(3):
        for j in range(2):
            expected = plain_sinkhorn(cost[i, j].numpy(), 0.1, max_iter, 0.01)
            assert_close(plans[i, j], expected, 1e-12)
            assert_close(sinkhorn(cost[i, j], 0.1, max_iter, 0.01), expected, 1e-12)
    assert_close(plans.sum(dim=-2), np.full((3, 2, n), 1 / n), 1e-12)


def test_float32_at_the_least_eps():
    cost = torch.tensor([[0.0, 2.0, 2.0], [2.0, 2.0, 0.0]])
    plan = sinkhorn(cost, plot.LEAST_EPS, 100, 0.0)
    assert_close(plan, sinkhorn(cost.double(), plot.LEAST_EPS, 100, 0.0), 1e-4)


@pytest.mark.parametrize(("m", "n"), SIZES[:4])
def test_the_best_transport_where_entropy_hardly_counts(m: int, n: int):
    """Its price is at most eps log(M N), as far as entropies can differ, above the optimum."""
    cases, eps = costs(4, m, n), 0.004
    for cost, plan in zip(cases, sinkhorn(cases, eps, 5_000, 0.0)):
        sums = np.zeros((m + n, m * n))
        for i in range(m):
            for j in range(n):
                sums[i, i * n + j] = sums[m + j, i * n + j] = 1
        target = [1 / m] * m + [1 / n] * n
        best = linprog(cost.numpy().ravel(), A_eq=sums, b_eq=target, bounds=(0, None)).fun
        price = float((plan * cost).sum())
        assert_close(plan.sum(dim=1), np.full(m, 1 / m), 1e-3)
        assert best - 1e-3 <= price <= best + eps * math.log(m * n) + 1e-9


@pytest.mark.parametrize("name", ["vit_a", "rn_a"])
def test_logits_and_gradient(name: str):
    options = {"TRAINER.PLOT.N": 3, "TRAINER.PLOT.N_CTX": 2}
    torch.manual_seed(0)
    clip_model = golden_clip(name)
    model = plot.CustomCLIP(make_cfg(name, options), NAMES, clip_model)
    learner, image, label = (
        model.prompt_learner,
        images(2, image_size(name), 5),
        torch.tensor([1, 0]),
    )
    prompts = [learner.sequence(c) for c in range(len(NAMES))]
    g = torch.stack([plain_text(clip_model, ctx, prompts, None) for ctx in learner.ctx])  # N, C, E
    g, f = F.normalize(g, dim=-1), F.normalize(plain_local(clip_model.visual, image), dim=-1)
    logits = torch.zeros(2, len(NAMES))
    for b in range(2):
        for c in range(len(NAMES)):
            similarity = f[b].detach() @ g[:, c].t()  # (M, N)
            cost = 1 - similarity.detach().double().numpy()
            plan = torch.from_numpy(plain_sinkhorn(cost, 0.1, 100, 0.01)).float()
            logits[b, c] = model.logit_scale.exp() * (plan * similarity).sum()
    own = model(image)
    assert_close(own, logits, 2e-5, "logits")
    (gradient,) = torch.autograd.grad(F.cross_entropy(own, label), learner.ctx)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, label), learner.ctx)
    assert_close(gradient, expected, 1e-4, "gradient")


def test_on_a_resnet_from_training_to_new_classes(tmp_path: Path):
    data, size = make_eurosat(tmp_path / "data"), image_size("rn_a")
    few = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "5", "OPTIM.MAX_EPOCH", "2")
    opts = (
        *few,
        "MODEL.BACKBONE.PATH",
        str(weights_file("rn_a")),
        "INPUT.SIZE",
        f"({size}, {size})",
    )
    opts = (*opts, "TRAINER.PLOT.N_CTX", "2", "TRAINER.PLOT.N", "3")
    base = tmp_path / "base"
    run(data, base, *opts, trainer="PLOT")
    flags = {"eval_only": True, "model_dir": str(base), "load_epoch": 2}
    flags["subsample_classes"] = "new"
    assert run(data, tmp_path / "new", *opts, trainer="PLOT", **flags) is not None
