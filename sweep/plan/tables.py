"""The papers' tables and figures as data: which runs each needs, and how it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dassl.utils import UnknownNameError
from dassl.utils.errors import not_one_of
from sweep.plan.protocols import PROTOCOLS, Cell, Setting
from sweep.plan.recipes import (
    BENCHMARK,
    CLIP,
    COCOOP,
    COOP_WORDS,
    ENSEMBLE,
    LINEAR_PROBE,
    Method,
    coop,
)

FOUR = ("RN50", "RN101", "ViT-B/32", "ViT-B/16")  # CoOp section 4.1
POSITIONS = ("end", "middle")


@dataclass(frozen=True)
class Table:
    """One table or figure.

    Attributes:
        name: on the command line.
        title: what it shows.
        layout: "base2new", "transfer", "backbones", "average", "curves" or "words".
        protocol: key of PROTOCOLS.
        setting: methods, data sets, shots, backbone.
        backbones: more than the setting's, if there are several.
        published: value of the column "table" in `paper/*.csv`; empty: nothing to compare with.
        notes: what a reader should know about the comparison.
    """

    name: str
    title: str
    layout: str
    protocol: str
    setting: Setting
    backbones: tuple[str, ...] = ()
    published: str = ""
    notes: tuple[str, ...] = ()

    def cells(self) -> list[Cell]:
        """Returns the numbers of the table with the runs each needs."""
        cells: list[Cell] = []
        for backbone in self.backbones or (self.setting.backbone,):
            cells += PROTOCOLS[self.protocol].cells(replace(self.setting, backbone=backbone))
        return cells

    def with_setting(self, **changes: object) -> Table:
        """Returns the table with a changed setting; None leaves a field as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        backbones = self.backbones if "backbone" not in given else ()
        return replace(self, setting=replace(self.setting, **given), backbones=backbones)


_ALL = tuple(BENCHMARK)
_COOP_OWN = (
    replace(CLIP, label="Zero-shot CLIP"),
    LINEAR_PROBE,
    coop(16, label="CoOp (M=16)"),
    coop(4, label="CoOp (M=4)"),
)
_PAPERS = (
    Table(
        "cocoop-1",
        "CoCoOp, table 1: from base to new classes",
        "base2new",
        "base2new",
        replace(PROTOCOLS["base2new"].default, parts=("base", "new")),
        published="cocoop_table1",
    ),
    Table(
        "cocoop-2",
        "CoCoOp, table 2: from ImageNet to other data sets",
        "transfer",
        "crossdataset",
        PROTOCOLS["crossdataset"].default,
        published="cocoop_table2",
    ),
    Table(
        "cocoop-3",
        "CoCoOp, table 3: from ImageNet to its variants",
        "transfer",
        "domain",
        PROTOCOLS["domain"].default,
        published="cocoop_table3",
    ),
    Table(
        "cocoop-capacity",
        "CoCoOp, larger-capacity ablation: 60 context vectors against the Meta-Net",
        "base2new",
        "base2new",
        Setting(
            (replace(COOP_WORDS, label="CoOp (ctx=4)"), coop(60, label="CoOp (ctx=60)"), COCOOP),
            _ALL,
            parts=("base", "new"),
        ),
        notes=(
            "Learned numbers with ViT-B/16: CoOp 2,048 and 30,720, CoCoOp 35,360 (512 each, and "
            "the Meta-Net's 33,312).",
            "The paper's cells were not found in a public text; it states that ctx=60 changes the "
            "accuracy on new classes by -2.54 (paper/cocoop_ablations.csv).",
        ),
    ),
    Table(
        "coop-1",
        "CoOp, table 1: from ImageNet to its variants, four backbones",
        "transfer",
        "domain",
        replace(PROTOCOLS["domain"].default, methods=_COOP_OWN),
        FOUR,
        published="coop_table1",
    ),
    Table(
        "coop-2",
        "CoOp, table 2: against prompt engineering and ensembling, on ImageNet",
        "backbones",
        "fewshot",
        Setting(
            (
                replace(CLIP, label="Prompt engineering"),
                replace(ENSEMBLE, label="Prompt ensembling"),
                coop(16, label="CoOp"),
            ),
            ("imagenet",),
        ),
        FOUR,
        published="coop_table2",
    ),
    Table(
        "coop-3",
        "CoOp, table 3: random against manual initialization",
        "average",
        "fewshot",
        Setting(
            (coop(4, label="Random"), replace(COOP_WORDS, label='"a photo of a"')),
            _ALL,
            backbone="RN50",
        ),
        notes=("The paper's cells were not found in a public text (paper/README.md, Gaps).",),
    ),
    Table(
        "coop-words",
        "CoOp: the words nearest to the learned context",
        "words",
        "fewshot",
        Setting(
            (coop(16),),
            ("imagenet", "food101", "oxford_pets", "dtd", "ucf101"),
            seeds=(1,),
            backbone="RN50",
        ),
    ),
    Table(
        "coop-fig3",
        "CoOp, figure 3: few-shot learning on eleven data sets",
        "curves",
        "fewshot",
        replace(
            PROTOCOLS["fewshot"].default,
            methods=(
                replace(CLIP, label="Zero-shot CLIP (hand-crafted prompt)"),
                LINEAR_PROBE,
                *(coop(16, place, csc) for csc in (False, True) for place in POSITIONS),
            ),
        ),
        published="coop_fig3",
    ),
)
_LAYOUTS = {
    "fewshot": ("curves", "coop_fig3"),
    "base2new": ("base2new", "cocoop_table1"),
    "crossdataset": ("transfer", "cocoop_table2"),
    "domain": ("transfer", "cocoop_table3"),
}
_OWN = tuple(
    Table(
        p.name,
        p.about[0].upper() + p.about[1:],
        _LAYOUTS[p.name][0],
        p.name,
        p.default,
        (),
        _LAYOUTS[p.name][1],
    )
    for p in PROTOCOLS.values()
)
TABLES = {table.name: table for table in (*_OWN, *_PAPERS)}


def table_named(name: str) -> Table:
    """Returns a table of the papers or a protocol's.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in TABLES:
        raise UnknownNameError(not_one_of("the protocol or table", name, TABLES))
    return TABLES[name]


def few_shot_methods(
    methods: Sequence[Method],
    contexts: Sequence[int],
    positions: Sequence[str],
    cscs: Sequence[bool],
) -> tuple[Method, ...]:
    """Returns the methods with CoOp replaced by one method for each kind of context asked for."""
    variants = tuple(coop(m, p, c) for c in cscs for p in positions for m in contexts)
    chosen: list[Method] = []
    for method in methods:
        chosen += variants if method.trainer == "CoOp" else (method,)
    return tuple(dict.fromkeys(chosen))
