"""What a result rests on changes under its name: the result is old, and every command says so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encoders.tiny import load_tiny_state_dict
from sweep.cli import main
from sweep.plan.request import Request
from sweep.plan.run import Run, evaluation_of
from sweep.report.grid import build
from sweep.work import basis, kept
from sweep.work.basis import data_stay, differing, digest_of
from sweep.work.execute import Job, execute
from sweep.work.folder import RunFolder
from sweep.work.runner import Sweep
from tests.runs import make_eurosat
from tests.sweep.work.test_runner import record

SHORT = ("OPTIM.MAX_EPOCH", "1", "INPUT.SIZE", "(32, 32)")
COOP = Run("CoOp", "eurosat", "CoOp/tiny", 1, opts=SHORT)
ZERO_SHOT = Run("ZeroshotCLIP", "eurosat", "CoOp/tiny")
OWN = Run("ZeroshotCLIP", "folder", "CoOp/tiny")
SPLIT = "eurosat/split_zhou_EuroSAT.json"
Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _said_anew():
    kept._said.clear()


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_eurosat(tmp_path_factory.mktemp("eurosat"))


@pytest.fixture
def data(eurosat: Path, tmp_path: Path) -> Path:
    """A root with EuroSAT, the same images listed for `Folder`, and weights files."""
    root = tmp_path / "data"
    shutil.copytree(eurosat, root)
    lists = json.loads((root / SPLIT).read_text())
    rows = [
        f"eurosat/2750/{path},{label},{part}\n"
        for part, items in lists.items()
        for path, label, _ in items
    ]
    (root / "images.csv").write_text("path,label,split\n" + "".join(rows))
    (root / "names.txt").write_text("".join(f"kind {i}\n" for i in range(10)))
    torch.save(load_tiny_state_dict(), root / "weights.pt")
    return root


def edit(name: str, change: Callable[[str], str]) -> Change:
    def edited(root: Path) -> None:
        path = root / name
        path.write_text(change(path.read_text()))

    return edited


def other_weights(root: Path) -> None:
    state = load_tiny_state_dict()
    torch.save({**state, "text_projection": state["text_projection"].flip(1)}, root / "weights.pt")


def linked_weights(root: Path) -> None:
    """A link under the old name, to a file with the old times."""
    path = root / "weights.pt"
    times = path.stat()
    path.rename(root / "old.pt")
    other_weights(root)
    path.rename(root / "new.pt")
    os.utime(root / "new.pt", ns=(times.st_atime_ns, times.st_mtime_ns))
    path.symlink_to("new.pt")


def without_an_item(text: str) -> str:
    lists = json.loads(text)
    lists["test"] = lists["test"][1:]
    return json.dumps(lists)


def other_sample(root: Path) -> None:
    """The stored sample is replaced by a valid one of other images."""
    path = root / "eurosat/split_fewshot/shot_1-seed_1.json"
    content = json.loads(path.read_text())
    lists = json.loads((root / SPLIT).read_text())
    drawn = {row[1]: row for row in content["train"]}
    for row in lists["train"]:
        name = f"2750/{row[0]}"
        if name != drawn[row[1]][0]:
            drawn[row[1]] = [name, *row[1:]]
    content["train"] = list(drawn.values())
    names = "\n".join(sorted(row[0] for row in content["train"]))
    content["digest"]["train"] = __import__("hashlib").sha256(names.encode()).hexdigest()
    path.write_text(json.dumps(content))


def own(root: Path, *opts: str) -> Run:
    return replace(OWN, opts=("DATASET.CSV", str(root / "images.csv"), *opts))


def weights(root: Path, run: Run = ZERO_SHOT) -> Run:
    return replace(run, opts=(*run.opts, "MODEL.BACKBONE.PATH", str(root / "weights.pt")))


CHANGES = {
    "weights": (weights, other_weights),
    "weights behind a link": (weights, linked_weights),
    "weights of a training": (lambda root: weights(root, COOP), other_weights),
    "split file": (lambda root: ZERO_SHOT, edit(SPLIT, without_an_item)),
    "class names in the split": (
        lambda root: ZERO_SHOT,
        edit(
            SPLIT, lambda text: text.replace("Forest", "Wood").replace("Wood/Wood", "Forest/Forest")
        ),
    ),
    "few-shot file": (lambda root: COOP, other_sample),
    "CSV": (own, edit("images.csv", lambda text: "\n".join(text.splitlines()[:-1]))),
    "names file": (
        lambda root: own(root, "DATASET.CLASSNAMES", str(root / "names.txt")),
        edit("names.txt", lambda text: text.replace("kind 3", "a river")),
    ),
    "image taken away": (
        lambda root: replace(OWN, opts=("DATASET.CSV", "")),
        lambda root: sorted((root / "Forest").iterdir())[0].unlink(),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_it_is_done_again(kind: str, data: Path, tmp_path: Path, capsys):
    choose, change = CHANGES[kind]
    output = tmp_path / "out"
    if kind == "image taken away":
        data = data / "eurosat" / "2750"
    run = choose(data)
    job = Job(run, output, str(data))
    first = execute(job)
    assert (first.state, first.error) == ("done", "")
    assert execute(job).state == "known"
    change(data)
    folder = RunFolder(run, output)  # as `table` and `status`, which are told no --root
    assert (folder.record(), folder.state()) == (None, "waiting")
    sweep = Sweep([job])
    sweep.find_finished()
    assert sweep.done == set()
    assert "is not the one that results were made with" in capsys.readouterr().out
    again = execute(job)
    assert again.state == "done", again
    assert "is not the one that it was made with" in again.note
    assert execute(job).state == "known"
    lines = (folder.path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert (folder.path / ".before" / "results.jsonl").is_file(), "the old numbers are not lost"


@pytest.mark.slow
def test_files_that_are_put_back_do_not_bring_an_old_record_back(data: Path, tmp_path: Path):
    run = weights(data)
    job = Job(run, tmp_path / "out", str(data))
    first = execute(job)
    shutil.copy(data / "weights.pt", data / "kept.pt")
    other_weights(data)
    second = execute(job)
    assert second.accuracy != first.accuracy
    shutil.copy(data / "kept.pt", data / "weights.pt")
    third = execute(job)
    assert (third.state, third.accuracy) == ("done", first.accuracy)


@pytest.mark.slow
def test_an_evaluation_rests_on_its_training(data: Path, tmp_path: Path):
    """The data of the training change, those of the evaluation do not."""
    train = replace(COOP, classes="base")
    csv = ("DATASET.CSV", str(data / "images.csv"))
    test = evaluation_of(train, dataset="folder", classes="new", opts=(*SHORT, *csv))
    jobs = [Job(run, tmp_path / "out", str(data)) for run in (train, test)]
    assert [execute(job).state for job in jobs] == ["done", "done"]
    assert [execute(job).state for job in jobs] == ["known", "known"]
    other_sample(data)
    assert RunFolder(test, tmp_path / "out").record() is None
    assert execute(jobs[1]).state == "untrained"
    assert [execute(job).state for job in jobs] == ["done", "done"]
    assert [execute(job).state for job in jobs] == ["known", "known"]


@pytest.mark.slow
def test_another_root_with_other_data(data: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    assert execute(Job(ZERO_SHOT, tmp_path / "out", str(data))).state == "done"
    assert execute(Job(ZERO_SHOT, tmp_path / "out", str(other))).state == "known"
    edit(SPLIT, without_an_item)(other)
    assert execute(Job(ZERO_SHOT, tmp_path / "out", str(other))).state == "done"


@pytest.mark.slow
def test_commands_agree(data: Path, tmp_path: Path, capsys):
    output = str(tmp_path / "out")
    flags = ["base2new", "--trainers", "ZeroshotCLIP", "--datasets", "eurosat"]
    flags += ["--recipe", "CoOp/tiny"]
    opts = ["--output", output, "--root", str(data), "--jobs", "1"]
    opts += ["--opts", "MODEL.BACKBONE.PATH", str(data / "weights.pt")]
    assert main(["run", *flags, *opts]) == 0
    opts = ["--output", output, "--opts", *opts[-2:]]
    asked = {"recipe": "CoOp/tiny", "opts": tuple(opts[-2:])}
    request = Request("base2new", ("ZeroshotCLIP",), ("eurosat",), **asked)
    assert build(request.table(), Path(output)).missing == 0
    main(["status", "--output", output])
    assert "3 finished" in capsys.readouterr().out
    other_weights(data)
    assert build(request.table(), Path(output)).missing > 0
    main(["status", "--output", output])
    assert "0 finished" in capsys.readouterr().out
    main(["table", *flags, *opts])
    assert "missing" in capsys.readouterr().out
    assert main(["report", "--output", output]) == 0
    assert "missing" in (Path(output) / "report.html").read_text()
    assert main(["run", *flags, "--dry-run", "--root", str(data), *opts]) == 0
    assert "0 are finished; 3 to do" in capsys.readouterr().out


# --- identity: what is a setting is another folder ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("configs/trainers/CoOp/tiny.yaml", None, "\nOPTIM:\n  LR: 0.77\n"),
        ("configs/datasets/folder.yaml", None, "\n  TEMPLATE: 'a drawing of a {}.'\n"),
    ],
)
def test_a_changed_recipe_is_another_run(name, old, new, tmp_path: Path, monkeypatch):
    from sweep.plan import run as plan

    shutil.copytree(plan.ROOT / "configs", tmp_path / "configs")
    before = plan._digest.__wrapped__(replace(OWN, seed=0))
    plan._settings.cache_clear()
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    monkeypatch.setattr(plan, "DATASETS", tmp_path / "configs" / "datasets")
    path = tmp_path / name
    path.write_text(path.read_text() + new)
    try:
        assert plan._digest.__wrapped__(replace(OWN, seed=0)) != before
    finally:
        plan._settings.cache_clear()


def test_a_changed_template_in_the_code(data: Path, tmp_path: Path, monkeypatch):
    from datasets.eurosat import EuroSAT

    job = Job(ZERO_SHOT, tmp_path / "out", str(data))
    assert execute(job).state == "done"
    monkeypatch.setattr(EuroSAT, "template", "a picture of {} from far away.")
    assert execute(job).state == "done"
    assert execute(job).state == "known"


# --- what cannot be told --------------------------------------------------------------------------


def test_data_that_are_away_or_damaged_leave_results_as_they_are(data: Path, tmp_path, capsys):
    job = Job(ZERO_SHOT, tmp_path / "out", str(data))
    assert execute(job).state == "done"
    (data / SPLIT).write_text("{")
    assert RunFolder(ZERO_SHOT, tmp_path / "out").record() is not None
    assert "eurosat cannot be read" in capsys.readouterr().out
    shutil.rmtree(data)
    assert RunFolder(ZERO_SHOT, tmp_path / "out").record() is not None


def test_records_of_earlier_versions_count_and_that_is_said_once(tmp_path: Path, capsys):
    runs = [replace(COOP, seed=seed) for seed in (1, 2)]
    for run in runs:
        record(run, tmp_path)
        assert RunFolder(run, tmp_path).record() is not None
    assert capsys.readouterr().out.count("do not say what they rest on") == 1


def test_a_record_counts_for_what_it_says_itself(tmp_path: Path):
    told = {"data": {"split_digest": "a"}, "weights": {"sha256": "w"}}
    then = basis.recorded_basis(told, {"split": "b", "trained": "t"})
    assert then == {"split": "a", "weights": "w", "trained": "t"}
    assert differing(then, {"split": "b", "few_shot": {}, "trained": "t"}) == ["split"]
    for odd in ({"data": 3}, {"data": {"few_shot": 1}}, {"weights": ["x"]}, {}):
        assert basis.recorded_basis(odd, {}) == {}


# --- cheaply --------------------------------------------------------------------------------------


def test_nothing_is_read_twice(data: Path, tmp_path: Path, monkeypatch):
    job = Job(weights(data), tmp_path / "out", str(data))
    assert execute(job).state == "done"
    job.folder.record()

    def read(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(basis, "_read_data", read)
    monkeypatch.setattr(basis, "sha256_of", read)
    then = json.loads((job.folder.path / "run.json").read_text())["rests_on"]
    assert then.items() <= job.folder.basis().items()
    with data_stay():
        job.folder.basis()
        monkeypatch.setattr(basis.os, "scandir", read)
        job.folder.basis()


def test_a_digest_follows_the_content(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = digest_of(path)
    assert digest_of(path) == first
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_of(path) != first, "same name, size and time"
    assert digest_of(tmp_path / "none") is None
    for name in (basis.user_cache_home() / "digests").rglob("*.json"):
        name.write_text("garbage")
    assert digest_of(path) != first
    assert len(digest_of(path)) == 64


def test_links_that_loop_end(tmp_path: Path):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "again").symlink_to(tmp_path)
    before = basis._tree(tmp_path, 0)
    (tmp_path / "class" / "1.jpg").write_bytes(b"")
    assert basis._tree(tmp_path, 0) != before
