"""Arbitrary bytes in any file of a sweep: our own error or none, and no number out of nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import train
from dassl.utils import UserError
from sweep.cli import main
from sweep.plan.request import Request, kept_requests
from sweep.report.grid import build
from sweep.report.parse import parse_folder
from sweep.work.checkpoints import damage
from sweep.work.folder import RunFolder
from tests.sweep.work.test_runner import record

REQUEST = Request("base2new", ("ZeroshotCLIP", "CoOp"), ("digits",), (1, 2))
RUN, OTHER = (run for run in REQUEST.runs() if run.trains)
ACCURACY, OTHERS = 61.25, 70.5
FILES = ("results.jsonl", "run.json", "config.yaml", "error.txt")
FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("intact")
    for run in REQUEST.runs():
        counts = {"total": 400, "correct": 245 if run == RUN else 282}
        record(run, output, ACCURACY if run == RUN else OTHERS, **counts)
        folder = RunFolder(run, output)
        folder.write(seconds=2.0, rests_on={})
        cfg = train.setup_cfg(run.arguments(Path(), ""))
        (folder.path / "config.yaml").write_text(cfg.dump())
    REQUEST.save(output)
    return output


@pytest.fixture
def output(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "out"))


@cache
def valid(name: str) -> bytes:
    """What such a file may hold, to be mutated."""
    content = {
        "results.jsonl": {
            **{"status": "finished", "split": "test", "metrics": {"accuracy": ACCURACY}},
            **{"total": 400, "correct": 245},
        },
        "run.json": {"run": RUN.as_dict(), "digest": RUN.digest, "seconds": 2.0},
        "error.txt": "an error",
    }
    if name == "config.yaml":
        return train.setup_cfg(RUN.arguments(Path(), "")).dump().encode()
    return json.dumps(content[name]).encode()


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """A valid content with a piece cut out, doubled, or replaced by any bytes."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 200)))
    middle = draw(st.one_of(st.binary(max_size=40), st.just(content[start:end] * 2)))
    return content[:start] + middle + content[end:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def numbers(output: Path) -> Iterator[float]:
    """All accuracies that a table shows, or are parsed."""
    for value in build(REQUEST.table(), output).values():
        yield from value.samples.values()
    with contextlib.suppress(UserError):
        yield from (p.accuracy for p in parse_folder(RUN.folder(output).parent).values())


def check(output: Path, run_folder: RunFolder) -> None:
    allowed = {ACCURACY, OTHERS}
    h = 2 * ACCURACY * OTHERS / (ACCURACY + OTHERS)
    for number in numbers(output):
        assert number in allowed or number == pytest.approx(h), number
    for ask in ("state", "record", "seconds", "error", "resume_problem"):
        getattr(run_folder, ask)()
    assert main(["status", "--output", str(output)]) == 0


def without_counts(content: bytes) -> bool:
    """Whether it is a record that nothing in it contradicts: a whole one, but for its counts."""
    with contextlib.suppress(ValueError):
        record = json.loads(content)
        return isinstance(record, dict) and not record.keys() & {"total", "correct"}
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@FEW
@given(data=st.data())
def test_a_file_of_a_run(name: str, data: st.DataObject, output: Path):
    content = data.draw(st.one_of(st.binary(max_size=300), mutated(valid(name))))
    assume(name != "results.jsonl" or not without_counts(content))
    folder = RunFolder(RUN, output)
    (folder.path / name).write_bytes(content)
    check(output, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results.jsonl", "run.json"])
@FEW
@given(data=st.data())
def test_any_json(name: str, data: st.DataObject, output: Path):
    changed = {
        **json.loads(valid(name)),
        **data.draw(st.dictionaries(st.sampled_from(KEYS), json_values)),
    }
    folder = RunFolder(RUN, output)
    (folder.path / name).write_text(json.dumps(changed))
    found = folder.record()
    assert found is None or 0 <= found["metrics"]["accuracy"] <= 100
    build(REQUEST.table(), output)
    folder.seconds()


KEYS = (
    *("status", "split", "seed", "trainer", "epoch", "metrics", "total", "correct", "per_class"),
    *("data", "weights", "run", "digest", "seconds", "rests_on", "dataset", "classes", "torch"),
)


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_a_request(data: st.DataObject, output: Path):
    (path,) = (output / "sweeps").glob("*.json")
    good = path.read_bytes()
    fields = st.dictionaries(st.sampled_from(sorted(json.loads(good))), json_values)
    content = data.draw(
        st.one_of(
            st.binary(max_size=300),
            mutated(good),
            fields.map(lambda more: json.dumps({**json.loads(good), **more}).encode()),
        )
    )
    path.write_bytes(content)
    kept_requests(output)
    assert main(["status", "--output", str(output)]) == 0
    try:
        main(["report", "--output", str(output)])
    except UserError:
        assert kept_requests(output) == []
    path.write_bytes(good)


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_a_checkpoint(data: st.DataObject, tmp_path: Path):
    path = tmp_path / "model.pth.tar-2"
    torch.save({"state_dict": {"ctx": torch.zeros(4, 8)}, "epoch": 2}, path)
    good = path.read_bytes()
    assert damage(path) == ""
    content = data.draw(st.one_of(st.binary(max_size=300), st.just(good[: len(good) // 2])))
    path.write_bytes(content)
    assert damage(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "missing"])
@pytest.mark.parametrize("name", [*FILES, "sweep"])
def test_something_else_in_its_place(name: str, kind: str, output: Path, capsys):
    folder = RunFolder(RUN, output)
    (path,) = (output / "sweeps").glob("*.json") if name == "sweep" else (folder.path / name,)
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    check(output, folder)
    if name == "sweep" and kind != "folder":
        REQUEST.save(output)
        assert kept_requests(output) == [REQUEST]
    elif name == "sweep":
        assert f"{path} is passed over" in capsys.readouterr().out


def test_one_damaged_run_stops_no_table(output: Path, capsys):
    for name in ("config.yaml", "run.json"):
        path = RUN.folder(output) / name
        path.write_bytes(path.read_bytes()[:40])
    flags = ["base2new", "--trainers", "ZeroshotCLIP", "CoOp", "--datasets", "digits"]
    flags += ["--seeds", "1", "2", "--output", str(output)]
    assert main(["table", *flags]) == 0
    shown = capsys.readouterr().out
    assert "(1 of 2 seeds)" in shown
    assert shown.count(str(RUN.folder(output))) == 1, "said once, by name"
    assert main(["report", "--output", str(output)]) == 0
    assert main(["status", "--output", str(output)]) == 0
    # The run, and the two evaluations that rest on it.
    assert "6 finished, 0 running, 0 failed, 3 waiting" in capsys.readouterr().out
