"""Train → checkpoint → evaluate → record, through the entry point, on files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.utils import DataError, NonFiniteLossError, device, load_checkpoint
from tests.runs import arguments, log_lines, make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2")
COCOOP = {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_homework(data: Path, tmp_path: Path):
    """Train CoCoOp on the base classes with batch 4, then evaluate the new ones."""
    train_run, new = tmp_path / "base", tmp_path / "new"
    accuracy = run(data, train_run, *FEW, train_batch_size=4, epoch=2, **COCOOP)
    flags = {"eval_only": True, "model_dir": str(train_run), "load_epoch": 2}
    new_accuracy = run(data, new, *FEW, subsample_classes="new", **flags, **COCOOP)
    base_record, new_record = records(train_run)[0], records(new)[0]
    assert accuracy == base_record["metrics"]["accuracy"]
    assert new_accuracy == new_record["metrics"]["accuracy"]
    assert (base_record["classes"], new_record["classes"]) == ("base", "new")
    assert new_record["per_class"][0]["name"] == "Pasture Land"
    for record in (base_record, new_record):
        assert (record["trainer"], record["dataset"], record["seed"]) == ("CoCoOp", "EuroSAT", 1)
        assert (record["shots"], record["epoch"], record["total"]) == (2, 2, 15)
        assert record["correct"] / record["total"] * 100 == record["metrics"]["accuracy"]
        assert record["status"] == "finished"
    assert base_record["config_digest"] != new_record["config_digest"]
    assert "NAME: CoCoOp" in (train_run / "config.yaml").read_text()


def test_same_seed_same_numbers(data: Path, tmp_path: Path):
    results = []
    for name in ("a", "b"):
        run(data, tmp_path / name, *FEW, "TRAINER.COOP.CTX_INIT", "", epoch=2)
        checkpoint = load_checkpoint(str(tmp_path / name / "prompt_learner/model.pth.tar-2"))
        results.append(checkpoint["state_dict"]["ctx"])
    assert torch.equal(*results)
    digests = {records(tmp_path / name)[0]["config_digest"] for name in ("a", "b")}
    assert len(digests) == 1, "the output folder is no part of a run's identity"


def test_seed_zero_seeds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("a", "b"):
        run(data, tmp_path / name, *FEW, "TRAINER.COOP.CTX_INIT", "", epoch=1, seed=0)
    assert "Setting fixed seed: 0" in capsys.readouterr().out
    paths = [str(tmp_path / name / "prompt_learner/model.pth.tar-1") for name in ("a", "b")]
    contexts = [load_checkpoint(path)["state_dict"]["ctx"] for path in paths]
    assert torch.equal(*contexts)


def test_missing_fields_take_defaults(data: Path, tmp_path: Path):
    args = arguments(data, tmp_path, *FEW, no_train=True)
    del args.seed, args.subsample_classes
    assert train.main(args) is None


@pytest.mark.parametrize("has_gpu", [True, False])
def test_cudnn_chooses_the_fastest_convolutions_where_there_is_a_gpu(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool
):
    """`main` says so, so that a notebook gets it as the command line does."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # puts it back afterwards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(device, "_try", lambda gpu: None)
    monkeypatch.setattr(train, "collect_env_info", lambda use_cuda: "")
    seen = []

    def build_trainer(_: object) -> None:
        seen.append(torch.backends.cudnn.benchmark)
        raise DataError("far enough")

    monkeypatch.setattr(train, "build_trainer", build_trainer)
    with pytest.raises(DataError, match="far enough"):
        run(data, tmp_path, *FEW, seed=-1)
    assert seen == [has_gpu]


def test_zero_shot_has_nothing_to_train(data: Path, tmp_path: Path):
    accuracy = run(data, tmp_path, *FEW, trainer="ZeroshotCLIP")
    assert accuracy == records(tmp_path)[0]["metrics"]["accuracy"]


@pytest.mark.parametrize("flags", [{}, COCOOP], ids=["CoOp", "CoCoOp"])
def test_non_finite_loss_stops_the_run(data: Path, tmp_path: Path, flags: dict):
    with pytest.raises(
        NonFiniteLossError, match=r"epoch \d of 2, batch \d+ of \d+, precision fp32"
    ):
        run(data, tmp_path, *FEW, "OPTIM.WARMUP_CONS_LR", "1e38", epoch=2, **flags)
    assert not list(tmp_path.rglob("model.pth.tar-*"))
    assert "error: the loss is infinite" in log_lines(tmp_path)[-1]


def test_non_finite_loss_of_a_step_of_one_s_own(data: Path, tmp_path: Path, monkeypatch):
    from trainers.coop import CoOp

    monkeypatch.setattr(CoOp, "forward_backward", lambda self, batch: {"loss": float("nan")})
    with pytest.raises(NonFiniteLossError):
        run(data, tmp_path, *FEW, epoch=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_unreadable_image_is_named(data: Path, tmp_path: Path, workers: str):
    root = shutil.copytree(data, tmp_path / "data")
    for path in (root / "eurosat/2750/Forest").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError) as error:
        run(root, tmp_path / "out", *FEW, "DATALOADER.NUM_WORKERS", workers, epoch=1)
    message = str(error.value)
    assert "2750/Forest/Forest_" in message
    assert "\n" not in message


def test_positions_and_class_specific_context(data: Path, tmp_path: Path):
    for position in ("end", "middle", "front"):
        for csc in ("False", "True"):
            opts = ("TRAINER.COOP.CLASS_TOKEN_POSITION", position, "TRAINER.COOP.CSC", csc)
            out = tmp_path / f"{position}{csc}"
            run(data, out, *FEW, *opts, "TRAINER.COOP.CTX_INIT", "", epoch=1)
            assert np.isfinite(records(out)[0]["metrics"]["accuracy"])


def test_foreign_trainer_on_the_engine(data: Path, tmp_path: Path):
    """A trainer that uses nothing but the public API, the way other people's files do."""

    @TRAINER_REGISTRY.register(force=True)
    class Linear(TrainerX):
        def build_model(self) -> None:
            self.model = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, self.num_classes)
            ).to(self.device)
            self.optim = torch.optim.SGD(self.model.parameters(), lr=1e-3)
            self.sched = torch.optim.lr_scheduler.ConstantLR(self.optim)
            self.register_model("linear", self.model, self.optim, self.sched)

        def forward_backward(self, batch: dict) -> dict[str, float]:
            image, label, _ = self.parse_batch_train(batch)
            loss = torch.nn.functional.cross_entropy(self.model(image), label)
            self.model_backward_and_update(loss)
            if (self.batch_idx + 1) == self.num_batches:
                self.update_lr()
            return {"loss": loss.item()}

    accuracy = run(data, tmp_path, *FEW, trainer="Linear", epoch=2)
    assert 0 <= accuracy <= 100
    assert (tmp_path / "linear" / "model.pth.tar-2").is_file()
