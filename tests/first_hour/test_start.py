"""What stands in the way of the very first command is told in one sentence, with exit code 2."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dassl.start
import dassl.stop
import train
from dassl.utils import ConfigError
from tests.runs import ROOT

FIRST = (
    *("train.py", "predict.py", "sweep/__main__.py", "prompts/__init__.py"),
    *(f"dassl/{name}.py" for name in ("__init__", "command", "start", "stop")),
)


def call(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, words)]
    where = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=where, capture_output=True, text=True, timeout=120)


def test_train_alone_shows_an_example():
    with pytest.raises(ConfigError, match="nothing says what to train") as error:
        train.setup_cfg(train.build_parser().parse_args([]))
    lines = str(error.value).replace(" \\\n", " ").splitlines()
    words = next(line for line in lines if "train.py" in line).split()
    assert words[:2] == ["python", "train.py"]
    cfg = train.setup_cfg(train.build_parser().parse_args(words[2:]))
    assert (cfg.TRAINER.NAME, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS) == ("CoOp", "Digits", 16)


@pytest.mark.parametrize("file", FIRST)
def test_an_old_python_can_read_what_tells_that_it_is_old(file: str):
    ast.parse((ROOT / file).read_text(encoding="utf-8"), file, feature_version=(3, 7))


def test_an_old_python(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    with pytest.raises(SystemExit) as stop:
        dassl.start.require_python_and_packages()
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert "is Python 3.8; Python 3.10 or newer is needed" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("program", ["-m", "train.py", "scripts/demo.py", "sweep/__main__.py"])
def test_packages_that_are_lacking(program: str, monkeypatch, capsys):
    found = dassl.start.find_spec
    monkeypatch.setattr(
        dassl.start, "find_spec", lambda name: (found(name) and name != "PIL") or None
    )
    monkeypatch.setattr(sys, "argv", ["-m" if program == "-m" else str(ROOT / program)])
    with pytest.raises(SystemExit) as stop:
        dassl.start.require_python_and_packages()
    assert stop.value.code == 2
    assert "lacks pillow: pip install -r requirements.txt" in capsys.readouterr().err


def test_a_library_does_not_end_its_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/ipykernel_launcher.py"])
    with pytest.raises(ImportError, match="no such thing"):
        dassl.stop.stop("no such thing")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["trainers/coop.py", "datasets/eurosat.py"])
def test_a_file_that_is_no_program(file: str):
    done = call(file)
    assert done.returncode == 2
    assert f"{file} is no program" in done.stderr and "python train.py" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_package_called_clip(tmp_path: Path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/__init__.py").write_text("def copy(text): ...\n")
    done = call("train.py", "--trainer", "CoOp", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, "no consequences"
    assert f"clip in {tmp_path / 'clip'} is another program than OpenAI's CLIP" in done.stderr
    assert "pip uninstall -y clip && pip install" in done.stderr


@pytest.mark.slow
def test_a_pipe_that_closes():
    code = (
        "from dassl.utils.cli import run_cli\n"
        "while not (code := run_cli(lambda: print('x' * 9999))): pass\n"
        "raise SystemExit(code)"
    )
    reader = [sys.executable, "-c", "import sys; sys.stdin.read(1)"]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        subprocess.run(reader, stdin=writer.stdout, timeout=60, check=True)
        writer.stdout.close()
        assert (writer.wait(60), writer.stderr.read()) == (141, "")


# --- from anywhere --------------------------------------------------------------------------------

COMMAND = ROOT / "scripts/installed/promptlearn.py"


def test_promptlearn_lists_its_commands(tmp_path: Path):
    done = call(COMMAND, cwd=tmp_path)
    assert done.returncode == 2
    for name in ("train", "predict", "sweep", "data", "features"):
        assert name in done.stdout
    assert call(COMMAND, "--help", cwd=tmp_path).returncode == 0


def test_promptlearn_with_an_unknown_command(tmp_path: Path):
    done = call(COMMAND, "tran", cwd=tmp_path)
    assert (done.returncode, "no command 'tran'" in done.stderr) == (2, True)


def test_promptlearn_copied_away(tmp_path: Path):
    copy = tmp_path / "site-packages" / COMMAND.name
    copy.parent.mkdir()
    copy.write_bytes(COMMAND.read_bytes())
    done = call(copy, cwd=tmp_path)
    assert "pip install -e" in done.stderr and done.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("train",), 2, "promptlearn train --root data"),
        (("sweep", "status", "--output", "none"), 0, "No sweep was started in none"),
        (("data", "list"), 0, "EuroSAT"),
    ],
)
def test_promptlearn_from_elsewhere(words: tuple, code: int, said: str, tmp_path: Path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("raise ImportError('somebody else')\n")
    done = call(COMMAND, *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.slow
def test_one_line_in_a_notebook(tmp_path: Path):
    code = "import promptlearn; from train import main; import datasets; print(datasets.__file__)"
    done = call("-c", code, cwd=tmp_path, PYTHONPATH=str(COMMAND.parent))
    assert done.stdout.strip() == str(ROOT / "datasets/__init__.py"), done.stderr
