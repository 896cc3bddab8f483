"""The papers' tables and figures as data: which runs each needs, and how it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dassl.utils import UnknownNameError
from dassl.utils.errors import not_one_of
from sweep.plan import layouts
from sweep.plan.protocols import BASE_TO_NEW, CROSS_DATASET, DEMO, DOMAIN, FEW_SHOT, Setting
from sweep.plan.recipes import (
    BENCHMARK,
    CLIP,
    COCOOP,
    COOP_WORDS,
    ENSEMBLE,
    FINE_TUNING,
    GROUPS,
    LINEAR_PROBE,
    Method,
    coop,
)
from sweep.plan.table import Table

FOUR = ("RN50", "RN101", "ViT-B/32", "ViT-B/16")  # CoOp, table 1
POSITIONS = ("end", "middle")
H_NOTE = (
    "H: harmonic mean of the seed-averaged base and new accuracy; its spread is that of the seeds."
)

_ALL = tuple(BENCHMARK)
_COOP_OWN = (
    CLIP,
    LINEAR_PROBE,
    coop(16, label="CoOp (M=16)"),
    coop(4, label="CoOp (M=4)"),
)
_PAPERS = (
    Table(
        "cocoop-1",
        "CoCoOp, table 1: from base to new classes",
        BASE_TO_NEW,
        layouts.base_to_new,
        replace(BASE_TO_NEW.default, parts=("base", "new")),
        published="cocoop_table1",
        notes=(H_NOTE,),
    ),
    Table(
        "family",
        "From base to new classes: the methods that learn prompts",
        BASE_TO_NEW,
        layouts.base_to_new,
        Setting(GROUPS["family"], _ALL, parts=("base", "new")),
        published="family",
        notes=(
            H_NOTE,
            "Published numbers of later methods: reprints and public READMEs, averages for some "
            "(paper/peers_2026.md).",
        ),
    ),
    Table(
        "cocoop-2",
        "CoCoOp, table 2: from ImageNet to other datasets",
        CROSS_DATASET,
        layouts.transfer,
        CROSS_DATASET.default,
        published="cocoop_table2",
    ),
    Table(
        "cocoop-3",
        "CoCoOp, table 3: from ImageNet to its variants",
        DOMAIN,
        layouts.transfer,
        DOMAIN.default,
        published="cocoop_table3",
    ),
    Table(
        "cocoop-capacity",
        "CoCoOp, larger-capacity ablation: 60 context vectors against the Meta-Net",
        BASE_TO_NEW,
        layouts.base_to_new,
        Setting(
            (replace(COOP_WORDS, label="CoOp (ctx=4)"), coop(60, label="CoOp (ctx=60)"), COCOOP),
            _ALL,
            parts=("base", "new"),
        ),
        notes=(
            H_NOTE,
            "Learned numbers with ViT-B/16: CoOp 2,048 and 30,720, CoCoOp 35,360 (512 each, and "
            "the Meta-Net's 33,312).",
            "The paper's cells were not found in a public text; it states that ctx=60 changes the "
            "accuracy on new classes by -2.54 (paper/cocoop_ablations.csv).",
        ),
    ),
    Table(
        "coop-1",
        "CoOp, table 1: from ImageNet to its variants, four backbones",
        DOMAIN,
        layouts.transfer,
        replace(DOMAIN.default, methods=_COOP_OWN),
        FOUR,
        published="coop_table1",
    ),
    Table(
        "coop-2",
        "CoOp, table 2: against prompt engineering and ensembling, on ImageNet",
        FEW_SHOT,
        layouts.backbones,
        Setting(
            (
                CLIP,
                ENSEMBLE,
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
        FEW_SHOT,
        layouts.average,
        Setting(
            (coop(4, label="Random"), replace(COOP_WORDS, label='"a photo of a"')),
            _ALL,
            backbone="RN50",
        ),
        notes=("The paper's cells were not found in a public text (paper/README.md, Gaps).",),
    ),
    Table(
        "coop-5",
        "CoOp, table 5: against other ways of fine-tuning, on ImageNet",
        FEW_SHOT,
        layouts.backbones,
        Setting(
            (
                CLIP,
                LINEAR_PROBE,
                *FINE_TUNING,
                coop(16, label="CoOp"),
            ),
            ("imagenet",),
            backbone="RN50",
        ),
        published="coop_table5",
        notes=(
            "The paper's cells of the four in the middle were not found in a public text; the "
            "others are those of its table 2 and figure 3, the same runs. What the paper leaves "
            "open of the four: docs/methods.md.",
        ),
    ),
    Table(
        "coop-length",
        "CoOp: context length 4, 8 and 16, the class name at the end and in the middle",
        FEW_SHOT,
        layouts.average,
        Setting(
            tuple(coop(m, place) for place in POSITIONS for m in (4, 8, 16)),
            _ALL,
            backbone="RN50",
        ),
        published="coop_fig3",
        notes=(
            "The figure's lengths 4 and 8 were not found as numbers in a public text; 16 is "
            "figure 3's.",
        ),
    ),
    Table(
        "coop-words",
        "CoOp: the words nearest to the learned context",
        FEW_SHOT,
        layouts.words,
        Setting(
            (coop(16),),
            ("imagenet", "food101", "oxford_pets", "dtd", "ucf101"),
            seeds=(1,),
            backbone="RN50",
        ),
        notes=("Euclidean distance in the space of token embeddings in brackets.",),
    ),
    Table(
        "coop-fig3",
        "CoOp, figure 3: few-shot learning on eleven datasets",
        FEW_SHOT,
        layouts.curves,
        replace(
            FEW_SHOT.default,
            methods=(
                CLIP,
                LINEAR_PROBE,
                *(coop(16, place, csc) for csc in (False, True) for place in POSITIONS),
            ),
        ),
        published="coop_fig3",
    ),
)
_PROTOCOLS = tuple(
    Table(p.name, p.about[0].upper() + p.about[1:], p, layout, p.default, (), published, notes)
    for p, layout, published, notes in (
        (FEW_SHOT, layouts.curves, "coop_fig3", ()),
        (BASE_TO_NEW, layouts.base_to_new, "cocoop_table1", (H_NOTE,)),
        (CROSS_DATASET, layouts.transfer, "cocoop_table2", ()),
        (DOMAIN, layouts.transfer, "cocoop_table3", ()),
        (DEMO, layouts.base_to_new, "", (H_NOTE,)),
    )
)
TABLES = {table.name: table for table in (*_PROTOCOLS, *_PAPERS)}


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
