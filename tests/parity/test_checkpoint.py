"""Output folders, checkpoint layout, loading and resuming against golden/checkpoint.json."""

import json
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError, MissingFileError, load_checkpoint
from dassl.utils.errors import OutputFolderError
from tests.runs import log_lines, make_eurosat, run

GOLDEN = json.loads((Path(__file__).parent / "golden/checkpoint.json").read_text())
COOP = ("DATASET.NUM_SHOTS", "2", "TRAINER.COOP.PREC", "fp32", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
COCOOP = {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}
OURS_ALONE = {"config.yaml", "results.jsonl", "model.json"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def coop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coop")
    run(data, out, *COOP, epoch=3)
    return out


def tree(folder: Path) -> list[str]:
    """Relative file names, with what varies replaced as in the golden file."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    names = [re.sub(r"tfevents\..*", "tfevents.<...>", name) for name in names]
    pattern = r"log\.txt-\d{4}(-\d\d){5}(-\d+)?"
    names = [re.sub(pattern, "log.txt-<YYYY-MM-DD-HH-MM-SS>", name) for name in names]
    return sorted(set(names) - OURS_ALONE)


def test_files_of_a_training_run(coop: Path):
    assert tree(coop) == sorted(set(GOLDEN["file_trees"]["train"]))
    assert {p.name for p in coop.iterdir()} >= OURS_ALONE


def test_files_of_other_runs(data: Path, coop: Path, tmp_path: Path):
    trees = GOLDEN["file_trees"]
    opts = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "2", "TEST.COMPUTE_CMAT", "1")
    run(data, tmp_path / "best", *COOP, *opts[:-1], "True", epoch=3)
    assert tree(tmp_path / "best") == trees["train_best_val_checkpoint_every_2_epochs_cmat"]
    run(data, tmp_path / "eval", *COOP, eval_only=True, model_dir=str(coop), load_epoch=3)
    assert tree(tmp_path / "eval") == trees["eval_only"]
    run(data, tmp_path / "more", *COOP, epoch=6, resume=str(coop))
    assert tree(tmp_path / "more") == trees["resume_into_other_directory"]
    run(data, tmp_path / "cocoop", "DATASET.NUM_SHOTS", "2", epoch=2, **COCOOP)
    assert tree(tmp_path / "cocoop") == trees["cocoop_train"]
    # Upstream mixes the results of both runs in one folder, and the log of the second is
    # log.txt-<time>.
    with pytest.raises(OutputFolderError, match="holds another run"):
        run(data, tmp_path / "cocoop", "DATASET.NUM_SHOTS", "2", epoch=2, **COCOOP)
    run(data, tmp_path / "cocoop", "DATASET.NUM_SHOTS", "2", epoch=2, overwrite=True, **COCOOP)
    assert tree(tmp_path / "cocoop") == trees["cocoop_train"]


def describe(value: object) -> object:
    """The form in which the golden file describes a checkpoint."""
    if isinstance(value, torch.Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, dict):
        items = {str(k): describe(v) for k, v in value.items()}
        return {"type": type(value).__name__, "items": items}
    if isinstance(value, list | tuple):
        return {"type": "list", "items": [describe(v) for v in value]}
    return value


def test_checkpoint_entries(coop: Path):
    ours = torch.load(coop / "prompt_learner/model.pth.tar-3", weights_only=True)
    golden = GOLDEN["checkpoint_dict"]["coop_last"]
    assert list(ours) == [*golden, "made_by", "progress"]
    assert isinstance(ours["state_dict"], OrderedDict)
    assert describe(ours["state_dict"]) == golden["state_dict"]
    assert (ours["epoch"], ours["val_result"]) == (golden["epoch"], golden["val_result"])
    assert describe(ours["optimizer"]["state"]) == golden["optimizer"]["items"]["state"]
    ours_hyper = ours["optimizer"]["param_groups"][0]
    for key, value in GOLDEN["optimizer_param_groups_hyper"].items():
        assert ours_hyper[key] == pytest.approx(value, rel=1e-9)
    for key, value in GOLDEN["scheduler_details"]["values"].items():
        if not key.startswith("_is") and not key.startswith("_get"):  # private to a torch version
            assert ours["scheduler"][key] == pytest.approx(value, rel=1e-9)


def test_pointer_file(coop: Path):
    content = (coop / "prompt_learner/checkpoint").read_text()
    assert content == GOLDEN["pointer_file"]["content_after_train"]


@pytest.mark.parametrize("case", GOLDEN["state_dict_tables"]["tables"])
def test_learned_tensors(data: Path, tmp_path: Path, case: str):
    """Names, order and shapes as upstream; the learned ones are float32 in every precision."""
    method, precision, context = case.split("/")
    key = f"TRAINER.{method.upper()}"
    opts = [*COOP, f"{key}.PREC", precision, f"{key}.N_CTX", "4"]
    if context != "init":
        opts += [f"{key}.CTX_INIT", "", f"{key}.CSC", str(context.endswith("1"))]
    flags = COCOOP if method == "cocoop" else {}
    run(data, tmp_path, *opts, "TEST.NO_TEST", "True", epoch=1, **flags)
    state = load_checkpoint(str(tmp_path / "prompt_learner/model.pth.tar-1"))["state_dict"]
    table = GOLDEN["state_dict_tables"]["tables"][case]
    assert {k: list(v.shape) for k, v in state.items()} == {k: v[0] for k, v in table.items()}
    assert list(state) == list(table)
    assert {v.dtype for v in state.values()} == {torch.float32}


def logged_rates(folder: Path) -> list[list[str]]:
    pattern = r"epoch \[(\d+)/\d+\] batch \[(\d+)/\d+\].* lr (\S+)"
    return [list(m.groups()) for line in log_lines(folder) if (m := re.match(pattern, line))]


def test_resuming_keeps_the_schedule_going(data: Path, tmp_path: Path):
    """Half of six epochs, then the rest: the rates of a run that was never interrupted."""
    golden = GOLDEN["resume"]["logged_lr_uninterrupted"]
    run(data, tmp_path / "whole", *COOP, "TRAIN.CHECKPOINT_FREQ", "3", epoch=6)
    assert logged_rates(tmp_path / "whole") == golden
    (tmp_path / "whole/prompt_learner/checkpoint").write_text("model.pth.tar-3\n")
    run(data, tmp_path / "rest", *COOP, epoch=6, resume=str(tmp_path / "whole"))
    assert logged_rates(tmp_path / "rest") == golden[6:]


def test_nothing_is_resumed_unless_asked_for(data: Path, tmp_path: Path):
    run(data, tmp_path, *COOP, epoch=1)
    run(data, tmp_path, *COOP, epoch=1, overwrite=True)
    assert "No checkpoint found, train from scratch" in log_lines(tmp_path)


def test_upstream_checkpoint_with_a_pickled_scheduler(data: Path, coop: Path, tmp_path: Path):
    """Its objects are not built, yet the file loads and resumes with the right rate."""
    parameter = torch.nn.Parameter(torch.zeros(4, 64))
    optimizer = torch.optim.SGD([parameter], lr=0.002, momentum=0.9)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6.0)
    for _ in range(2):
        optimizer.step()
        successor.step()
    content = load_checkpoint(str(coop / "prompt_learner/model.pth.tar-3"))
    rate = [successor.get_last_lr()[0]]
    content["optimizer"]["param_groups"][0]["lr"] = rate[0]
    content["scheduler"] = {**content["scheduler"], "successor": successor, "_last_lr": rate}
    folder = tmp_path / "theirs/prompt_learner"
    folder.mkdir(parents=True)
    torch.save(content, folder / "model.pth.tar-3")
    (folder / "checkpoint").write_text("model.pth.tar-3\n")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(folder / "model.pth.tar-3", weights_only=True)
    loaded = load_checkpoint(str(folder / "model.pth.tar-3"))
    assert type(loaded["scheduler"]["successor"]).__name__ == "_InertObject"
    run(data, tmp_path / "rest", *COOP, epoch=6, resume=str(tmp_path / "theirs"))
    assert logged_rates(tmp_path / "rest") == GOLDEN["resume"]["logged_lr_uninterrupted"][6:]


def test_loading_for_evaluation(data: Path, coop: Path, tmp_path: Path):
    golden = GOLDEN["load_model"]["experiments"]
    with pytest.raises(MissingFileError, match=r"77.*one of 3") as error:
        run(data, tmp_path, *COOP, eval_only=True, model_dir=str(coop), load_epoch=77)
    assert isinstance(error.value, FileNotFoundError)
    assert golden["missing_epoch_file"][0] == "FileNotFoundError"
    with pytest.raises(MissingFileError, match="model-best"):
        run(data, tmp_path, *COOP, eval_only=True, model_dir=str(tmp_path / "none"))
    assert not list(tmp_path.iterdir()), "a run that cannot start leaves nothing behind"


def test_without_an_epoch_the_last_one_is_evaluated(data: Path, coop: Path, tmp_path: Path):
    """Upstream stops where there is no best one."""
    run(data, tmp_path, *COOP, eval_only=True, model_dir=str(coop))
    assert "There is no model-best.pth.tar; the last epoch, 3, is taken" in log_lines(tmp_path)
    assert json.loads((tmp_path / "results.jsonl").read_text())["epoch"] == 3


def test_another_method_is_refused(data: Path, coop: Path, tmp_path: Path):
    """Upstream takes CoOp's file for CoCoOp in silence and evaluates an untrained Meta-Net."""
    flags = {"eval_only": True, "model_dir": str(coop), "load_epoch": 3, **COCOOP}
    with pytest.raises(CheckpointError, match="another method"):
        run(data, tmp_path, "DATASET.NUM_SHOTS", "2", **flags)


def test_tensorboard(coop: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(coop / "tensorboard")).Reload()
    golden = GOLDEN["tensorboard"]["scalars_coop_train"]
    assert set(events.Tags()["scalars"]) == set(golden)
    for tag, values in golden.items():
        assert [e.step for e in events.Scalars(tag)] == [step for step, _ in values]
    rates = [e.value for e in events.Scalars("train/lr")]
    assert rates == pytest.approx([v for _, v in golden["train/lr"]], rel=1e-6)
