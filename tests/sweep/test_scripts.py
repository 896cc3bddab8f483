"""The shell scripts keep upstream's names and arguments, and say what they would do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.utils.cli import run_cli
from sweep.cli import main
from sweep.plan.run import ROOT

CASES = {  # script and arguments → lines of the plan
    "coop/main.sh caltech101 rn50_ep50 end 16 1 False": ["caltech101, all classes, 1 shot, seed 3"],
    "coop/eval.sh imagenetv2 rn50_ep50": ["CoOp imagenetv2 (from imagenet), test all classes"],
    "coop/zeroshot.sh eurosat rn50": ["ZeroshotCLIP eurosat, all classes, zero-shot"],
    "cocoop/base2new_train.sh dtd 2": ["1 run:", "CoCoOp dtd, base classes, 16 shots, seed 2"],
    "cocoop/base2new_test.sh dtd 2": ["2 runs", "CoCoOp dtd, test new classes, seed 2"],
    "cocoop/xd_train.sh imagenet 1": ["1 run:", "CoCoOp imagenet, all classes, 16 shots, seed 1"],
    "cocoop/xd_train.sh 1": ["1 run:", "CoCoOp imagenet, all classes, 16 shots, seed 1"],
    "cocoop/xd_test.sh imagenet_r 1": ["1 run:", "CoCoOp imagenet_r (from imagenet), test all"],
    "slurm_array.sh cocoop-2": ["66 runs"],
}


PYTHON = '#!/bin/sh\nprintf \'%s\\n\' "$@" >"$ARGUMENTS"\n'  # notes what it is called with


def call(line: str, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess:
    """Runs a script; what it calls Python with goes to `tmp_path/arguments`, one a line."""
    script, *arguments = line.split()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "DATA": str(tmp_path), "OUTPUT": str(tmp_path / "out")}
    environment |= {"PYTHON": str(tmp_path / "python"), "ARGUMENTS": str(tmp_path / "arguments")}
    command = ["bash", str(ROOT / "scripts" / script), *arguments, *flags]
    return subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("line", CASES)
def test_plan(line: str, tmp_path: Path, capsys):
    result = call(line, tmp_path, "--dry-run")
    assert result.returncode == 0, result.stderr
    option, module, *arguments = (tmp_path / "arguments").read_text().splitlines()
    assert (option, module) == ("-m", "sweep")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for expected in CASES[line]:
        assert expected in shown


@pytest.mark.parametrize("script", [line.split()[0] for line in CASES])
def test_usage(script: str, tmp_path: Path):
    result = call(script, tmp_path)
    assert result.returncode == 2
    assert "usage: " in result.stderr
    assert not (tmp_path / "arguments").exists()


# --- parse_test_res.py ----------------------------------------------------------------------------


def parse(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/parse_test_res.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_parse_has_upstream_s_name_and_usage(tmp_path: Path, capsys):
    for experiment, accuracies in {"exp-1": (80.0, 82.0), "exp-2": (60.0, 60.0)}.items():
        for seed, accuracy in enumerate(accuracies, 1):
            folder = tmp_path / experiment / f"seed{seed}"
            folder.mkdir(parents=True)
            lines = f"seed: {seed}\n=> result\n* total: 100\n* accuracy: {accuracy}%\n"
            (folder / "log.txt").write_text(lines)
    one = parse(str(tmp_path / "exp-1"), "--test-log")
    assert (one.returncode, one.stderr) == (0, "")
    assert "accuracy: 81.00% ± 1.41 over 2 seeds" in one.stdout
    assert main(["parse", str(tmp_path), "--multi-exp", "--test-log"]) == 0
    several = capsys.readouterr().out
    assert "accuracy: 60.00% ± 0.00 over 2 seeds" in several
    assert "average of 2 folders: 70.50%" in several
    assert run_cli(lambda: main(["parse", str(tmp_path / "exp-3")])) == 2
    assert "exp-3 does not exist" in capsys.readouterr().err
