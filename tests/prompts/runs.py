"""Small runs of any method, for what is done with them afterwards."""

from __future__ import annotations

from pathlib import Path

from tests.runs import run

METHODS = {  # trainer → its settings on the embedded CLIP
    "CoOp": (),
    "CoCoOp": (),
    "ZeroshotCLIP": (),
    "ZeroshotCLIP2": (),
    "LinearProbe": (),
    "KgCoOp": (),
    "ProGrad": (),
    "TCP": ("DEPTH", "1", "HIDDEN", "16"),
    "LASP": ("GROUPS", "2"),
    "PLOT": ("N", "3", "N_CTX", "2"),
    "VPT": ("PROMPT_DEPTH_VISION", "3"),
    "IVLP": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2"),
    "MaPLe": ("PROMPT_DEPTH", "2"),
    "PromptSRC": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2", "GPA_MEAN", "2.0"),
    "DePT": (),
    "ProMetaR": ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2"),
}
CSC = ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "2", "TRAINER.COOP.CTX_INIT", "")
FEW = ("DATASET.NUM_SHOTS", "4", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.LR", "0.02")


def train(data: Path, out: Path, trainer: str = "CoOp", *opts: str, epoch: int = 1) -> Path:
    """Trains on five classes of the small EuroSAT tree; returns the folder."""
    keys = METHODS.get(trainer, ())
    own = [f"TRAINER.{trainer.upper()}.{x}" if i % 2 == 0 else x for i, x in enumerate(keys)]
    run(data, out, *FEW, *own, *opts, trainer=trainer, epoch=epoch)
    return out


def pictures(data: Path) -> list[str]:
    """Returns pictures of all classes."""
    return sorted(str(path) for path in (data / "eurosat").rglob("*_1.jpg"))
