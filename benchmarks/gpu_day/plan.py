"""The parts of the day, the most valuable first: their commands, and the time each may take."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

ON_GPU = "--device cuda --precision fp16"
STEPS = [
    *(f"step CoCoOp {n} b{b}" for n in (5, 50, 100, 500, 1000) for b in (1, 4)),
    *(f"step CoOp {n} b32" for n in (5, 50, 100, 500, 1000)),
]
FAMILY = [f"step {method} {n} b4" for method in ("MaPLe", "PromptSRC", "ProMetaR") for n in (5, 50)]


@dataclass(frozen=True)
class Part:
    """A program that writes a JSON file with "results".

    Attributes:
        name: of the file, and in `--parts`.
        what: it measures.
        minutes: after which it is stopped, on a GPU.
        cuda: its arguments on a GPU; the file is added to them.
        cpu: those on a CPU, small: they show that the program runs, and nothing about speed.
    """

    name: str
    what: str
    minutes: float
    cuda: str
    cpu: str

    def arguments(self, device: str) -> list[str]:
        """Returns what Python is called with."""
        return shlex.split(self.cuda if device == "cuda" else self.cpu)


def _own(name: str, what: str, minutes: float, module: str) -> Part:
    command = f"-m benchmarks.gpu_day.{module} --device"
    return Part(name, what, minutes, f"{command} cuda", f"{command} cpu")


# In the order of their worth. Their minutes add up to less than 25, and none has 9.
PARTS = (
    _own("machine", "card, versions, switches, kernels chosen, rates", 1, "facts"),
    _own("capture", "a step that cannot be recorded, and the run after it", 1.5, "capture"),
    Part(
        "text",
        "training steps beside the papers' formula, with the bars of time and memory",
        2.5,
        f"benchmarks/text_encoding.py {ON_GPU} --seconds 2 --only {shlex.join(STEPS)}",
        "benchmarks/text_encoding.py --tiny --seconds 0 --only 'step CoCoOp 5 b4'",
    ),
    _own("homework", "the whole homework, graphs on and off", 2.5, "homework"),
    _own("half", "fp16 against float64, ours beside the public path", 1.5, "half_precision"),
    _own("profile", "kernels a step, gaps, the ten longest kernels", 2, "step_profile"),
    _own("tests", "pytest -m gpu", 3, "gpu_tests"),
    Part(
        "family",
        "training steps of other methods beside the same written plainly",
        2,
        f"benchmarks/family.py {ON_GPU} --seconds 1 --only {shlex.join(FAMILY)}",
        "benchmarks/family.py --tiny --seconds 0 --only 'step MaPLe 5 b4'",
    ),
    _own("jobs", "the other whole jobs, graphs on and off", 3.5, "jobs"),
    Part(
        "image",
        "image encoder at 32 and 256 images",
        1,
        f"benchmarks/image_encoding.py {ON_GPU} --seconds 5 --batches 32 256 "
        "--backbones ViT-B/16 RN50",
        "benchmarks/image_encoding.py --seconds 0 --batches 1 --backbones ViT-B/32",
    ),
    _own("sweep", "the digits with four workers: twice, and by UUID", 2.5, "digits"),
    Part(
        "loaders",
        "images a second that reach a model",
        1.5,
        "benchmarks/loading.py --workers 8 --rounds 3 --device cuda",
        "benchmarks/loading.py --workers 0 --rounds 1 --train-images 32 --test-images 32",
    ),
)
MINUTES_ON_A_CPU = 9.0  # of each part


def named(names: str) -> tuple[Part, ...]:
    """Returns the parts of a list such as "text,jobs", in the order of their worth.

    Raises:
        ValueError: there is no such part.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [part.name for part in PARTS]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        given = ", ".join(unknown) or "nothing"
        raise ValueError(f"--parts names {given}; there are {', '.join(known)}")
    return tuple(part for part in PARTS if part.name in wanted)
