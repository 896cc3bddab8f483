"""Which GPUs the workers get; the driver's answer is made up, and no GPU is needed to see it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dassl.utils import ConfigError
from sweep.cli import build_parser, main, places_for
from sweep.work import gpus, local
from sweep.work.execute import Outcome
from sweep.work.gpus import find_places
from sweep.work.local import LocalExecutor

A, B, C = "GPU-aaaaaaaa-1", "GPU-bbbbbbbb-2", "GPU-cccccccc-3"
M, N = "MIG-11111111-a", "MIG-22222222-b"
OTHER = 4_000_001  # processes that are not there, whose owners the tests make up
CORES = 3


def process(pid: int, kind: str = "C", instance: str = "N/A") -> str:
    return f"""<process_info><gpu_instance_id>{instance}</gpu_instance_id>
        <compute_instance_id>{instance if instance == "N/A" else 0}</compute_instance_id>
        <pid>{pid}</pid><type>{kind}</type></process_info>"""


def memory(free: object, total: object) -> str:
    unit = "" if free == "N/A" else " MiB"
    return f"""<fb_memory_usage><total>{total}{unit}</total><used>1 MiB</used>
        <free>{free}{unit}</free></fb_memory_usage>"""


def gpu(
    uuid: str,
    free: object = 80_000,
    *,
    name: str = "NVIDIA A100",
    mode: str = "Default",
    processes: str = "",
    instances: tuple[int, ...] = (),
) -> str:
    """A GPU in the driver's words; `instances` are free MiB."""
    parts = "".join(
        f"<mig_device><index>{i}</index><gpu_instance_id>{i + 3}</gpu_instance_id>"
        f"<compute_instance_id>0</compute_instance_id>{memory(size, 20_000)}</mig_device>"
        for i, size in enumerate(instances)
    )
    return f"""<gpu id="x"><product_name>{name}</product_name><uuid>{uuid}</uuid>
        <mig_mode><current_mig>{"Enabled" if instances else "N/A"}</current_mig></mig_mode>
        <mig_devices>{parts or "None"}</mig_devices>
        {memory("N/A" if instances else free, "N/A" if free == "N/A" else 81_920)}
        <compute_mode>{mode}</compute_mode><processes>{processes}</processes></gpu>"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the path that knows the given GPUs; CUDA itself may not be used."""

    def answer(*known: str, listing: str = "") -> None:
        head = '<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">'
        report = f"{head}<nvidia_smi_log>{''.join(known)}</nvidia_smi_log>"
        (tmp_path / "report").write_text(report)
        (tmp_path / "listing").write_text(listing)
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\n[ "$1" = -L ] && exec cat {tmp_path}/listing\ncat {tmp_path}/report'
        )
        program.chmod(0o755)

    def use(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("CUDA was used")

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("_lazy_init", "init", "is_available", "device_count", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, use)
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(gpus, "usable_cores", lambda: CORES)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    known = gpus._other_user
    monkeypatch.setattr(
        gpus, "_other_user", lambda pid: "anna" if int(pid) == OTHER else known(pid)
    )
    return answer


@pytest.fixture
def divided(driver):
    """A whole GPU, and one of two instances."""
    listing = (
        f"GPU 0: NVIDIA A100 (UUID: {A})\nGPU 1: NVIDIA A100 (UUID: {B})\n"
        f"  MIG 3g.20gb     Device  0: (UUID: {M})\n  MIG 3g.20gb     Device  1: (UUID: {N})\n"
    )
    driver(gpu(A, 8_200), gpu(B, instances=(17_000, 9_000)), listing=listing)


def refusal(devices: str | None) -> str:
    with pytest.raises(ConfigError) as caught:
        find_places(devices)
    (sentence,) = str(caught.value).splitlines()
    return sentence


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["0,2", "0,2,", " 0 , 2 ", "0 2", "cuda:0,cuda:2", f"{A},{C}"])
def test_lists(driver, given):
    """Numbers, with blanks or a comma too much, as torch writes them, UUIDs, their beginnings."""
    driver(gpu(A), gpu(B), gpu(C, 17_000))
    expected = (A, C, A, C, A, A)  # they take turns; one for each 8 GiB, four at most
    assert find_places(given).names == expected
    assert find_places("GPU-aa,gpu-CCCC").names == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("0,9", "there is no GPU 9"),
        ("-1", "'-1' is neither a number nor a UUID"),
        ("", "it names no GPU"),
        (" , ", "it names no GPU"),
        ("0,0", "GPU 0 NVIDIA A100 (78.1 of 80.0 GiB free) is in it twice; --jobs"),
        (f"0,{A}", "is in it twice"),
        ("cpu,0", "the CPU and GPUs cannot be mixed"),
        ("0,cpu", "the CPU and GPUs cannot be mixed"),
        ("GPU-dd", "there is no GPU GPU-dd"),
        ("GPU-", "is the beginning of 2 UUIDs"),
        ("cuda", "'cuda' is neither a number nor a UUID"),
        ("1.0", "'1.0' is neither"),
        ("１", "'１' is neither"),
        ("99999999999999999999", "is neither"),
        ("0;1", "'0;1' is neither"),
    ],
)
def test_wrong_lists(driver, given, problem):
    driver(gpu(A), gpu(B))
    sentence = refusal(given)
    assert sentence.startswith(f"--devices is {given!r}, and ") and problem in sentence
    assert "there are 0 = GPU 0 NVIDIA A100 (78.1 of 80.0 GiB free), 1 = GPU 1" in sentence
    assert sentence.endswith("type --devices 0,1 or some of them, or --devices cpu")


def test_no_gpu_is_there(driver, monkeypatch):
    driver()
    assert find_places(None).names == find_places("cpu").names == ("",) * CORES
    wanted = "there is no GPU 0; no GPU is there that can be used: type --devices cpu, or leave"
    assert wanted in refusal("0")
    driver(gpu(A))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_places(None).names == ("",) * CORES
    assert "that can be used (CUDA_VISIBLE_DEVICES is '')" in refusal("0")


def test_the_cpu(driver):
    driver(gpu(A))
    assert find_places("cpu").names == find_places(None, use_cuda=False).names == ("",) * CORES
    with pytest.raises(ConfigError, match="USE_CUDA False uses no GPU"):
        find_places("0", use_cuda=False)


def test_instances(divided):
    assert find_places(None).names == (A, M, N, M)
    assert find_places(f"{M},{N}").names == (M, N, M)
    assert find_places(f"{N}").names == (N,)
    sentence = refusal("1")
    assert "GPU 1 NVIDIA A100 is divided (MIG), and only its instances can be used" in sentence
    assert f"{M} = instance 3g.20gb of GPU 1 NVIDIA A100 (16.6 of 19.5 GiB free)" in sentence
    assert f"type --devices 0,{M},{N} or some" in sentence
    assert "divided" in refusal(B)


# --- CUDA_VISIBLE_DEVICES -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "all_of_them", "first"),
    [
        ("2,0", (C, A), C),
        ("2,0,", (C, A), C),
        (f"{B},{C}", (B, C), B),
        ("GPU-b", (B,), B),
        ("1,-1,0", (B,), B),  # what CUDA makes of it
        ("-1", None, None),
        ("NoDevFiles", None, None),
        (" ", None, None),
    ],
)
def test_numbers_count_what_is_visible(driver, monkeypatch, variable, all_of_them, first):
    driver(gpu(A, 9_000), gpu(B, 9_000), gpu(C, 9_000))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert find_places(None).names == (all_of_them or ("",) * CORES)
    if first:
        assert find_places("0").names == (first,)
    hidden = ({A, B, C} - set(all_of_them or ())).pop()
    assert f"there is no GPU {hidden}" in refusal(hidden)


@pytest.mark.parametrize("variable", ["0,9", "0,0", "GPU-dd", "all", "0,MIG-3"])
def test_wrong_variables(driver, monkeypatch, variable):
    """CUDA leaves out what follows a wrong name, without a word."""
    driver(gpu(A), gpu(B))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    sentence = refusal(None)
    assert sentence.startswith(f"CUDA_VISIBLE_DEVICES is {variable!r}, and ")
    assert "type CUDA_VISIBLE_DEVICES=0,1 or some of them, or CUDA_VISIBLE_DEVICES= " in sentence


def test_instances_are_visible(divided, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{N},{M}")
    assert find_places("0").names == (N,)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "is divided" in refusal(None)


def test_numbers_of_different_gpus(driver, monkeypatch):
    """By default CUDA begins with the fastest one, nvidia-smi with the first on the bus."""
    driver(gpu(A, name="NVIDIA T4"), gpu(B, 9_000))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "type CUDA_DEVICE_ORDER=PCI_BUS_ID before the command" in refusal(None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert find_places(None).names == (B,)
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", B)
    assert find_places(None).names == (B,)


# --- full, or somebody else's ---------------------------------------------------------------------


def test_room_follows_the_free_memory(driver):
    driver(gpu(A, 9_000), gpu(B, 40_000), gpu(C, "N/A"))
    assert find_places(None).names == (A, B, C, B, B, B)
    driver(gpu(A, 5_000), gpu(B, 9_000))
    assert find_places(None).names == (B,)  # A is nearly full
    assert find_places("0,1").names == (A, B)
    driver(gpu(A, 5_000), gpu(B, 6_000))
    assert find_places(None).names == (A, B)  # small ones


def test_a_full_one(driver):
    driver(gpu(A, 300, processes=process(OTHER)), gpu(B, 9_000))
    assert find_places(None).names == (B,)
    sentence = refusal("1,0")
    assert "GPU 0 NVIDIA A100 (0.3 of 80.0 GiB free) cannot be used: it is full" in sentence
    assert f"and process {OTHER} of user anna computes on it" in sentence
    assert sentence.endswith(
        "(8.8 of 80.0 GiB free): type --devices 1 or some of them, or --devices cpu"
    )


def test_somebody_elses(driver):
    """It is used by whoever asks for it, and by nobody else; ours is ours."""
    driver(gpu(A, 70_000, processes=process(OTHER)), gpu(B, 9_000, processes=process(os.getpid())))
    assert find_places(None).names == (B,)
    assert find_places("0").names == (A,) * 4
    driver(gpu(A, 70_000, processes=process(os.getpid()) + process(OTHER)))
    sentence = refusal(None)
    assert sentence.startswith(
        "no GPU is free (GPU 0 NVIDIA A100 (68.4 of 80.0 GiB free): process "
    )
    assert f"{OTHER} of user anna" in sentence
    assert "type --devices 0 or some of them, or --devices cpu" in sentence
    driver(gpu(A, 70_000, processes=process(OTHER, "G")))  # a desktop
    assert find_places(None).names == (A,) * 4


def test_an_instance_of_somebody_else(driver):
    listing = f"GPU 0: X (UUID: {A})\n  MIG 1g.5gb  Device  0: (UUID: {M})\n"
    listing += f"  MIG 1g.5gb  Device  1: (UUID: {N})\n"
    taken = process(OTHER, instance="4")
    driver(gpu(A, instances=(9_000, 9_000), processes=taken), listing=listing)
    assert find_places(None).names == (M,)


@pytest.mark.parametrize("mode", ["Exclusive_Process", "Exclusive_Thread"])
def test_one_process_at_a_time(driver, mode):
    driver(gpu(A, mode=mode))
    places = find_places(None)
    assert places.names == (A,)
    with pytest.raises(ConfigError, match="--jobs 2: the GPUs serve one process each"):
        places.for_jobs(2)
    driver(gpu(A, mode=mode), gpu(B, 9_000))
    assert find_places(None).for_jobs(4) == [A, B, B, B]
    driver(gpu(A, mode=mode, processes=process(os.getpid())), gpu(B, 9_000))
    assert find_places(None).names == (B,)
    assert "it serves one process (compute mode" in refusal("0")


def test_prohibited(driver):
    driver(gpu(A, mode="Prohibited"))
    assert "its compute mode is Prohibited" in refusal("0")
    assert "its compute mode is Prohibited" in refusal(None)


# --- without the driver's answer ------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["", "<nvidia_smi_log>", "failed"])
def test_torch_counts_where_nvidia_smi_does_not_answer(driver, monkeypatch, tmp_path, answer):
    """It is not installed, says nonsense, or fails: one run a GPU, as nothing is known of them."""
    if answer:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{answer}'; exit {len(answer) % 2}")
        (tmp_path / "nvidia-smi").chmod(0o755)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_places(None).names == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert find_places("1").names == ("7",)
    assert "there is no GPU 2" in refusal("2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,9")
    assert find_places(None).names == ("0",)


def test_a_pytorch_for_cpus_uses_none(driver, monkeypatch):
    driver(gpu(A), gpu(B))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert find_places(None).names == ("",) * CORES
    assert "is one for CPUs: leave it out, or install one for GPUs" in refusal("0")


def test_the_first_one(divided, monkeypatch):
    assert (gpus.first_gpu().id, gpus.first_gpu().name) == (A, "NVIDIA A100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", N)
    assert gpus.first_gpu().id == N and gpus.first_gpu().name == "instance 3g.20gb of NVIDIA A100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no GPU is visible"):
        gpus.first_gpu()


# --- the sweep ------------------------------------------------------------------------------------


def test_a_worker_sees_its_own_gpu_alone(monkeypatch):
    seen = []

    def popen(command, env, **_):
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        read, _write = os.pipe()
        return SimpleNamespace(stdin=io.StringIO(), stdout=os.fdopen(read))

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(local, "encode", lambda job: "job\n")
    executor = LocalExecutor(3, 1, (A, ""))
    for number in range(3):
        executor.submit(number)
    assert seen == [A, "", A]
    assert executor.free == 0


def arguments(*flags: str):
    return build_parser().parse_args(["run", "base2new", *flags])


def test_flags(driver):
    driver(gpu(A))
    assert places_for(arguments("--devices", "cpu")).names == ("",) * CORES
    assert places_for(arguments("--opts", "USE_CUDA", "False")).names == ("",) * CORES
    assert arguments("--devices", "-1").devices == "-1"
    with pytest.raises(ConfigError, match="Ray deals out the GPUs itself"):
        places_for(arguments("--devices", "0", "--executor", "ray"))


def test_a_whole_sweep_uses_no_cuda_itself(driver, tmp_path, monkeypatch):
    """Planning, and running with workers that only answer; what they would see is in the record."""
    driver(gpu(A, 9_000), gpu(B, 9_000))
    answer = json.dumps(asdict(Outcome("done", 90.0, 1.0)))
    seen = tmp_path / "seen"
    script = (
        f"import os, sys\nfor line in sys.stdin:\n"
        f"    print(os.environ['CUDA_VISIBLE_DEVICES'], file=open({str(seen)!r}, 'a'))\n"
        f"    print({answer!r}, flush=True)"
    )
    popen = subprocess.Popen

    def start(command, **settings):
        worker = "sweep.work.worker" in command
        return popen([command[0], "-c", script] if worker else command, **settings)

    monkeypatch.setattr(subprocess, "Popen", start)
    flags = ["--trainers", "CoOp", "--datasets", "digits", "--seeds", "1", "--root", str(tmp_path)]
    assert main(["run", "base2new", *flags, "--output", str(tmp_path / "out")]) == 0
    assert set(Path(seen).read_text().split()) <= {A, B}


@pytest.mark.gpu
def test_a_real_driver():
    """It knows about as much memory as CUDA, and a process sees the GPU by its UUID."""
    torch.zeros(1, device="cuda")
    found = gpus.visible_gpus()
    assert len(found) == torch.cuda.device_count()
    free, total = torch.cuda.mem_get_info(0)
    first = gpus._leaves(found)[0]
    assert abs(first.total - total) < gpus.GIB and abs(first.free - free) < 2 * gpus.GIB
    script = "import torch; print(torch.cuda.device_count(), torch.zeros(1).cuda().item())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": first.id}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["1", "0.0"], done.stderr
