"""ProMetaR: a step against the same with CLIP's own blocks on 77 positions and autograd alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import trainers
from dassl.config import get_cfg_default
from dassl.engine import config_problems
from dassl.utils import load_checkpoint
from dassl.utils.results import config_digest
from tests.fast_paths.test_captured_step import NAMES, build, make_batches
from tests.fast_paths.test_deep_prompts import plain_image, plain_text
from tests.golden_recipes import assert_close, golden_clip, make_cfg
from tests.runs import make_eurosat, run
from trainers.prometar import GradientModulation, ProMetaR, virtual_task

NODE = "TRAINER.PROMETAR"
SMALL = {f"{NODE}.PROMPT_DEPTH_VISION": 2, f"{NODE}.PROMPT_DEPTH_TEXT": 2}
LARGE = {f"{NODE}.ADAPT_LR": 0.05, f"{NODE}.LR_RATIO": 0.02}  # so that no term is too small to see


def trainer_of(batches: list, **options: Any) -> ProMetaR:
    return build(ProMetaR, batches, **SMALL, **LARGE, **options)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


class Plain:
    """The formulas at the head of trainers/prometar.py, on copies of what a trainer learns."""

    def __init__(self, trainer: ProMetaR) -> None:
        copies = {k: v.detach().clone() for k, v in trainer.learned.named_parameters()}
        self.theta = {k: v.requires_grad_() for k, v in copies.items()}
        state = trainer.model.modulation.state_dict()
        self.phi = {k: v.clone().requires_grad_() for k, v in state.items()}
        self.clip, self.model = golden_clip("vit_a"), trainer.model

    def features(self, theta: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        deep = ".transformer.resblocks.1.VPT_shallow"
        learner = self.model.prompt_learner
        prompts = [learner.sequence(c) for c in range(len(NAMES))]
        own = theta["text_encoder" + deep][None]
        w = unit(plain_text(self.clip, theta["prompt_learner.ctx"], prompts, own))
        vectors = theta["image_encoder.VPT"], theta["image_encoder" + deep][None]
        return unit(plain_image(self.clip.visual, image, *vectors)), w

    def modulated(self, name: str, prompt: Tensor, r: Tensor) -> Tensor:
        tower = "image" if "image" in name else "text"
        weights = [self.phi[f"{tower}.{layer}"] for layer in ("0.weight", "0.bias")]
        hidden = (torch.cat([prompt, r], dim=1) @ weights[0].t() + weights[1]).clamp(min=0)
        weights = [self.phi[f"{tower}.{layer}"] for layer in ("2.weight", "2.bias")]
        return r / (1 + torch.exp(-(hidden @ weights[0].t() + weights[1])))

    def loss(self, image: Tensor, label: Tensor, share: float, first_order: bool) -> Tensor:
        n = max(1, len(label) // 2)
        scale, theta = self.clip.logit_scale.exp(), self.theta
        f, w = self.features(theta, image[:n])
        with torch.no_grad():
            frozen = unit(self.clip.visual(image[:n]))
        task = -(scale * f @ w.t()).log_softmax(dim=1)[range(n), label[:n]].mean()
        text = (w - self.model.frozen_text_features).abs().mean()
        regularizer = 25 * text + 10 * (f - frozen).abs().mean()
        g, r = (
            dict(zip(theta, torch.autograd.grad(loss, list(theta.values()), create_graph=True)))
            for loss in (task, regularizer)
        )
        adapted = {}
        for k, prompt in theta.items():
            g_k, r_k, seen = (x.detach() if first_order else x for x in (g[k], r[k], prompt))
            adapted[k] = prompt - 0.05 * g_k - 0.02 * self.modulated(k, seen, r_k)
        f, w = self.features(adapted, image)
        losses = []
        for j, i in enumerate(range(n, len(label)) if len(label) > 1 else [0]):
            partner = j % n
            mixture = unit(share * f[i] + (1 - share) * f[partner])
            log_p = (scale * mixture @ w.t()).log_softmax(dim=0)
            losses.append(-share * log_p[label[i]] - (1 - share) * log_p[label[partner]])
        return torch.stack(losses).mean()


def draws(label: Tensor) -> tuple[list[int], float]:
    """The order of the images and the share that a step of a certain seed draws."""
    random.seed(3), torch.manual_seed(3)
    place = torch.randperm(len(NAMES)).tolist()
    order = sorted(range(len(label)), key=lambda i: place[label[i]])
    share = random.betavariate(0.5, 0.5)
    random.seed(3), torch.manual_seed(3)
    return order, share


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_step(size: int, first_order: bool):
    """The loss, and what reaches all prompts and both networks."""
    (batch,) = make_batches(size)
    trainer = trainer_of([batch], **{f"{NODE}.FAST_ADAPTATION": first_order})
    plain = Plain(trainer)
    order, share = draws(batch["label"])
    loss, _ = trainer.passes(trainer.model, *trainer.parse_batch_train(batch))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second gradient
        expected = plain.loss(batch["img"][order], batch["label"][order], share, first_order)
        expected.backward()
    assert_close(loss, expected, 2e-5, "loss")
    for name, prompt in trainer.learned.named_parameters():
        assert_close(prompt.grad, plain.theta[name].grad, 2e-4, name)
    for name, weight in trainer.model.modulation.named_parameters():
        assert_close(weight.grad, plain.phi[name].grad, 2e-4, name)


def test_the_second_order_is_seen():
    gradients = []
    for first_order in (False, True):
        (batch,) = make_batches(4)
        trainer = trainer_of([batch], **{f"{NODE}.FAST_ADAPTATION": first_order})
        draws(batch["label"])
        trainer.passes(trainer.model, *trainer.parse_batch_train(batch))
        gradients.append(trainer.model.prompt_learner.ctx.grad)
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert difference > 0.01


def test_the_prompts_themselves_stay_where_they_are_until_the_step():
    (batch,) = make_batches(4)
    trainer = trainer_of([batch])
    before = {k: v.detach().clone() for k, v in trainer.learned.named_parameters()}
    trainer.passes(trainer.model, *trainer.parse_batch_train(batch))
    for name, prompt in trainer.learned.named_parameters():
        assert prompt.is_leaf and torch.equal(prompt, before[name])


def test_both_optimizers_step_by_their_own_schedules():
    batches = make_batches(4, 4)
    options = {"OPTIM_VNET.LR": 0.1, "OPTIM_VNET.MAX_EPOCH": 3, "OPTIM_VNET.WARMUP_CONS_LR": 0.05}
    trainer = trainer_of(batches, **options)
    rates = lambda: [o.param_groups[0]["lr"] for o in trainer._optims.values()]  # noqa: E731
    before = [p.detach().clone() for m in trainer._models.values() for p in m.parameters()]
    assert rates() == [0.01, 0.05]
    trainer.num_batches = len(batches)
    for trainer.batch_idx, batch in enumerate(batches):
        trainer.forward_backward(batch)
    assert rates()[1] == pytest.approx(0.1), "after the warm-up"
    after = [p for m in trainer._models.values() for p in m.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after))


def test_the_modulation_takes_no_more_than_there_is():
    """Each number's share is between none and all of it."""
    prompts = {"image_encoder.VPT": torch.randn(3, 8), "prompt_learner.ctx": torch.randn(2, 16)}
    modulation = GradientModulation(prompts, dim_rate=4)
    assert {k: v[0].out_features for k, v in modulation.items()} == {"image": 2, "text": 4}
    for name, prompt in prompts.items():
        gradient = torch.randn_like(prompt)
        share = modulation(name, prompt, gradient) / gradient
        assert ((0 < share) & (share < 1)).all()


def test_a_virtual_task_of_meta_test_alone():
    features = unit(torch.randn(4, 8)), unit(torch.randn(5, 8))
    label, scale = torch.tensor([0, 1, 2, 3]), torch.tensor(2.0)
    loss, logits = virtual_task(scale, features, label, 2, torch.tensor([1.0, 0.0]))
    expected = scale.exp() * features[0][2:] @ features[1].t()
    assert_close(logits, expected, 1e-5)
    assert_close(loss, F.cross_entropy(expected, label[2:]), 1e-5)


# --- settings and whole runs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({f"{NODE}.ADAPT_LR": -1.0}, "ADAPT_LR is -1.0; expected 0 or more"),
        ({f"{NODE}.LR_RATIO": -1.0}, "LR_RATIO is -1.0; expected 0 or more"),
        ({f"{NODE}.MIXUP_BETA": 0.0}, "MIXUP_BETA is 0.0; expected more than 0"),
        ({f"{NODE}.DIM_RATE": 0}, "DIM_RATE is 0; expected 1 or more"),
        ({"OPTIM_VNET.NAME": "sgdm"}, "OPTIM_VNET.NAME is 'sgdm'; expected one of"),
        ({"OPTIM_VNET.LR": -0.1}, "OPTIM_VNET.LR is -0.1; expected 0 or more"),
        ({"OPTIM_VNET.WARMUP_TYPE": "slow"}, "OPTIM_VNET.WARMUP_TYPE is 'slow'"),
    ],
)
def test_settings(settings: dict[str, Any], message: str):
    cfg = make_cfg("vit_a", settings)
    cfg.defrost()
    cfg.TRAINER.NAME = "ProMetaR"
    assert any(message in problem for problem in config_problems(cfg)), config_problems(cfg)


def test_other_methods_runs_stay_the_same_runs():
    """The node OPTIM_VNET is part of their identity only if somebody changes it."""
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    cfg.TRAINER.NAME = "CoOp"
    before = config_digest(cfg)
    lacking = cfg.clone()
    del lacking["OPTIM_VNET"]
    assert config_digest(lacking) == before
    cfg.OPTIM_VNET.LR = 1.0
    assert config_digest(cfg) != before


@pytest.mark.slow
def test_resumed_prompts_and_network_are_those_of_one_go(tmp_path: Path):
    data = make_eurosat(tmp_path / "data")
    few = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "3")
    depths = [str(x) for pair in SMALL.items() for x in pair]
    folders = ("VLPromptLearner", "gradient_modulation")

    def train(**flags: Any) -> list[dict[str, Tensor]]:
        opts = (*few, *depths, "TRAIN.CHECKPOINT_FREQ", "1")
        run(data, tmp_path / "run", *opts, trainer="ProMetaR", **flags)
        paths = [tmp_path / "run" / folder / "model.pth.tar-3" for folder in folders]
        return [load_checkpoint(str(path))["state_dict"] for path in paths]

    whole = train()
    for folder in folders:
        for path in (tmp_path / "run" / folder).glob("model.pth.tar-[23]"):
            path.unlink()
    (tmp_path / "run/results.jsonl").unlink()
    for one_go, resumed in zip(whole, train(resume=str(tmp_path / "run"))):
        assert all(torch.equal(one_go[key], resumed[key]) for key in one_go)
