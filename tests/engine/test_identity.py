"""Checkpoints of something else are refused with both values, or it is said where it is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dassl.utils import CheckpointError, MissingFileError, load_checkpoint
from encoders.tiny import KNOWS, load_tiny_state_dict
from tests.runs import log_lines, make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
OWN_CONTEXTS = ("TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CSC", "True")
QUIET = ("TEST.NO_TEST", "True")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CoOp run of two epochs on the five base classes, of which epoch 1 was kept."""
    out = tmp_path_factory.mktemp("trained")
    run(data, out, *FEW, *QUIET, "TRAIN.CHECKPOINT_FREQ", "1", epoch=2)
    return out


@pytest.fixture(scope="module")
def own_contexts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("csc")
    run(data, out, *FEW, *OWN_CONTEXTS, *QUIET, epoch=1)
    return out


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another CLIP of the same sizes."""
    path = tmp_path_factory.mktemp("clip") / "other.pt"
    state = {k: v * 1.01 for k, v in load_tiny_state_dict().items()}
    torch.save(state, path)
    return str(path)


def without_our_entries(folder: Path, copy: Path) -> Path:
    """A run's folder as the public implementation leaves it."""
    shutil.copytree(folder, copy)
    for path in copy.glob("*/model*"):
        content = load_checkpoint(str(path))
        torch.save({k: v for k, v in content.items() if k not in ("made_by", "progress")}, path)
    return copy


# --- evaluating -----------------------------------------------------------------------------------


def evaluate(data: Path, model: Path, out: Path, *opts: str, **flags: object) -> float:
    flags = {"eval_only": True, "model_dir": str(model), "load_epoch": 1, **flags}
    return run(data, out, *FEW, *opts, **flags)


def test_base_prompts_on_new_classes_without_a_word(data: Path, trained: Path, tmp_path: Path):
    for subset in ("new", "all", "base"):
        evaluate(data, trained, tmp_path / subset, subsample_classes=subset)
        notes = [line for line in log_lines(tmp_path / subset) if line.startswith("Note")]
        assert all("CTX_INIT has" in line or KNOWS in line for line in notes)


@pytest.mark.parametrize("theirs", [False, True], ids=["ours", "public"])
def test_contexts_of_five_classes_on_five_others(data, own_contexts, tmp_path, theirs: bool):
    folder = without_our_entries(own_contexts, tmp_path / "public") if theirs else own_contexts
    evaluate(data, folder, tmp_path / "base", *OWN_CONTEXTS)
    with pytest.raises(CheckpointError, match="class-specific contexts"):
        evaluate(data, folder, tmp_path / "new", *OWN_CONTEXTS, subsample_classes="new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("opts", "flags", "parts"),
    [
        ((), {"trainer": "CoCoOp"}, ("of CoOp", "of CoCoOp", "--trainer CoOp")),
        (("TRAINER.COOP.CLASS_TOKEN_POSITION", "front"), {}, ("was 'end'", "is 'front'")),
    ],
)
def test_another_method_or_form(data, trained, tmp_path, opts, flags, parts):
    if flags:
        flags |= {"recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}
    with pytest.raises(CheckpointError) as error:
        evaluate(data, trained, tmp_path / "x", *opts, **flags)
    assert all(part in str(error.value) for part in parts)


def test_another_clip_of_the_same_sizes(data, trained, other_clip, tmp_path):
    with pytest.raises(CheckpointError, match=r"the CLIP was CLIP tiny \(SHA-256 .*and is CLIP .*"):
        evaluate(data, trained, tmp_path / "x", backbone_path=other_clip)


def test_other_preparation_of_images_is_said(data, trained, tmp_path):
    evaluate(data, trained, tmp_path, "INPUT.INTERPOLATION", "bilinear")
    assert any(
        "Note: INPUT.INTERPOLATION was 'bicubic' in training and is 'bilinear'" in line
        for line in log_lines(tmp_path)
    )


def test_public_checkpoints_load(data, trained, tmp_path):
    public = without_our_entries(trained, tmp_path / "public")
    ours = evaluate(data, trained, tmp_path / "a")
    assert evaluate(data, public, tmp_path / "b") == ours


def test_nan_is_named(data, trained, tmp_path):
    broken = shutil.copytree(trained, tmp_path / "broken")
    path = broken / "prompt_learner/model.pth.tar-1"
    content = load_checkpoint(str(path))
    content["state_dict"]["ctx"][0, 0] = torch.nan
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="NaN in ctx"):
        evaluate(data, broken, tmp_path / "x")
    (broken / "prompt_learner/model.pth.tar-2").unlink()
    with pytest.raises(CheckpointError, match="NaN in ctx"):
        run(data, tmp_path / "y", *FEW, *QUIET, "TRAIN.CHECKPOINT_FREQ", "1", epoch=2,
            resume=str(broken))  # fmt: skip
    with pytest.raises(CheckpointError, match="NaN in ctx"):
        run(data, tmp_path / "z", *FEW, "MODEL.INIT_WEIGHTS", str(path), epoch=1)


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opts", "flags", "parts"),
    [
        (("DATASET.NUM_SHOTS", "4"), {}, ("DATASET.NUM_SHOTS was 2 and is 4",)),
        ((), {"seed": 2}, ("SEED was 1 and is 2",)),
        ((), {"subsample_classes": "new"}, ("SUBSAMPLE_CLASSES was 'base' and is 'new'", "Annual")),
        (("OPTIM.LR", "0.5"), {}, ("OPTIM.LR was 0.002 and is 0.5",)),
        (("DATALOADER.NUM_WORKERS", "2"), {}, ("DATALOADER.NUM_WORKERS was 0 and is 2",)),
        ((), {"epoch": 1}, ("OPTIM.MAX_EPOCH was 2 and is 1",)),
        ((), {"backbone_path": "other"}, ("the CLIP was CLIP tiny",)),
    ],
)
def test_resuming_as_another_run(data, trained, other_clip, tmp_path, opts, flags, parts):
    if "backbone_path" in flags:
        flags = {"backbone_path": other_clip}
    flags = {"epoch": 2, "resume": str(trained), **flags}
    with pytest.raises(CheckpointError) as error:
        run(data, tmp_path / "x", *FEW, *QUIET, *opts, **flags)
    assert all(part in str(error.value) for part in parts), error.value


def test_keys_that_determine_no_number_may_differ(data, trained, tmp_path):
    opts = ("TRAIN.PRINT_FREQ", "1", "DATALOADER.CACHE_MB", "0", "TRAIN.CHECKPOINT_FREQ", "2")
    run(data, tmp_path, *FEW, *QUIET, *opts, epoch=2, resume=str(trained))


def test_a_longer_training_may_go_on(data, trained, tmp_path):
    """The rate goes on from its saved value, which the log says; the draws are those of one run."""
    run(data, tmp_path, *FEW, *QUIET, epoch=3, resume=str(trained))
    assert any("schedule was saved with" in line for line in log_lines(tmp_path))


def test_images_of_another_split(data, trained, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(other / "eurosat/split_fewshot", ignore_errors=True)
    path = other / "eurosat/split_zhou_EuroSAT.json"
    path.write_text(path.read_text().replace("River_1.jpg", "River_X.jpg", 1))
    (other / "eurosat/2750/River/River_1.jpg").rename(other / "eurosat/2750/River/River_X.jpg")
    with pytest.raises(CheckpointError, match="split_digest of the data was"):
        run(other, tmp_path / "x", *FEW, *QUIET, epoch=2, resume=str(trained))


def test_a_run_without_a_checkpoint_starts_anew_as_itself_alone(data, trained, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained / "config.yaml", folder)
    with pytest.raises(CheckpointError, match="NUM_SHOTS was 2 and is 4"):
        run(data, folder, *FEW, *QUIET, "DATASET.NUM_SHOTS", "4", epoch=2, resume=str(folder))
    run(data, folder, *FEW, *QUIET, epoch=2, resume=str(folder))
    assert "the training starts anew" in capsys.readouterr().out
    with pytest.raises(MissingFileError, match="nothing to resume"):
        run(data, tmp_path / "x", *FEW, epoch=2, resume=str(data))


# --- the best model -------------------------------------------------------------------------------

BEST = ("TEST.FINAL_MODEL", "best_val")


def test_the_best_model_moves_along(data: Path, tmp_path: Path):
    """Resumed into another folder, the best so far is there, even if nothing later is better."""
    run(data, tmp_path / "a", *FEW, *BEST, "OPTIM.LR", "0.0", epoch=2)
    run(data, tmp_path / "b", *FEW, *BEST, "OPTIM.LR", "0.0", epoch=4, resume=str(tmp_path / "a"))
    best = load_checkpoint(str(tmp_path / "b/prompt_learner/model-best.pth.tar"))
    assert best["epoch"] == 1


def test_a_best_model_of_another_run_is_not_deployed(data: Path, tmp_path: Path, monkeypatch):
    from dassl.engine import SimpleTrainer

    run(data, tmp_path / "old", *FEW, *BEST, "OPTIM.LR", "0.1", epoch=1)
    plain = SimpleTrainer.after_epoch

    def after_epoch(self: SimpleTrainer) -> None:
        plain(self)
        shutil.copy(tmp_path / "old/prompt_learner/model-best.pth.tar",
                    tmp_path / "new/prompt_learner/model-best.pth.tar")  # fmt: skip

    monkeypatch.setattr(SimpleTrainer, "after_epoch", after_epoch)
    with pytest.raises(CheckpointError, match="of another run"):
        run(data, tmp_path / "new", *FEW, *BEST, epoch=1)


# --- initial weights ------------------------------------------------------------------------------


def test_initial_weights_of_which_nothing_fits(data: Path, tmp_path: Path):
    path = tmp_path / "w.pt"
    for content in ({"state_dict": {"weight": torch.ones(3)}}, {"ctx": torch.ones(1, 2)}, {}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"no layer of .* fits"):
            run(data, tmp_path / "x", *FEW, "MODEL.INIT_WEIGHTS", str(path), epoch=1)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        run(data, tmp_path / "x", *FEW, "MODEL.INIT_WEIGHTS", str(path), epoch=1)


def test_initial_weights_of_other_classes(data: Path, trained: Path, own_contexts, tmp_path):
    """A shared context may start a training on other classes; own contexts may not."""
    path = str(trained / "prompt_learner/model.pth.tar-1")
    run(data, tmp_path / "x", *FEW, "MODEL.INIT_WEIGHTS", path, epoch=1, subsample_classes="new")
    path = str(own_contexts / "prompt_learner/model.pth.tar-1")
    opts = (*FEW, *OWN_CONTEXTS, "MODEL.INIT_WEIGHTS", path)
    run(data, tmp_path / "y", *opts, epoch=1)
    with pytest.raises(CheckpointError, match="class-specific contexts"):
        run(data, tmp_path / "z", *opts, epoch=1, subsample_classes="new")
