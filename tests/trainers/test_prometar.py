"""ProMetaR: a step against the same with CLIP's own blocks on 77 positions and autograd alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
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
from trainers.prometar import GradientModulation, ProMetaR

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
        return plain_image(self.clip.visual, image, *vectors), w

    def altered(self, image: Tensor, label: Tensor, constants: bool) -> dict[str, Tensor]:
        """G of each parameter, of the means over these images."""
        f, w = self.features(self.theta, image)
        f = unit(f)
        logits = self.clip.logit_scale.exp() * f @ w.t()
        task = -logits.log_softmax(dim=1)[range(len(label)), label].mean()
        with torch.no_grad():
            frozen = unit(self.clip.visual(image))
        text = (w - self.model.frozen_text_features).abs().mean()
        regularizer = 50 * text + 20 * (f - frozen).abs().mean()
        self.loss = (task + regularizer).item()
        g, r = (
            torch.autograd.grad(loss, list(self.theta.values()), create_graph=True)
            for loss in (task, regularizer)
        )
        found, places = {}, {"text": 0, "vision": 0}
        for name, *pair in zip(self.theta, g, r):
            g_k, r_k = (x.detach() if constants else x for x in pair)
            tower = "vision" if name.startswith("image") else "text"
            network = f"linear_{tower}_gamma.{places[tower]}"
            places[tower] += 1
            x = torch.cat([g_k.reshape(-1), r_k.reshape(-1)])
            each = self.phi[f"{network}.1.weight"] @ (self.phi[f"{network}.0.weight"] @ x)
            gamma = 1 / (1 + torch.exp(-each))
            repeated = torch.stack([gamma[i // 8] for i in range(r_k.numel())])
            found[name] = g_k + repeated.view(r_k.shape) * r_k
        return found

    def meta_loss(self, image: Tensor, label: Tensor, task: Tensor, constants: bool) -> Tensor:
        test = [i for i in range(len(label)) if task[3, i] > 0]
        train = [i for i in range(len(label)) if task[3, i] == 0]
        altered = self.altered(image[train], label[train], constants)
        f, w = self.features({k: v - 0.05 * altered[k] for k, v in self.theta.items()}, image)
        losses = []
        for i in test:
            j, share = int(task[1, i]), task[4, i]
            assert j in train
            mixture = unit(share * f[i] + (1 - share) * f[j])
            log_p = (self.clip.logit_scale.exp() * mixture @ w.t()).log_softmax(dim=0)
            losses.append(-share * log_p[label[i]] - (1 - share) * log_p[label[j]])
        return torch.stack(losses).mean()


def batch_of(*labels: int) -> dict:
    (batch,) = make_batches(len(labels))
    return {**batch, "label": torch.tensor(labels)}


def seeded_task(trainer: ProMetaR, batch: dict) -> Tensor:
    torch.manual_seed(3)
    return trainer.draw_task(batch["label"])


def test_the_gradient_alteration_of_a_whole_batch():
    """The first step: G, and the loss that the log shows."""
    batch = batch_of(0, 1, 1, 2)
    trainer = trainer_of([batch])
    plain = Plain(trainer)
    loss, _ = trainer.passes(trainer.model, *trainer.parse_batch_train(batch))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second gradient
        expected = plain.altered(batch["img"], batch["label"], constants=True)
    assert loss.item() == pytest.approx(plain.loss, rel=2e-5)
    for name, prompt in trainer.learned.named_parameters():
        assert_close(prompt.grad, expected[name], 2e-4, name)
    assert all(weight.grad is None for weight in trainer.model.modulation.parameters())


@pytest.mark.parametrize("everything", [False, True], ids=["what is needed", "all, as on a GPU"])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("labels", [(0, 1), (2, 0, 2), (0, 1, 1, 3, 2, 1)])
def test_a_meta_step(monkeypatch, labels: tuple, first_order: bool, everything: bool):
    """The loss, and what reaches all prompts and networks."""
    batch = batch_of(*labels)
    trainer = trainer_of([batch], **{f"{NODE}.FAST_ADAPTATION": first_order})
    plain, task = Plain(trainer), seeded_task(trainer, batch)
    if everything:
        monkeypatch.setattr(trainer, "encodes_all", lambda: True)
    loss, _ = trainer.meta_passes(batch["img"], task)
    with sdpa_kernel(SDPBackend.MATH):
        expected = plain.meta_loss(batch["img"], batch["label"], task, first_order)
        (0.02 * expected).backward()
    assert_close(loss, expected, 2e-5, "loss")
    for name, prompt in trainer.learned.named_parameters():
        assert_close(prompt.grad, plain.theta[name].grad, 2e-4, name)
    for name, weight in trainer.model.modulation.named_parameters():
        assert_close(weight.grad, plain.phi[name].grad, 5e-4, name)


def test_tasks():
    trainer = trainer_of([batch_of(0, 1)])
    label = torch.tensor([3, 0, 3, 1, 1, 3])
    seen = set()
    for _ in range(50):
        task = trainer.draw_task(label)
        test = task[3] > 0
        (cls,) = set(label[test].tolist())
        assert torch.equal(test, label == cls), "meta-test is all of a class"
        assert torch.equal(task[2] > 0, ~test)
        assert_close(task[2:4].sum(dim=1), torch.ones(2), 1e-6)
        assert not test[task[1, test].long()].any(), "partners are of meta-train"
        assert ((task[4, test] >= 0) & (task[4, test] <= 1)).all()
        seen.add(cls)
    assert seen == {0, 1, 3}
    assert trainer.draw_task(torch.tensor([2, 2])) is None


def test_a_batch_of_one_class_has_the_first_step_alone():
    batch = batch_of(1, 1, 1)
    trainer = trainer_of([batch])
    phi = [p.detach().clone() for p in trainer.model.modulation.parameters()]
    theta = [p.detach().clone() for p in trainer.learned.parameters()]
    trainer.num_batches, trainer.batch_idx = 2, 0
    trainer.forward_backward(batch)
    assert all(map(torch.equal, phi, trainer.model.modulation.parameters()))
    assert not any(map(torch.equal, theta, trainer.learned.parameters()))


def test_the_second_order_is_seen():
    gradients = []
    for first_order in (False, True):
        batch = batch_of(0, 1, 2, 3)
        trainer = trainer_of([batch], **{f"{NODE}.FAST_ADAPTATION": first_order})
        trainer.meta_passes(batch["img"], seeded_task(trainer, batch))
        gradients.append(trainer.model.prompt_learner.ctx.grad)
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert difference > 0.01


def test_the_prompts_themselves_stay_where_they_are_until_the_step():
    batch = batch_of(0, 1, 2, 3)
    trainer = trainer_of([batch])
    before = {k: v.detach().clone() for k, v in trainer.learned.named_parameters()}
    trainer.meta_passes(batch["img"], seeded_task(trainer, batch))
    for name, prompt in trainer.learned.named_parameters():
        assert prompt.is_leaf and torch.equal(prompt, before[name])


def test_both_optimizers_step_by_their_own_schedules():
    batches = [batch_of(0, 1, 2, 3), batch_of(0, 1, 1, 3)]
    options = {"OPTIM_VNET.LR": 1e5, "OPTIM_VNET.MAX_EPOCH": 3, "OPTIM_VNET.WARMUP_CONS_LR": 5e4}
    trainer = trainer_of(batches, **options)
    rates = lambda: [o.param_groups[0]["lr"] for o in trainer._optims.values()]  # noqa: E731
    before = [p.detach().clone() for m in trainer._models.values() for p in m.parameters()]
    assert rates() == [0.01, 5e4]
    trainer.num_batches = len(batches)
    for trainer.batch_idx, batch in enumerate(batches):
        trainer.forward_backward(batch)
    assert rates()[1] == pytest.approx(1e5), "after the warm-up"
    after = [p for m in trainer._models.values() for p in m.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("dim_rate", [1, 3, 4, 1000])
def test_the_modulation_takes_no_more_than_there_is(dim_rate):
    """Each number's share is between none and all of it; an output counts for `dim_rate`."""
    prompts = {"image_encoder.VPT": torch.randn(3, 8), "prompt_learner.ctx": torch.randn(2, 16)}
    modulation = GradientModulation(prompts, dim_rate)
    assert len(modulation.linear_vision_gamma) == len(modulation.linear_text_gamma) == 1
    for name, prompt in prompts.items():
        g, r = torch.randn(2, *prompt.shape)
        gamma = ((modulation(name, g, r) - g) / r).flatten()
        assert ((0 < gamma) & (gamma < 1)).all()
        for same in gamma.split(dim_rate):
            assert_close(same, same[:1].expand_as(same), 1e-4)


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
