"""Twenty steps of the real trainers against coop_train.npz and cocoop_train.npz."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dassl.utils import set_random_seed
from tests.golden_recipes import (
    EXACT,
    FINAL,
    GRADIENT,
    TRAINING,
    assert_close,
    comparable,
    fed_by,
    image_size,
    images,
    load_npz,
    make_cfg,
    method_options,
    set_learned_values,
    sha256,
    training_batches,
)
from trainers.cocoop import CoCoOp
from trainers.coop import CoOp

CASES = [
    (trainer, file, name)
    for trainer, file in ((CoOp, "coop_train.npz"), (CoCoOp, "cocoop_train.npz"))
    for name in load_npz(file)[1]["cases"]
]


class Epochs:
    """A loader whose epochs go on where the last one ended."""

    def __init__(self, batches: list[dict[str, Any]], per_epoch: int) -> None:
        self.per_epoch = per_epoch
        self.batches = iter(batches)

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return itertools.islice(self.batches, self.per_epoch)


def build(trainer_class: type, case: dict, classnames: list[str], batches: list) -> Any:
    """Builds the trainer; it notes the rate, the summary and the first update of its steps."""
    loader = Epochs(batches, case.get("steps_per_epoch", case["steps"]))

    class Recorded(fed_by(trainer_class, classnames, loader)):
        def forward_backward(self, batch: dict) -> dict[str, float]:
            rate = self.get_current_lr()
            summary = super().forward_backward(batch)
            self.history.append({"lr": rate, **summary})
            if len(self.history) == 1:
                named = list(self.model.prompt_learner.named_parameters())
                self.grad_step1 = {k: p.grad.clone() for k, p in named}
                self.after_step1 = {k: p.detach().clone() for k, p in named}
            return summary

    options = {f"OPTIM.{key}": value for key, value in case["optim"].items()}
    options |= method_options(trainer_class.config_node, case)
    trainer = Recorded(make_cfg(case["model"], options))
    trainer.history = []
    set_learned_values(trainer.model.prompt_learner, case.get("ctx_seed"), case.get("meta_seed"))
    return trainer


def check_printed(lines: list[str], expected: list[str]) -> None:
    """Compares lines; what is printed as a set comes in any order."""

    def by_word(line: str) -> list[str]:
        return sorted(line.replace(",", "").replace("{", "").replace("}", "").split())

    lines = lines[: len(expected)]
    assert [*map(by_word, lines)] == [*map(by_word, expected)]


@pytest.mark.parametrize(("trainer_class", "file", "name"), CASES)
def test_twenty_steps(trainer_class, file, name, capsys):
    arrays, meta = load_npz(file)
    case = meta["cases"][name]
    classnames = meta["class_lists"][case["class_list"]]
    size = image_size(case["model"])
    stream = training_batches(len(classnames), size, case["batch_size"], case["batch_seed"])
    batches = list(itertools.islice(stream, case["steps"]))
    assert sha256(batches[0]["img"]) == case["batch0_sha256"]
    assert [b["label"].tolist() for b in batches] == case["labels"]

    trainer = build(trainer_class, case, classnames, batches)
    check_printed(comparable(capsys.readouterr().out), case["printed"])
    learner = trainer.model.prompt_learner
    for key, parameter in learner.named_parameters():
        np.testing.assert_array_equal(parameter.detach(), arrays[f"{name}/init/{key}"])
    for epoch in range(case["steps"] // len(trainer.train_loader_x)):
        trainer.epoch = epoch
        trainer.run_epoch()

    check_history(trainer.history, case, arrays, name)
    for key, parameter in learner.named_parameters():
        assert_close(trainer.grad_step1[key], arrays[f"{name}/grad_step1/{key}"], GRADIENT, key)
        assert_close(trainer.after_step1[key], arrays[f"{name}/after_step1/{key}"], TRAINING, key)
        assert_close(parameter, arrays[f"{name}/final/{key}"], TRAINING, key)
        if case["optim"]["NAME"] == "sgd":
            momentum = trainer.optim.state[parameter]["momentum_buffer"]
            assert_close(momentum, arrays[f"{name}/final_momentum/{key}"], FINAL, key)
    trainer.set_model_mode("eval")
    with torch.no_grad():
        logits = trainer.model_inference(images(3, size, 700))
    assert_close(logits, arrays[f"{name}/final_logits"], FINAL, "final logits")


def check_history(history: list[dict[str, float]], case: dict, arrays: dict, name: str) -> None:
    assert [key for key in history[0] if key != "lr"] == case["loss_summary_keys"]
    tolerances = {"lr": EXACT, "acc": EXACT, "loss": TRAINING}
    for key in history[0]:
        assert_close([h[key] for h in history], arrays[f"{name}/{key}"], tolerances[key], key)


def test_seeded_trainer_repeats_itself():
    """Two trainers of one seed start alike and stay alike, bit for bit."""
    meta = load_npz("cocoop_train.npz")[1]
    case = dict(next(c for c in meta["cases"].values() if not c["CTX_INIT"]))
    classnames = meta["class_lists"][case["class_list"]]
    size = image_size(case["model"])
    del case["ctx_seed"], case["meta_seed"]
    ends = []
    for _ in range(2):
        batches = list(itertools.islice(training_batches(len(classnames), size, 4, 1), 2))
        set_random_seed(5)
        trainer = build(CoCoOp, {**case, "steps": 2}, classnames, batches)
        trainer.run_epoch()
        ends.append(torch.cat([p.flatten() for p in trainer.model.prompt_learner.parameters()]))
    assert torch.equal(*ends)
