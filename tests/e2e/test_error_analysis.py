"""Error analysis through the real entry points: train.py, other people's trainers, the sweep."""

from __future__ import annotations

import csv
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.evaluation.error_analysis import FILES
from dassl.utils.results import config_digest, read_records
from datasets.eurosat import CLASSNAMES
from sweep.cli import main
from sweep.plan.request import Request
from sweep.plan.run import Run, evaluation_of
from sweep.work.execute import Job, Outcome, execute
from sweep.work.folder import RunFolder
from tests.runs import make_eurosat, run
from tests.sweep.work.test_runner import FAST, Here

ON = ("TEST.ERROR_ANALYSIS", "True")
FEW = ("DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
TRAIN = Run("CoOp", "digits", "CoOp/tiny", 2, "base", 1, FAST[:2])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("data"))


def predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def accuracy(folder: Path) -> float:
    found = predictions(folder)
    return 100 * sum(int(row["correct"]) for row in found) / len(found)


def record(folder: Path) -> dict:
    return list(read_records(folder / "results.jsonl"))[-1]


@pytest.mark.parametrize("store", ["1024", "0"], ids=["features", "images"])
def test_every_image_by_its_path(store: str, data: Path, tmp_path: Path):
    """Whether the batches hold images or stored features: the paths are those of the split."""
    opts = (*FEW, *ON, "MODEL.FEATURES.STORE_MB", store, "DATALOADER.TEST.BATCH_SIZE", "4")
    result = run(data, tmp_path, *opts, epoch=1)
    found = predictions(tmp_path)
    assert accuracy(tmp_path) == pytest.approx(result)
    assert len(found) == record(tmp_path)["total"] == len({row["path"] for row in found})
    for row in found:
        assert (data / row["path"]).is_file(), "relative to the root of the data"
        assert CLASSNAMES[Path(row["path"]).parent.name] == row["truth"]
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        counts = {row.pop("truth"): row for row in csv.DictReader(file)}
    per_class = {entry["name"]: entry for entry in record(tmp_path)["per_class"]}
    assert counts.keys() == per_class.keys()
    for name, row in counts.items():
        assert int(row[name]) == per_class[name]["correct"]
        assert sum(map(int, row.values())) == per_class[name]["total"]


@pytest.mark.slow
def test_features_and_images_give_the_same(data: Path, tmp_path: Path):
    for name, store in (("features", "1024"), ("images", "0")):
        run(data, tmp_path / name, *FEW, *ON, "MODEL.FEATURES.STORE_MB", store, epoch=1)
    kept = [
        [(row["path"], row["truth"], row["predicted"]) for row in predictions(tmp_path / name)]
        for name in ("features", "images")
    ]
    assert kept[0] == kept[1]


def test_validation_between_epochs_writes_nothing(data: Path, tmp_path: Path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "dassl.evaluation.ErrorAnalysis.save", lambda self, *args: saved.append(len(self._paths))
    )
    run(data, tmp_path, *FEW, *ON, "TEST.FINAL_MODEL", "best_val", epoch=2)
    splits = [line["split"] for line in read_records(tmp_path / "results.jsonl")]
    assert splits == ["val", "val", "test"]
    assert saved == [record(tmp_path)["total"]]


@pytest.mark.slow
def test_numbers_and_identity_stay_the_same(data: Path, tmp_path: Path):
    for name, opts in (("off", ()), ("on", ON)):
        run(data, tmp_path / name, *FEW, *opts, epoch=1)
    records = [record(tmp_path / name) for name in ("off", "on")]
    for key in ("metrics", "per_class", "config_digest"):
        assert records[0][key] == records[1][key], key
    configs = [yaml.safe_load((tmp_path / n / "config.yaml").read_text()) for n in ("off", "on")]
    assert configs[0]["TEST"] != configs[1]["TEST"]
    assert config_digest(configs[0]) == config_digest(configs[1])
    assert not (tmp_path / "off" / FILES[0]).exists()
    assert TRAIN.digest == replace(TRAIN, opts=(*TRAIN.opts, *ON)).digest


def test_other_people_s_trainers_and_evaluators(data: Path, tmp_path: Path):
    """Both use nothing but the public API: the evaluator gets outputs and labels, no paths."""

    @TRAINER_REGISTRY.register(force=True)
    class Flat(TrainerX):
        def build_model(self) -> None:
            torch.manual_seed(0)
            size = 3 * 32 * 32
            layers = torch.nn.Flatten(), torch.nn.Linear(size, self.num_classes)
            self.model = torch.nn.Sequential(*layers).to(self.device)
            self.register_model("flat", self.model)

    @EVALUATOR_REGISTRY.register(force=True)
    class OnlyHits(EvaluatorBase):
        def __init__(self, cfg, lab2cname=None) -> None:
            super().__init__(cfg)

        def reset(self) -> None:
            self.hits: list[float] = []

        def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
            self.hits += (mo.argmax(dim=1) == gt).float().tolist()

        def evaluate(self) -> OrderedDict[str, float]:
            return OrderedDict(hits=100 * sum(self.hits) / len(self.hits))

    opts = (*FEW, *ON, "TEST.EVALUATOR", "OnlyHits")
    result = run(data, tmp_path, *opts, trainer="Flat", eval_only=True)
    assert accuracy(tmp_path) == pytest.approx(result)
    assert all((data / row["path"]).is_file() for row in predictions(tmp_path))
    assert all((tmp_path / name).is_file() for name in FILES)


# --- the sweep ------------------------------------------------------------------------------------


def do(one: Run, data: Path, output: Path, analyse: bool) -> Outcome:
    return execute(Job(one, output, str(data), error_analysis=analyse))


@pytest.mark.slow
def test_finished_runs_are_tested_again_and_not_trained(data: Path, tmp_path: Path):
    zero_shot = Run("ZeroshotCLIP", "digits", "CoOp/tiny", 0, "base", 1)
    for one in (TRAIN, evaluation_of(TRAIN, classes="new"), zero_shot):
        folder = one.folder(tmp_path)
        first = do(one, data, tmp_path, analyse=False)
        assert not RunFolder(one, tmp_path).has_error_analysis()
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        again = do(one, data, tmp_path, analyse=True)
        assert (again.state, again.accuracy, again.note) == ("tested", first.accuracy, ""), again
        assert accuracy(folder) == pytest.approx(
            RunFolder(one, tmp_path).record()["metrics"]["accuracy"]
        )
        left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert {name: left[name] for name in before} == before, "records and logs are untouched"
        assert left.keys() - before.keys() == set(FILES)
        assert not (folder / ".error_analysis").exists()
        assert do(one, data, tmp_path, analyse=True).state == "known"


@pytest.mark.slow
def test_a_run_writes_the_same_as_when_it_is_tested_again(data: Path, tmp_path: Path):
    one = replace(TRAIN, seed=2)
    assert do(one, data, tmp_path, analyse=True).state == "done"
    folder = one.folder(tmp_path)
    first = (folder / FILES[0]).read_text()
    (folder / FILES[-1]).unlink()  # as if it had been killed here
    assert do(one, data, tmp_path, analyse=True).state == "tested"
    assert (folder / FILES[0]).read_text() == first


@pytest.mark.slow
def test_a_run_that_is_done_anew_drops_the_old_analysis(data: Path, tmp_path: Path):
    one = replace(TRAIN, seed=3)
    do(one, data, tmp_path, analyse=True)
    (one.folder(tmp_path) / "results.jsonl").unlink()
    assert do(one, data, tmp_path, analyse=False).state == "done"
    assert not any((one.folder(tmp_path) / name).exists() for name in FILES)


@pytest.mark.slow
def test_the_command_and_the_report(data: Path, tmp_path: Path, capsys, monkeypatch):
    flags = ["base2new", "--trainers", "CoOp", "--datasets", "digits", "--seeds", "1"]
    flags += ["--shots", "1", "--output", str(tmp_path), "--root", str(data)]
    opts = ["--opts", "OPTIM.MAX_EPOCH", "1"]
    monkeypatch.setattr("sweep.cli.executor_of", lambda args, jobs, places: Here())
    assert main(["run", *flags, "--only", "train", *opts]) == 0
    capsys.readouterr()
    assert main(["run", *flags, "--error-analysis", *opts]) == 0
    out = capsys.readouterr().out
    assert "0 are finished; 3 to do" in out
    assert "1 of these is finished, and only tested again" in out
    assert "] tested  CoOp digits, base classes, 1 shot, seed 1" in out
    assert out.count("] done ") == 2
    assert main(["report", "--output", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    request = Request("base2new", ("CoOp",), ("digits",), (1,), (1,), opts=("OPTIM.MAX_EPOCH", "1"))
    for one in request.runs():
        picture = one.folder(tmp_path).relative_to(tmp_path) / "confused.png"
        assert f'href="{picture}"' in page
        assert (tmp_path / picture).is_file()
