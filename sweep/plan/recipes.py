"""The recipes of the papers' tables: which config file, context, epochs and epoch tested, as data.

Sources: CoOp (arXiv 2109.01134), section 4.1 and upstream's COOP.md; CoCoOp (arXiv 2203.05557),
section 4 and upstream's scripts/cocoop; row by row in `paper/hyperparameters.csv`. The last epoch
is the one that is tested, everywhere. Optimizer, batch and transforms are in the config files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dassl.engine import TRAINER_REGISTRY, SimpleTrainer
from dassl.utils import ConfigError, UnknownNameError
from dassl.utils.errors import not_one_of
from dassl.utils.registry import file_of
from sweep.plan.own import own_name
from sweep.plan.run import ROOT

# Files in configs/datasets → names in the papers' tables, in the order of CoCoOp's.
BENCHMARK = {
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "Flowers102",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
}
VARIANTS = {
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNet-Sketch",
    "imagenet_a": "ImageNet-A",
    "imagenet_r": "ImageNet-R",
}
PAPER_NAMES = {**BENCHMARK, **VARIANTS}
AVERAGE = "Average"  # the papers' name for the mean over datasets
SEEDS = (1, 2, 3)
SHOTS = (1, 2, 4, 8, 16)
# CoOp section 4.1: 50 epochs for one shot, 100 for two and four, 200 for more; ImageNet 50 always.
EPOCHS = {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}
IMAGENET_EPOCHS = 50
BACKBONES = {"RN50": "rn50", "RN101": "rn101", "ViT-B/32": "vit_b32", "ViT-B/16": "vit_b16"}
MOST = "vit_b16"  # every method has a recipe for it
# The embedded default has recipes of its own: a small CLIP, images of 32 pixels.
EMBEDDED = "digits"


@dataclass(frozen=True)
class Method:
    """A row of a table.

    Attributes:
        label: how the paper calls it, as in `paper/*.csv`.
        trainer: registered name.
        recipe: file in configs/trainers, with {backbone} and {epochs} to fill in.
        opts: KEY VALUE pairs on top.
        learns: False: nothing is random and no training images are needed, so one run will do.
        reads_new_classes: whether it can be tested on classes it was not trained on.
        fixed: the user named the recipe, so it is used as it is, for every dataset.
        epochs_on: datasets on which it trains for another number of epochs than its file says.
    """

    label: str
    trainer: str
    recipe: str
    opts: tuple[str, ...] = ()
    learns: bool = True
    reads_new_classes: bool = True
    fixed: bool = False
    epochs_on: tuple[tuple[str, int], ...] = ()

    def with_recipe(self, recipe: str, backbone: str = "") -> Method:
        """Returns the method with a config file of the user's, whose CTX_INIT counts.

        Args:
            recipe: the file in configs/trainers.
            backbone: in place of the file's; empty: the file's counts, too.
        """
        pairs = zip(self.opts[::2], self.opts[1::2])
        kept = tuple(t for pair in pairs if not pair[0].endswith(".CTX_INIT") for t in pair)
        opts = ("MODEL.BACKBONE.NAME", backbone, *kept) if backbone else kept
        return replace(self, recipe=recipe, opts=opts, fixed=True)

    def recipe_for(self, backbone: str, dataset: str, shots: int) -> tuple[str, tuple[str, ...]]:
        """Returns the config file and the options for one backbone and dataset.

        Where upstream has no file for a number of epochs, the file for 200 is used and
        OPTIM.MAX_EPOCH set; where there is none for a backbone, that for ViT-B/16 with another
        MODEL.BACKBONE.NAME.
        """
        if self.fixed:
            return self.recipe, self.opts
        folder, _, name = self.recipe.partition("/")
        if backbone == "tiny":
            return f"{folder}/tiny", self.opts
        if own := dict(self.epochs_on).get(dataset):
            elsewhere, opts = replace(self, epochs_on=()).recipe_for(backbone, dataset, shots)
            return elsewhere, ("OPTIM.MAX_EPOCH", str(own), *opts)
        epochs = EPOCHS.get(shots, 200 if shots > 16 else 100)
        epochs = IMAGENET_EPOCHS if dataset == "imagenet" else epochs
        stem, opts = BACKBONES.get(backbone, backbone), self.opts
        if not config_exists(f"{folder}/{name.format(backbone=stem, epochs='')}") or (
            "{backbone}" not in name and stem != MOST
        ):  # the file for ViT-B/16, which differs in nothing but the backbone
            stem, opts = MOST, ("MODEL.BACKBONE.NAME", backbone, *opts)
        tag = "" if epochs == 200 else f"_ep{epochs}"
        exact = f"{folder}/{name.format(backbone=stem, epochs=tag)}"
        if config_exists(exact):
            return exact, opts
        general = f"{folder}/{name.format(backbone=stem, epochs='')}"
        return general, ("OPTIM.MAX_EPOCH", str(epochs), *opts)


def paper_name(dataset: str) -> str:
    """Returns the name in the papers' tables; other datasets keep their own."""
    return PAPER_NAMES.get(dataset, own_name(dataset))


def config_exists(recipe: str) -> bool:
    return (ROOT / "configs" / "trainers" / f"{recipe}.yaml").is_file()


CLIP = Method("zero-shot CLIP", "ZeroshotCLIP", "CoOp/{backbone}", learns=False)
ENSEMBLE = Method("CLIP (ensemble)", "ZeroshotCLIP2", "CoOp/{backbone}", learns=False)
LINEAR_PROBE = Method(
    "Linear probe CLIP",
    "LinearProbe",
    "CoOp/{backbone}",
    ("OPTIM.MAX_EPOCH", "1"),  # it is fitted once
    reads_new_classes=False,
)
# CoCoOp section 4: "CoOp" there starts from "a photo of a", M = 4, and so does CoCoOp.
COOP_WORDS = Method("CoOp", "CoOp", "CoOp/{backbone}{epochs}_ctxv1")
COCOOP = Method("CoCoOp", "CoCoOp", "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1")


def coop(m: int = 16, position: str = "end", csc: bool = False, label: str = "") -> Method:
    """CoOp with a random context of `m` vectors, as in CoOp's own experiments."""
    if not label:
        word = {"middle": "mid"}.get(position, position)
        label = f"CoOp (M={m}, {word}{', CSC' if csc else ''})"
    opts = {
        "TRAINER.COOP.CTX_INIT": "",
        "TRAINER.COOP.N_CTX": str(m),
        "TRAINER.COOP.CSC": str(csc),
        "TRAINER.COOP.CLASS_TOKEN_POSITION": position,
    }
    flat = tuple(text for pair in opts.items() for text in pair)
    return Method(label, "CoOp", "CoOp/{backbone}{epochs}", flat, reads_new_classes=not csc)


PAPERS = (CLIP, ENSEMBLE, LINEAR_PROBE, COOP_WORDS, COCOOP)
# The methods that came after, by their own public recipes where these are known (docs/methods.md).
LATER = (
    Method("KgCoOp", "KgCoOp", "KgCoOp/{backbone}_ep100_ctxv1"),
    Method("ProGrad", "ProGrad", "ProGrad/{backbone}_ep100"),
    Method(
        *("TCP", "TCP", "TCP/{backbone}_ep100_ctxv1"), epochs_on=(("imagenet", 25), ("sun397", 25))
    ),
    Method("PLOT", "PLOT", "PLOT/{backbone}{epochs}"),
    Method("LASP", "LASP", "LASP/vit_b16_c4_ep25_batch32_cls_t2t_5_wcl_25_g1_b_lr32"),
    Method("VPT", "VPT", "VPT/vit_b16_c2_ep5_batch4_4"),
    Method("IVLP", "IVLP", "IVLP/vit_b16_c2_ep5_batch4_2+2ctx"),
    Method("MaPLe", "MaPLe", "MaPLe/vit_b16_c2_ep5_batch4_2ctx"),
    Method("PromptSRC", "PromptSRC", "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx"),
    Method("DePT", "DePT", "DePT/vit_b16_ep10_bs4_lr35"),
    Method("ProMetaR", "ProMetaR", "ProMetaR/vit_b16_c2_ep10_batch4_4+4ctx"),
)
# CoOp, table 5. Their recipes were not found in a public text: CoOp's is taken.
FINE_TUNING = tuple(
    Method(label, trainer, "CoOp/{backbone}{epochs}")
    for label, trainer in (
        ("Fine-tuning CLIP's image encoder", "FineTuneImage"),
        ("Optimizing transformation layer (text)", "TransformText"),
        ("Optimizing transformation layer (image)", "TransformImage"),
        ("Optimizing bias (text)", "BiasText"),
    )
)
STANDARD = {method.trainer: method for method in (*PAPERS, *LATER, *FINE_TUNING)}
GROUPS = {"all": PAPERS, "family": (CLIP, COOP_WORDS, COCOOP, *LATER)}


def _require_record(name: str) -> None:
    """Raises ConfigError for a trainer that evaluates by a method of its own."""
    try:
        cls = TRAINER_REGISTRY.get(name)
    except ConfigError:  # two files have it: the run says so
        return
    if cls.test is not SimpleTrainer.test:
        raise ConfigError(
            f"--trainers {name}: {file_of(cls)} has a `test` of its own, which writes no record "
            "(results.jsonl), and tables are made of records: run it by train.py"
        )


def methods_for(
    names: Sequence[str], recipe: str = "", embedded: bool = False
) -> tuple[Method, ...]:
    """Returns the methods for trainers' names.

    "all" stands for the five of CoOp's and CoCoOp's papers, "family" for all that learn prompts.

    Args:
        names: registered trainers.
        recipe: config file in configs/trainers to use instead of the papers'; needed for trainers
            that the papers do not have.
        embedded: whether the data are the embedded ones alone, for which there is a recipe that
            suits all trainers.

    Raises:
        UnknownNameError: no trainer has that name.
        ConfigError: a trainer needs a recipe, or there is no such file.
    """
    if recipe and not config_exists(recipe):
        raise ConfigError(f"--recipe {recipe}: there is no configs/trainers/{recipe}.yaml")
    methods = []
    groups = {name: [method.trainer for method in group] for name, group in GROUPS.items()}
    for name in [n for given in names for n in groups.get(given, [given])]:
        if name not in TRAINER_REGISTRY:
            allowed = [*GROUPS, *sorted(TRAINER_REGISTRY.registered_names())]
            raise UnknownNameError(not_one_of("--trainers", name, allowed))
        _require_record(name)
        if name not in STANDARD and not recipe and not embedded:
            raise ConfigError(
                f"the papers have no recipe for {name}: add --recipe FOLDER/NAME, a file in "
                f"configs/trainers without .yaml, such as {name}/vit_b16"
            )
        own = f"{name}/tiny" if config_exists(f"{name}/tiny") else "tiny"
        other = Method(name, name, recipe or own, fixed=not recipe)
        methods.append(STANDARD.get(name, other))
    return tuple(methods)
