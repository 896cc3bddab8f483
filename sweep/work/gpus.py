"""The GPUs of this machine, and which of them the workers of a sweep get.

The driver is asked, by `nvidia-smi`. Asking CUDA for a GPU's free memory would make a context on
it, which takes some of that memory for as long as the sweep lives, and locks out its workers where
a GPU serves one process. Workers get UUIDs: what a number means depends on CUDA_DEVICE_ORDER.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch

from dassl.data.workers import usable_cores
from dassl.utils import ConfigError
from dassl.utils.device import nvidia_smi
from dassl.utils.logger import get_logger

logger = get_logger(__name__)

GIB = 2**30
MEMORY_PER_RUN = 8 * GIB  # CoCoOp on 500 classes of ViT-B/16 peaks below this
LEAST_MEMORY = GIB  # less holds no CLIP beside CUDA's own half a GiB
MOST_RUNS = 4  # on a GPU or a CPU


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of a divided one (MIG).

    Attributes:
        id: what CUDA_VISIBLE_DEVICES takes.
        label: its number in nvidia-smi, and its name.
        free, total: bytes of its memory; None: the driver does not say.
        mode: the driver's compute mode.
        processes: who computes on it: (pid, name of another user, or "" for our own and unknown).
        divided: whether MIG divides it; nothing then computes on it but its instances.
        instances: of a divided one.
    """

    id: str
    label: str
    free: int | None = None
    total: int | None = None
    mode: str = "Default"
    processes: tuple[tuple[int, str], ...] = ()
    divided: bool = False
    instances: tuple[Gpu, ...] = ()

    @property
    def name(self) -> str:
        """What it is, without its number."""
        return re.sub(r"\bGPU \d+ ", "", self.label)

    @property
    def serves_one_process(self) -> bool:
        return self.mode.startswith("Exclusive")

    @property
    def room(self) -> int:
        """How many runs fit beside each other; one at least."""
        if self.free is None or self.serves_one_process:
            return 1
        return max(1, min(MOST_RUNS, self.free // MEMORY_PER_RUN))

    def problem(self) -> str:
        """Returns why no run can be done on it, or ""."""
        if self.mode == "Prohibited":
            return "its compute mode is Prohibited"
        if self.serves_one_process and self.processes:
            return f"it serves one process (compute mode {self.mode}), and {self._whose()}"
        if self.free is not None and self.free < LEAST_MEMORY:
            return "it is full" + (f", and {self._whose()}" if self.processes else "")
        return ""

    def owner(self) -> str:
        """Returns who else computes on it, as a clause, or ""."""
        return self._whose() if any(user for _, user in self.processes) else ""

    def _whose(self) -> str:
        pid, user = max(self.processes, key=lambda process: process[1])
        return f"process {pid}{' of user ' + user if user else ''} computes on it"

    def __str__(self) -> str:
        if self.free is None or self.total is None:
            return self.label
        return f"{self.label} ({self.free / GIB:.1f} of {self.total / GIB:.1f} GiB free)"


@dataclass(frozen=True)
class Places:
    """Where the runs of a sweep are done at the same time.

    Attributes:
        names: CUDA_VISIBLE_DEVICES of each run that fits; "" is the CPU.
        shared: of those that more runs can be put on, if more are asked for.
    """

    names: tuple[str, ...]
    shared: tuple[str, ...]

    def for_jobs(self, jobs: int) -> list[str]:
        """Returns the places of `jobs` runs; GPUs that serve one process get no second one.

        Raises:
            ConfigError: there are fewer.
        """
        more = jobs - len(self.names)
        if more > 0 and not self.shared:
            raise ConfigError(
                f"--jobs {jobs}: the GPUs serve one process each (compute mode "
                f"Exclusive_Process), and there are {len(self.names)}: type --jobs "
                f"{len(self.names)}, or leave it out"
            )
        return [*self.names, *(self.shared[i % len(self.shared)] for i in range(more))][:jobs]


# --- which GPUs -----------------------------------------------------------------------------------


def find_places(devices: str | None, use_cuda: bool = True) -> Places:
    """Returns where runs are done.

    Args:
        devices: as of `--devices`; None: GPUs on which nobody else computes, or the CPU.
        use_cuda: False: on the CPU.

    Raises:
        ConfigError: what is asked for is not there, full, or somebody else's.
    """
    on_cpu = devices is not None and devices.strip() == "cpu"
    if not use_cuda and devices is not None and not on_cpu:
        raise ConfigError(
            f"--devices is {devices!r}, but USE_CUDA False uses no GPU: leave out one of them"
        )
    gpus = [] if on_cpu or not use_cuda else _chosen(devices)
    if not gpus:
        runs = min(MOST_RUNS, usable_cores())
        return Places(("",) * runs, ("",))
    turns = [gpu for turn in range(MOST_RUNS) for gpu in gpus if turn < gpu.room]
    shared = tuple(gpu.id for gpu in gpus if not gpu.serves_one_process)
    return Places(tuple(gpu.id for gpu in turns), shared)


def _chosen(devices: str | None) -> list[Gpu]:
    if torch.version.cuda is None and torch.version.hip is None:  # a PyTorch for CPUs
        if devices is None:
            return []
        raise ConfigError(
            f"--devices is {devices!r}, but this PyTorch ({torch.__version__}) is one for CPUs: "
            "leave it out, or install one for GPUs (https://pytorch.org/get-started/locally)"
        )
    visible = visible_gpus()
    if devices is not None:
        chosen = _read("--devices", devices, visible)
        for gpu in chosen:
            if problem := gpu.problem():
                others = [other for other in _leaves(visible) if not other.problem()]
                raise ConfigError(
                    f"--devices is {devices!r}, and {gpu} cannot be used: {problem}; "
                    f"{_what_to_type(others, visible)}"
                )
        return chosen
    gpus = _leaves(visible)
    free = [gpu for gpu in gpus if not gpu.problem() and not gpu.owner()]
    if gpus and not free:
        why = "; ".join(f"{gpu}: {gpu.problem() or gpu.owner()}" for gpu in gpus)
        shareable = [gpu for gpu in gpus if not gpu.problem()]
        raise ConfigError(f"no GPU is free ({why}); {_what_to_type(shareable, visible)}")
    roomy = [gpu for gpu in free if gpu.free is None or gpu.free >= MEMORY_PER_RUN]
    return roomy or free


def visible_gpus() -> list[Gpu]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order.

    Raises:
        ConfigError: it names some that are not there; CUDA would leave out the rest silently.
    """
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = installed_gpus()
    if gpus is None:
        return _gpus_of_torch(variable)
    if variable is None:
        return gpus
    names = [name.strip() for name in variable.split(",")]
    end = next((i for i, name in enumerate(names) if name in ("-1", "NoDevFiles")), len(names))
    if not any(names[:end]):
        return []
    ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not ordered and len({gpu.label.split(maxsplit=2)[-1] for gpu in gpus}) > 1:
        _require_no_numbers(variable, names[:end], gpus)
    return _read("CUDA_VISIBLE_DEVICES", ",".join(names[:end]), gpus)


def first_gpu() -> Gpu:
    """Returns the one that a single process computes on; raises ConfigError where there is none."""
    for gpu in _leaves(visible_gpus()):
        return gpu
    raise ConfigError("no GPU is visible")


def _require_no_numbers(variable: str, names: Sequence[str], gpus: Sequence[Gpu]) -> None:
    if any(name.isdecimal() for name in names):
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES is {variable!r}, and which of these different GPUs that is "
            f"depends on CUDA_DEVICE_ORDER, which is not set: {_listed(gpus)}; type "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID before the command, with the numbers of nvidia-smi"
        )


def _read(source: str, text: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Returns the GPUs of a list: numbers, cuda:N, UUIDs or their beginnings.

    Args:
        source: what the list is called.
        text: the list.
        gpus: what is there, in the order that numbers refer to.
    """
    names = [name for name in re.split(r"[,\s]+", text) if name]
    problem = "" if names else "it names no GPU"
    chosen: list[Gpu] = []
    for name in names:
        gpu, problem = _find(name, gpus)
        if gpu in chosen:
            problem = f"{gpu} is in it twice; --jobs says how many runs are done at once"
        if problem:
            break
        chosen.append(gpu)
    if not problem:
        return chosen
    raise ConfigError(
        f"{source} is {text!r}, and {problem}; {_what_to_type(_leaves(gpus), gpus, source)}"
    )


def _find(name: str, gpus: Sequence[Gpu]) -> tuple[Gpu | None, str]:
    """Returns the GPU that a name stands for, or what is wrong with the name."""
    number = re.fullmatch(r"(?:cuda:)?([0-9]{1,9})", name)
    if number:
        found = list(gpus[int(number[1]) :][:1])
    elif name[:4].upper() in ("GPU-", "MIG-"):
        known = [*gpus, *(one for gpu in gpus for one in gpu.instances)]
        found = [gpu for gpu in known if gpu.id.lower().startswith(name.lower())]
    elif name == "cpu":
        return None, "the CPU and GPUs cannot be mixed"
    else:
        return None, f"{name!r} is neither a number nor a UUID"
    if len(found) > 1:
        return None, f"{name} is the beginning of {len(found)} UUIDs"
    if not found:
        return None, f"there is no GPU {name}"
    if found[0].divided:
        return None, f"{found[0].label} is divided (MIG), and only its instances can be used"
    return found[0], ""


def _leaves(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Returns what can be computed on: GPUs that are not divided, and instances of the others."""
    return [one for gpu in gpus for one in (gpu.instances if gpu.divided else (gpu,))]


def _what_to_type(good: Sequence[Gpu], gpus: Sequence[Gpu], source: str = "--devices") -> str:
    """Returns the end of a sentence: what is there, and how to ask for it."""
    cpu = "--devices cpu" if source == "--devices" else "CUDA_VISIBLE_DEVICES= for the CPU"
    if not good:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = (
            ""
            if hidden is None or source != "--devices"
            else (f" (CUDA_VISIBLE_DEVICES is {hidden!r})")
        )
        return f"no GPU is there that can be used{why}: type {cpu}, or leave it out"
    tops = list(gpus)
    names = [str(tops.index(gpu)) if gpu in tops else gpu.id for gpu in good]
    there = ", ".join(f"{name} = {gpu}" for name, gpu in zip(names, good))
    sign = " " if source == "--devices" else "="
    return f"there are {there}: type {source}{sign}{','.join(names)} or some of them, or {cpu}"


def _listed(gpus: Sequence[Gpu]) -> str:
    return "; ".join(map(str, gpus))


# --- what the driver says -------------------------------------------------------------------------


def installed_gpus() -> list[Gpu] | None:
    """Returns all GPUs in the order of the bus, as the driver knows them; None: it is not asked."""
    report = nvidia_smi("-q", "-x")
    if report is None:
        return None
    try:
        nodes = list(ElementTree.fromstring(report).iter("gpu"))
    except ElementTree.ParseError as error:
        logger.warning(f"Note: the answer of nvidia-smi cannot be read: {error}")
        return None
    divided = any(node.find("mig_devices/mig_device") is not None for node in nodes)
    listing = (nvidia_smi("-L") or "") if divided else ""
    instances = re.split(r"(?m)^GPU \d+:", listing)[1:]
    return [
        _gpu(number, node, instances[number] if number < len(instances) else "")
        for number, node in enumerate(nodes)
    ]


def _gpu(number: int, node: ElementTree.Element, listing: str) -> Gpu:
    """Returns what nvidia-smi reports of a GPU.

    Args:
        number: of the GPU.
        node: of `nvidia-smi -q -x`, which names no UUID of an instance.
        listing: its lines of `nvidia-smi -L`, which names them.
    """
    label = f"GPU {number} {node.findtext('product_name', 'of unknown name').strip()}"
    lines = re.findall(r"MIG (\S+)\s+Device\s+(\d+): \(UUID: ([^)\s]+)\)", listing)
    uuids = {int(device): (profile, uuid) for profile, device, uuid in lines}
    mode = node.findtext("compute_mode", "Default").strip()
    instances = []
    for one in node.findall("mig_devices/mig_device"):
        profile, uuid = uuids.get(int(one.findtext("index", "-1")), ("", ""))
        if uuid:
            part = f"instance {profile} of {label}"
            own = _processes(node, _instance(one))
            instances.append(Gpu(uuid, part, *_memory(one), mode, own))
    divided = node.findtext("mig_mode/current_mig", "").strip() == "Enabled"
    uuid = node.findtext("uuid", str(number)).strip()
    processes = _processes(node, None)
    return Gpu(uuid, label, *_memory(node), mode, processes, divided, tuple(instances))


def _memory(node: ElementTree.Element) -> tuple[int | None, int | None]:
    """Returns free and total memory; None where it says "N/A"."""
    sizes = []
    for key in ("free", "total"):
        said = re.match(r"\s*(\d+) MiB", node.findtext(f"fb_memory_usage/{key}", ""))
        sizes.append(int(said[1]) * 2**20 if said else None)
    return sizes[0], sizes[1]


def _instance(node: ElementTree.Element) -> tuple[str, str]:
    return node.findtext("gpu_instance_id", ""), node.findtext("compute_instance_id", "")


def _processes(
    gpu: ElementTree.Element, instance: tuple[str, str] | None
) -> tuple[tuple[int, str], ...]:
    """Returns who computes on a GPU, or on an instance of it."""
    return tuple(
        (int(pid), _other_user(pid))
        for node in gpu.findall("processes/process_info")
        if "C" in node.findtext("type", "") and instance in (None, _instance(node))
        if (pid := node.findtext("pid", "").strip()).isdecimal()
    )


def _other_user(pid: str) -> str:
    """Returns the name of a process' user; "" if it is us, or if nobody knows."""
    try:
        status = Path(f"/proc/{pid}").stat()
        if status.st_uid == os.getuid():
            return ""
        return Path(f"/proc/{pid}").owner()
    except OSError:
        return ""
    except KeyError:  # a number without a name
        return str(status.st_uid)


def _gpus_of_torch(variable: str | None) -> list[Gpu]:
    """Returns what torch counts, which makes no context; how much memory is free is unknown."""
    count = torch.cuda.device_count()
    names = variable.split(",") if variable else map(str, range(count))
    return [Gpu(name.strip(), f"GPU {name.strip()}") for name, _ in zip(names, range(count))]
