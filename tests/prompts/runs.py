"""Small runs of any method, for what is done with them afterwards."""

from __future__ import annotations

from pathlib import Path

from tests.runs import run

DEEP = ("PROMPT_DEPTH_VISION", "3", "PROMPT_DEPTH_TEXT", "2")
CSC = ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "2", "TRAINER.COOP.CTX_INIT", "")
# Trainer, or trainer and what is particular → its settings on the embedded CLIP.
METHODS = {
    "CoOp": (),
    "CoOp, class-specific": CSC,
    "CoOp, name in the middle": (
        *("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"),
        *("TRAINER.COOP.N_CTX", "3", "TRAINER.COOP.CTX_INIT", ""),
    ),
    "CoCoOp": (),
    "ZeroshotCLIP": (),
    "ZeroshotCLIP2": (),
    "LinearProbe": (),
    "KgCoOp": (),
    "ProGrad": (),
    "TCP": ("TRAINER.TCP.DEPTH", "1", "TRAINER.TCP.HIDDEN", "16"),
    "LASP": ("TRAINER.LASP.GROUPS", "2"),
    "LASP, as it is": ("TRAINER.LASP.ENABLE_CORRECTION", "False"),
    "PLOT": ("TRAINER.PLOT.N", "3", "TRAINER.PLOT.N_CTX", "2", "TRAINER.PLOT.MAX_ITER", "3"),
    "PLOT, one prompt": ("TRAINER.PLOT.N", "1", "TRAINER.PLOT.CTX_INIT", "a photo of a"),
    "VPT": ("TRAINER.VPT.PROMPT_DEPTH_VISION", "3"),
    "IVLP": DEEP,
    "IVLP, text alone": ("PROMPT_DEPTH_VISION", "0", "PROMPT_DEPTH_TEXT", "2"),
    "MaPLe": ("TRAINER.MAPLE.PROMPT_DEPTH", "2"),
    "PromptSRC": (*DEEP, "GPA_MEAN", "2.0"),
    "DePT": (),
    "DePT, class-specific": CSC,
    "DePT, on IVLP": (
        *("TRAINER.DEPT.BASE", "IVLP"),
        *("TRAINER.IVLP.PROMPT_DEPTH_VISION", "3", "TRAINER.IVLP.PROMPT_DEPTH_TEXT", "2"),
    ),
    "DePT, on MaPLe": ("TRAINER.DEPT.BASE", "MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "2"),
    "ProMetaR": DEEP,
    "TransformText": (),
    "TransformImage": (),
    "BiasText": (),
    "FineTuneImage": (),
}
FEW = ("DATASET.NUM_SHOTS", "4", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.LR", "0.02")


def train(
    data: Path, out: Path, method: str = "CoOp", *opts: str, epoch: int = 1, **flags: object
) -> Path:
    """Trains on five classes of the small EuroSAT tree; returns the folder.

    Args:
        method: a key of METHODS.
        opts: other settings, which win.
        flags: of `train.py`.
    """
    trainer, keys = method.partition(",")[0], METHODS.get(method, ())
    place = f"TRAINER.{trainer.upper()}."
    own = [k if "." in k or i % 2 else place + k for i, k in enumerate(keys)]
    run(data, out, *FEW, *own, *opts, trainer=trainer, epoch=epoch, **flags)
    return out


def pictures(data: Path) -> list[str]:
    """Returns pictures of all classes."""
    return sorted(str(path) for path in (data / "eurosat").rglob("*_1.jpg"))
