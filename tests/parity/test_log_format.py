"""The lines of a run's log, which people's parsers read, against golden/log_format.json."""

import json
import re
from pathlib import Path

import pytest

from dassl.config import get_cfg_default
from tests.runs import log_lines, make_eurosat, run

GOLDEN = json.loads((Path(__file__).parent / "golden/log_format.json").read_text())
TWO_SHOTS = ("DATASET.NUM_SHOTS", "2", "TRAINER.COOP.PREC", "fp32", "TRAINER.COCOOP.PREC", "fp32")
COOP = (*TWO_SHOTS, "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
# Numbers that come from random streams or clocks, in lines whose form is fixed.
VARYING = (
    (r"(time|data|loss|acc) \S+ \(\S+\)", r"\1 # (#)"),
    (r"eta .*", "eta #"),
    (r"^\* (correct|accuracy|error|macro_f1|average): \S+", r"* \1: #"),
    (r"\tcorrect: \d+\tacc: \S+", r"\tcorrect: #\tacc: #"),
    (r"^Elapsed: .*", "Elapsed: #"),
    (r"shot_2-seed_1\.(pkl|json)", "shot_2-seed_1.cache"),
    (r"\(backbone: \S+\)", "(backbone: #)"),
)

OURS_ALONE = (
    "Note: CTX_INIT has",
    "Few-shot sample:",
    "First prompts:",
    "Note: there is no",
    "The learning-rate schedule was saved",
    "It rests on:",
    "Note: the embedded CLIP",
)


def normalized(lines: list[str], data: Path, out: Path) -> list[str]:
    """Replaces folders and varying numbers; sorts the names in a printed set."""
    result = []
    for line in lines:
        line = line.replace(str(data), "<DATA>").replace(str(out), "<OUT>")
        for pattern, replacement in VARYING:
            line = re.sub(pattern, replacement, line)
        if line.startswith("Parameters to be updated"):
            line = str(sorted(re.findall(r"'[^']+'", line)))
        result.append(line)
    return result


def body(lines: list[str]) -> list[str]:
    """The lines from "Loading trainer" on, without those that are ours alone."""
    start = next(i for i, line in enumerate(lines) if line.startswith("Loading trainer"))
    return [line for line in lines[start:] if not line.startswith(OURS_ALONE)]


def golden(name: str) -> list[str]:
    return normalized(body(GOLDEN["runs"][name]["lines"]), Path("<DATA>"), Path("<OUT>"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def coop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder above a finished CoOp run, <OUT>/coop."""
    out = tmp_path_factory.mktemp("out")
    run(data, out / "coop", *COOP, epoch=3)
    return out


def test_coop_training(data: Path, coop: Path):
    assert normalized(body(log_lines(coop / "coop")), data, coop) == golden("coop_train")


def test_best_val_per_class_and_confusion_matrix(data: Path, coop: Path):
    opts = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "2")
    opts += ("TEST.PER_CLASS_RESULT", "True", "TEST.COMPUTE_CMAT", "True")
    run(data, coop / "coop_best", *COOP, *opts, epoch=3)
    ours = normalized(body(log_lines(coop / "coop_best")), data, coop)
    theirs = golden("coop_train_best_val_per_class")
    # Which epoch is the best on validation depends on the images.
    best = [i for i, line in enumerate(ours) if "model-best" in line and "Checkpoint" in line]
    assert best, "the first evaluation on validation is always the best so far"

    def without_best(lines: list[str]) -> list[str]:
        kept = [line for line in lines if not line.startswith("Checkpoint saved")]
        return [re.sub(r"epoch = \d", "epoch = #", line) for line in kept]

    assert without_best(ours) == without_best(theirs)


def test_evaluation_of_new_classes(data: Path, coop: Path):
    flags = {"eval_only": True, "model_dir": str(coop / "coop"), "load_epoch": 3}
    run(data, coop / "coop_new", *COOP, subsample_classes="new", **flags)
    ours = normalized(body(log_lines(coop / "coop_new")), data, coop)
    assert ours == golden("coop_eval_only_new_classes")


def test_evaluation_without_a_model_folder(data: Path, coop: Path):
    run(data, coop / "x2", *COOP, eval_only=True)
    ours = normalized(body(log_lines(coop / "x2")), data, coop)
    assert ours == golden("coop_eval_only_no_model_dir")


def test_resumed_training(data: Path, coop: Path):
    run(data, coop / "coop_resumed", *COOP, epoch=6, resume=str(coop / "coop"))
    ours = normalized(body(log_lines(coop / "coop_resumed")), data, coop)
    # Upstream's rate stays frozen after resuming, so the column is compared in test_checkpoint.py.
    no_rate = [re.sub(r"lr \S+", "lr #", line) for line in ours]
    assert no_rate == [re.sub(r"lr \S+", "lr #", x) for x in golden("coop_resume_to_2x_epochs")]


def test_cocoop(data: Path, coop: Path):
    flags = {"trainer": "CoCoOp", "recipe": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1"}
    run(data, coop / "cocoop", *TWO_SHOTS, "TRAIN.PRINT_FREQ", "4", epoch=2, **flags)
    assert normalized(body(log_lines(coop / "cocoop")), data, coop) == golden("cocoop_train")
    flags |= {"eval_only": True, "model_dir": str(coop / "cocoop"), "load_epoch": 2}
    run(data, coop / "cocoop_new", *TWO_SHOTS, subsample_classes="new", **flags)
    ours = normalized(body(log_lines(coop / "cocoop_new")), data, coop)
    assert ours == golden("cocoop_eval_only_new_classes")


@pytest.mark.parametrize("name", ["zeroshot", "zeroshot2"])
def test_zero_shot(data: Path, coop: Path, name: str):
    trainer = {"zeroshot": "ZeroshotCLIP", "zeroshot2": "ZeroshotCLIP2"}[name]
    flags = {"trainer": trainer, "eval_only": True, "subsample_classes": "all"}
    run(data, coop / name, *TWO_SHOTS, recipe="CoOp/vit_b16", **flags)
    ours = normalized(body(log_lines(coop / name)), data, coop)
    assert ours == golden(f"{name}_eval_only")


def test_argument_block_and_console(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    run(data, tmp_path / "x", *COOP, epoch=1)
    console = capsys.readouterr().out.splitlines()
    block = GOLDEN["runs"]["coop_train"]["argument_block"]
    assert console[:4] == block[:4]
    assert block[0] not in log_lines(tmp_path / "x"), "the seed line comes before the log opens"
    names = [line.partition(":")[0] for line in block[4:]]
    ours = [line.partition(":")[0] for line in console[4 : console.index("** Config **") - 1]]
    assert [name for name in ours if name in names] == names
    assert GOLDEN["runs"]["coop_train"]["lines"][0] in console


def test_config_defaults():
    """The printed defaults are upstream's, but for methods that this project does not have."""
    printed = str(get_cfg_default()).splitlines()
    block = GOLDEN["config_block_example"]
    keys = [line.partition(":")[0] for line in block]
    keys = keys[2 : keys.index("TRAINER")]
    ours = [line.partition(":")[0] for line in printed]
    missing = [key for key in keys if key not in ours]
    assert missing == ["  SUBSAMPLE_CLASSES"], "added by the datasets, not by the engine"


def test_parsers_find_the_accuracy(coop: Path):
    """The rule of the scripts that average seeds: last match after the end signal wins."""
    parsers = GOLDEN["known_user_side_parsers"]
    lines = [line.strip() for line in log_lines(coop / "coop")]
    after = lines[lines.index(parsers["end_signal_train_log"]) :]
    found = [re.search(parsers["regex_on_accuracy"], line) for line in after]
    values = [float(match.group(1)) for match in found if match]
    record = json.loads((coop / "coop" / "results.jsonl").read_text().splitlines()[-1])
    assert values[-1] == pytest.approx(record["metrics"]["accuracy"], abs=0.05)
