"""The GPU day: what runs the parts, what judges them, and whether it runs on a CPU."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.bars import judge
from benchmarks.gpu_day import __main__ as day
from benchmarks.gpu_day import figures, half_precision, step_profile
from benchmarks.gpu_day.__main__ import Day, bring_home, environment_for, require_all, summary
from benchmarks.gpu_day.gpu_tests import counts, files_with_gpu_tests
from benchmarks.gpu_day.plan import PARTS, Part, named
from benchmarks.gpu_day.step_profile import covered
from benchmarks.gpu_day.step_profile import summary as profile_summary

ROOT = Path(__file__).resolve().parents[2]
WRITE = "import json, sys; json.dump({'results': [{'key': 'a', 'x': 5}]}, open(sys.argv[-1], 'w'));"


def part(name: str, code: str, minutes: float = 1.0) -> Part:
    command = shlex.join(["-c", code])
    return Part(name, "something", minutes, command, command)


def a_day(folder: Path, device: str = "cpu", minutes: float = 0.0) -> Day:
    facts = {"driver": "580"}
    return Day(device, folder, folder / "logs", minutes, facts, "abc", dict(os.environ))


# --- the plan -------------------------------------------------------------------------------------


def test_the_day_is_short_enough():
    assert max(p.minutes for p in PARTS) < 9
    assert sum(p.minutes for p in PARTS) < 25
    assert {p.name for p in PARTS} == set(figures.FIGURES)
    assert len({p.name for p in PARTS}) == len(PARTS)


def test_programs_of_the_plan_exist():
    for p in PARTS:
        for device in ("cuda", "cpu"):
            first, name = p.arguments(device)[:2]
            path = f"{name.replace('.', '/')}.py" if first == "-m" else first
            assert (ROOT / path).is_file()


def test_parts_are_chosen_and_run_in_the_order_of_their_worth():
    assert [p.name for p in named("jobs, machine")] == ["machine", "jobs"]
    for wrong in ("", "jobs,sweeps"):
        with pytest.raises(ValueError, match=r"there are machine, capture, .*loaders"):
            named(wrong)


# --- running --------------------------------------------------------------------------------------


def test_a_part_that_passes_says_where_it_ran(tmp_path):
    outcome = a_day(tmp_path).run(part("one", WRITE))
    report = json.loads((tmp_path / "one.json").read_text())
    assert outcome.word == report["verdict"] == "pass"
    assert report["results"] == [{"key": "a", "x": 5, "commit": "abc", "commit_by_git": None}]
    assert (report["driver"], report["commit"], report["part"]) == ("580", "abc", "one")
    assert report["command"].startswith("python -c ")


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("raise SystemExit(3)", "failed, exit code 3"),
        ("print('nothing')", "failed, nothing was measured"),
        ("import os; os.abort()", "failed, exit code -6"),
        (WRITE + "raise ValueError('later')", "failed, exit code 1"),
    ],
)
def test_a_part_that_fails_says_so_and_keeps_what_it_had(tmp_path, code, word):
    (tmp_path / "one.json").write_text('{"results": [{"key": "of another day"}]}')
    outcome = a_day(tmp_path).run(part("one", code))
    report = json.loads((tmp_path / "one.json").read_text())
    assert outcome.word == report["verdict"] == word
    assert [r["key"] for r in report["results"]] == (["a"] if "later" in code else [])
    assert "later" not in code or "ValueError: later" in report["end_of_log"]


def test_a_part_over_its_time_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    lock, ready, late = (str(tmp_path / name) for name in ("lock", "ready", "late"))
    child = (
        f"import fcntl, time; fcntl.flock(open({lock!r}, 'w'), fcntl.LOCK_EX);"
        f"open({ready!r}, 'w'); time.sleep(60); open({late!r}, 'w')"
    )
    code = f"{WRITE} import subprocess; subprocess.run([sys.executable, '-c', {child!r}])"
    wait = subprocess.Popen.wait

    def time_is_over_when_ready(process: subprocess.Popen, timeout: float | None = None) -> int:
        if timeout is None:
            return wait(process)
        while not Path(ready).exists():
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("the part", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", time_is_over_when_ready)
    outcome = a_day(tmp_path).run(part("one", code))
    assert outcome.word == "over its time"
    assert json.loads((tmp_path / "one.json").read_text())["results"], "what it had is kept"
    with Path(lock).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the child is gone
    assert not Path(late).exists()


def test_what_a_part_that_ends_by_itself_left_running_is_ended(tmp_path):
    lock = str(tmp_path / "lock")
    child = f"import fcntl, time; fcntl.flock(open({lock!r}, 'w'), fcntl.LOCK_EX); time.sleep(60)"
    code = (
        f"{WRITE} import pathlib, subprocess, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"while not pathlib.Path({lock!r}).exists(): time.sleep(0.01)\n"
        "raise SystemExit(3)"
    )
    assert a_day(tmp_path).run(part("one", code)).word == "failed, exit code 3"
    with Path(lock).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the child is gone


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_day_that_is_ended_ends_its_part(tmp_path, number):
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--device", "cpu", "--parts", "jobs"]
    with subprocess.Popen([*command, "--work", str(tmp_path)], cwd=ROOT) as process:
        while not (log := tmp_path / "logs/jobs.txt").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
    assert process.returncode == 128 + number and log.exists()
    assert not any("whole_job" in line and str(tmp_path) in line for line in command_lines())


def command_lines() -> list[str]:
    """Of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return found


@pytest.mark.parametrize(
    ("by_git", "expected"), [(None, "abc"), ("1234-dirty", "abc"), ("5678", "5678")]
)
def test_the_commit_that_is_given_is_for_where_git_knows_no_clean_one(by_git, expected):
    report = {"commit": by_git, "results": [{"key": "a", "commit": by_git}]}
    named = day.with_commit(report, "abc")
    assert named["commit"] == named["results"][0]["commit"] == expected
    assert named.get("commit_by_git", by_git) == by_git
    assert day.with_commit(report, "") == report


def test_the_others_go_on_and_the_summary_says_what_to_type(tmp_path):
    chosen = (part("one", "raise SystemExit(3)"), part("two", WRITE))
    outcomes = [a_day(tmp_path).run(p) for p in chosen]
    text = summary(outcomes, chosen)
    assert "1 of 2 parts pass." in text
    assert "The rest: bash benchmarks/gpu_day.sh --parts one" in text


def test_no_part_begins_without_time(tmp_path):
    outcome = a_day(tmp_path, minutes=0.1).run(part("one", WRITE))
    assert outcome.word == "no time left" and not (tmp_path / "one.json").exists()


@pytest.mark.parametrize(("value", "word"), [(0, "pass"), (2, "bars missed")])
def test_bars_are_judged_on_a_gpu(tmp_path, monkeypatch, value, word):
    bar = figures._figure("x", "a", "x", most=5 - value)
    shown = figures._figure("y", "a", "y")  # not measured: no matter, as it has no limit
    monkeypatch.setitem(figures.FIGURES, "one", (bar, shown))
    outcome = a_day(tmp_path, "cuda").run(part("one", WRITE))
    assert outcome.word == word
    assert ("FAIL         x: 5 (at most 3)" in summary([outcome], ())) == bool(value)


def test_every_figure_can_be_missing():
    for bars in figures.FIGURES.values():
        assert all(v.word == "not measured" for v in judge([], bars))


def test_what_is_taken_home_is_two_files(tmp_path):
    (tmp_path / "logs").mkdir()
    for name in ("a.json", "b.json", "logs/a.txt"):
        (tmp_path / name).write_text("x")
    bring_home(tmp_path / "out", "all well", tmp_path, tmp_path / "logs")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gpu_day.tar.gz", "summary.txt"]
    with tarfile.open(tmp_path / "out/gpu_day.tar.gz") as archive:
        assert {Path(n).name for n in archive.getnames()} == {"a.json", "b.json", "a.txt"}


# --- what must be there ---------------------------------------------------------------------------


def test_packages_come_from_wheels(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(SystemExit, match=r"no file there ends in \.whl"):
        environment_for("cpu", wheels, tmp_path)
    info = "brought-1.0.dist-info"
    files = {
        "brought.py": "HERE = True\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(wheels / "brought-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    environment = environment_for("cpu", wheels, tmp_path)
    command = [sys.executable, "-c", "import brought; assert brought.HERE"]
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    (tmp_path / "yacs.py").write_text("raise ImportError('no yacs here')")
    monkeypatch.setattr(day, "NEEDED", {"json": "json", "yacs": "yacs"})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with pytest.raises(SystemExit, match=r"yacs: ImportError: no yacs here(.|\n)*-d wheels yacs\n"):
        require_all("cpu", environment)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence(monkeypatch):
    monkeypatch.setattr(day, "NEEDED", {"json": "json"})
    with pytest.raises(SystemExit, match="torch sees no GPU; --device cpu"):
        require_all("cuda", dict(os.environ))


# --- parts ----------------------------------------------------------------------------------------


def test_gaps():
    assert covered([(5, 7), (0, 2), (1, 3), (6, 6.5)]) == 5
    found = profile_summary([("a", (0, 1000)), ("b", (500, 2000)), ("a", (3000, 4000))], 2)
    assert found["kernels"] == 1.5
    assert (found["milliseconds"], found["busy_milliseconds"], found["gaps"]) == (2, 1.5, 0.25)
    assert found["top_ten"][0] == {"kernel": "a", "share": pytest.approx(2000 / 3500)}
    assert profile_summary([], 2)["gaps"] == 1


def test_skipped_tests_are_no_proof(tmp_path):
    report = tmp_path / "report.xml"
    cases = "<testcase/><testcase><skipped/></testcase><testcase classname='a' name='b'><failure/>"
    report.write_text(f"<testsuite>{cases}</testcase></testsuite>")
    assert counts(report) == {"passed": 1, "failed": 1, "skipped": 1, "failures": ["a::b"]}
    assert counts(tmp_path / "none.xml")["passed"] == 0
    assert "tests/fast_paths/test_captured_step.py" in files_with_gpu_tests()


@pytest.mark.slow
def test_runs_on_a_cpu(tmp_path):
    command = ["bash", "benchmarks/gpu_day.sh", "--device", "cpu", "--parts", "capture"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 parts pass." in done.stdout
    (capture,) = json.loads((tmp_path / "work/capture.json").read_text())["results"]
    assert capture["failing_difference"] == capture["after_difference"] == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_half_precision_on_a_cpu():
    (half,) = half_precision.measure(torch.device("cpu"))
    assert 1e-5 < half["logits_ours"] < 0.02


@pytest.mark.slow
def test_profiles_on_a_cpu(monkeypatch):
    monkeypatch.setattr(step_profile, "STEPS", 2)
    results = list(step_profile.measure(torch.device("cpu")))
    assert len(results) == 3
    assert all(result["kernels"] > 100 and 0 < result["gaps"] < 1 for result in results)


def test_what_runs_the_parts_needs_no_package():
    """They may come from --wheels, for the parts alone."""
    code = (
        "import sys; sys.modules.update(torch=None, yacs=None); import benchmarks.gpu_day.__main__"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_card_is_the_first_visible_one(tmp_path):
    program = tmp_path / "nvidia-smi"
    gpus = "".join(
        f"<gpu><product_name>NVIDIA {name}</product_name><uuid>GPU-{name}</uuid></gpu>"
        for name in ("A1", "B2")
    )
    program.write_text(
        f"#!/bin/sh\n[ $1 = -q ] && echo '<nvidia_smi_log>{gpus}</nvidia_smi_log>' || echo 580.1"
    )
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "GPU-B2"}
    facts = day.facts_of("cuda", environment)
    assert facts == {"device": "cuda", "card": "NVIDIA B2", "driver": "580.1"}
    assert day.facts_of("cpu", {}) == {"device": "cpu"}
    failing = day.facts_of("cuda", {**environment, "CUDA_VISIBLE_DEVICES": "GPU-C3"})
    assert failing["card"] == "unknown" and "GPU-C3" in failing["driver"]


def test_a_driver_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(day, "SECONDS_TO_ANSWER", 0.2)
    with pytest.raises(SystemExit, match=r"took over 0.2 s: does nvidia-smi answer\?"):
        day._asked([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
