"""What a user can get wrong ends in a message and exit code 2; nothing half-written stays."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import train
from dassl.utils.cli import run_cli
from tests.runs import ROOT, SMALL, make_eurosat, run

FEW = ("DATASET.NUM_SHOTS", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CoOp run of one epoch on the five base classes."""
    out = tmp_path_factory.mktemp("trained")
    run(data, out, *FEW, "TEST.NO_TEST", "True", epoch=1)
    return out


@pytest.fixture
def failing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Returns a function that runs the command line, expects exit code 2, returns the message."""

    def call(*opts: str, root: Path = data, **flags: str) -> str:
        given = {
            "--root": str(root),
            "--output-dir": str(tmp_path / "out"),
            "--trainer": "CoOp",
            "--backbone": "tiny",
            "--seed": "1",
            "--dataset-config-file": str(ROOT / "configs/datasets/eurosat.yaml"),
            "--config-file": str(ROOT / "configs/trainers/CoOp/vit_b16_ctxv1.yaml"),
            "--epoch": "1",
        }
        given.update({f"--{name.replace('_', '-')}": value for name, value in flags.items()})
        argv = [word for pair in given.items() for word in pair if word is not None]
        args = train.build_parser().parse_args([*argv, *SMALL, *FEW, *opts])
        stdout = sys.stdout
        assert run_cli(lambda: train.main(args)) == 2
        assert sys.stdout is stdout, "the log must give standard output back"
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    yield call


@pytest.fixture
def nothing_written(tmp_path: Path):
    yield
    assert not (tmp_path / "out").exists()


pytestmark = pytest.mark.usefixtures("nothing_written")


@pytest.mark.parametrize(
    ("flags", "near"),
    [
        ({"trainer": "CoOpp"}, "CoOp"),
        ({"backbone": "ViT-B16"}, "ViT-B/16"),
        ({"subsample_classes": "bases"}, "base"),
    ],
)
def test_unknown_name_of_a_flag(failing, flags: dict, near: str):
    message = failing(**flags)
    assert next(iter(flags.values())) in message
    assert f"Did you mean '{near}'?" in message


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("DATASET.NAME", "EuroSet", "EuroSAT"),
        ("OPTIM.NAME", "sdg", "sgd"),
        ("OPTIM.LR_SCHEDULER", "cosin", "cosine"),
        ("TRAINER.COOP.PREC", "fp61", "fp16"),
        ("TRAINER.COOP.CLASS_TOKEN_POSITION", "midle", "middle"),
        ("INPUT.INTERPOLATION", "bicubik", "bicubic"),
        ("TEST.FINAL_MODEL", "best", "best_val"),
        ("INPUT.TRANSFORMS", "['random_fliip']", "random_flip"),
    ],
)
def test_unknown_value_of_a_key(failing, key: str, value: str, near: str):
    message = failing(key, value)
    assert key in message
    assert f"Did you mean '{near}'?" in message


def test_unknown_key(failing):
    assert "unknown config key OPTIM.LRR. Did you mean 'OPTIM.LR'?" in failing("OPTIM.LRR", "1")


def test_several_mistakes_are_all_listed(failing):
    message = failing(
        "OPTIM.LRR", "1", "OPTIM.NAME", "sdg", "OPTIM.MAX_EPOCH", "many", trainer="CoOpp"
    )
    assert message.count("error: ") == 4
    for part in ("OPTIM.LRR", "'sdg'", "OPTIM.MAX_EPOCH is 'many'; expected int", "CoOpp"):
        assert part in message


def test_config_file_that_does_not_exist(failing):
    assert "configs/none.yaml does not exist" in failing(config_file="configs/none.yaml")


def test_a_trainer_file_that_cannot_be_imported_is_named(failing, monkeypatch):
    monkeypatch.setitem(train.trainers.failed_imports, "mine.py", ImportError("no clip"))
    assert "trainers/mine.py could not be imported" in failing(trainer="Mine")


def test_data_root_absent(failing, tmp_path: Path):
    message = failing(root=tmp_path / "nowhere")
    assert f"--root (DATASET.ROOT) is {tmp_path / 'nowhere'}, which does not exist" in message
    assert f"mkdir -p {tmp_path / 'nowhere'}" in message
    assert not (tmp_path / "nowhere").exists()


def test_dataset_absent(failing, tmp_path: Path):
    message = failing(root=tmp_path)
    assert f"EuroSAT was looked for in {tmp_path / 'eurosat/2750'}" in message
    assert f"\n  python -m datasets download EuroSAT --root {tmp_path}\n" in message


def test_images_that_the_split_names_are_missing(failing, data: Path, tmp_path: Path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "eurosat/2750/River/River_3.jpg").unlink()
    message = failing(root=root)
    assert "1 of the 100 images" in message
    assert "River_3.jpg" in message


def test_class_folder_without_images(failing, data: Path, tmp_path: Path, monkeypatch):
    import datasets.eurosat

    root = shutil.copytree(data, tmp_path / "data")
    (root / "eurosat/split_zhou_EuroSAT.json").unlink()
    monkeypatch.setattr(datasets.eurosat.EuroSAT, "split_file", "none.json")
    shutil.rmtree(root / "eurosat/2750/River")
    (root / "eurosat/2750/River").mkdir()
    message = failing(root=root)
    assert "2750/River" in message
    assert "image" in message


def test_split_file_damaged(failing, data: Path, tmp_path: Path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "eurosat/split_zhou_EuroSAT.json").write_text('{"train": [')
    assert "split_zhou_EuroSAT.json is not valid JSON" in failing(root=root)


def test_image_size_does_not_fit_the_backbone(failing):
    message = failing("INPUT.SIZE", "(224, 224)")
    assert "(224, 224)" in message
    assert 'INPUT.SIZE "(32, 32)"' in message


def test_prompt_beyond_77_tokens(failing):
    message = failing("TRAINER.COOP.N_CTX", "75", "TRAINER.COOP.CTX_INIT", "")
    assert "Annual Crop Land" in message
    assert "77" in message


def test_epoch_that_does_not_exist(failing, trained: Path):
    message = failing(model_dir=str(trained), load_epoch="9", eval_only=None)
    assert "choose one of 1" in message


@pytest.mark.parametrize(
    ("opts", "flags", "part"),
    [
        (("TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.N_CTX", "7"), {}, "ctx has shape (4, 64)"),
        ((), {"trainer": "CoCoOp"}, "another method wrote it"),
    ],
)
def test_checkpoint_of_another_shape_or_method(failing, trained: Path, opts, flags, part: str):
    message = failing(*opts, model_dir=str(trained), load_epoch="1", eval_only=None, **flags)
    assert part in message


def test_checkpoint_of_other_classes(failing, data: Path, tmp_path: Path):
    opts = ("TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.CSC", "True", "TEST.NO_TEST", "True")
    run(data, tmp_path / "csc", *FEW, *opts, epoch=1)  # five classes
    flags = {"model_dir": str(tmp_path / "csc"), "load_epoch": "1", "eval_only": None}
    message = failing(*opts, subsample_classes="all", **flags)
    assert "ctx has shape (5, 16, 64) in the checkpoint and (10, 16, 64) here" in message


def test_checkpoint_that_would_run_code(failing, tmp_path: Path):
    folder = tmp_path / "evil" / "prompt_learner"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {}, "epoch": 1, "extra": _Evil()}, folder / "model.pth.tar-1")
    flags = {"model_dir": str(tmp_path / "evil"), "load_epoch": "1", "eval_only": None}
    message = failing(**flags)
    assert "not opened" in message
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_resume_of_nothing(failing, tmp_path: Path):
    assert "RESUME" in failing(resume=str(tmp_path / "nothing"))


def test_context_words_win_over_their_number(data: Path, tmp_path: Path, capsys):
    run(data, tmp_path / "run", *FEW, "TRAINER.COOP.N_CTX", "9", no_train=True)
    assert "CTX_INIT has 4 words and wins over N_CTX, which is 9" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
