"""Methods, one file each. Importing the package imports every file here, which registers them.

To add a method, put a file here: nothing else has to change. A file that cannot be imported does
not stop the others; the reason is reported when a trainer is asked for that nobody registered.

Files that were written for the public Dassl run as they are (docs/porting.md). Their settings take
effect when their trainer is the one that runs: they change nothing for the others.
"""

from __future__ import annotations

import dassl.start  # noqa: F401  # isort: skip - first: it checks Python and its packages

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode
from yacs.config import CfgNode as CN

from dassl.config import note_methods
from dassl.engine import TRAINER_REGISTRY, TrainerBase
from dassl.engine.others import modules_of
from dassl.utils import UserError
from dassl.utils.files import listed, user_cache_home
from dassl.utils.logger import get_logger
from dassl.utils.plugins import (
    SETTINGS_FILES,
    extend_cfg_by,
    extend_cfg_of,
    import_files,
    lines_with,
    settings_file,
)
from dassl.utils.registry import file_of
from encoders.openai import PACKAGE, TINY, WIDE
from encoders.tiny import IMAGE_WIDTH, TEXT_WIDTH, complete_file
from trainers.clip_trainer import CLIPTrainer

logger = get_logger(__name__)

__all__ = [
    "extend_cfg",
    "failed_imports",
    "fit_backbone",
    "has_own_settings",
    "import_file",
    "is_foreign",
    "modules",
]

# What the public train.py declares; other people's files read it, also where they replace ours.
PUBLIC_SETTINGS = {
    "COOP": {
        **{"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16"},
        "CLASS_TOKEN_POSITION": "end",
    },
    "COCOOP": {"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"},
}

if __path__[0] not in sys.path:
    sys.path.append(__path__[0])  # "from utils_x import ...", where utils_x.py is beside a trainer


@contextmanager
def own_clip(path: Path) -> Iterator[None]:
    """Around the import of a trainer's file `x.py`, `clip` is the folder x_clip/ beside it, if any.

    So each of several repositories that changed CLIP has its own.
    """
    folder = path.with_name(f"{path.stem}_clip")
    if not folder.is_dir():
        yield
        return
    others = _taken_out("clip")
    init = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        "clip", init, submodule_search_locations=[str(folder)]
    )
    package = sys.modules["clip"] = importlib.util.module_from_spec(spec)
    try:
        if init.is_file():
            spec.loader.exec_module(package)
        yield
    finally:
        for name, module in _taken_out("clip").items():
            sys.modules[f"{__name__}.{path.stem}_{name}"] = module
        sys.modules.update(others)


def _taken_out(package: str) -> dict[str, ModuleType]:
    """Takes a package and all in it out of what is imported, and returns it."""
    names = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


modules, failed_imports = import_files(__name__, __path__, own_clip)


def _name_the_embedded_clip() -> None:
    """Adds "tiny" to the names of other people's copies of the clip package."""
    for name, module in list(sys.modules.items()):
        models = getattr(module, "_MODELS", None) if name.endswith("clip") else None
        if isinstance(models, dict) and TINY not in models and not name.startswith(PACKAGE):
            with suppress(OSError):  # no room for a file: they do without
                for embedded in (TINY, WIDE):
                    file = complete_file(user_cache_home(), wide=embedded == WIDE)
                    models[embedded] = file.as_uri()


_name_the_embedded_clip()


def extend_cfg(cfg: CfgNode, trainer: str = "") -> None:
    """Adds the settings of our methods, and those of somebody else's trainer if it is named."""
    extend_cfg_by((m for m in modules.values() if not _is_foreign_module(m)), cfg)
    for name, settings in PUBLIC_SETTINGS.items():
        if name not in cfg.TRAINER:
            cfg.TRAINER[name] = CN(settings)
    note_methods(cfg)
    for extend in _own_settings(trainer):
        extend(cfg)


def has_own_settings(trainer: str) -> bool:
    """Whether there are settings that take effect for this trainer alone."""
    return bool(_own_settings(trainer))


def _own_settings(trainer: str) -> list[Callable[[CfgNode], None]]:
    try:
        cls = TRAINER_REGISTRY.get(trainer)
    except UserError:  # whoever asks for the trainer itself gets to see it
        return []
    path = settings_file(file_of(cls), SETTINGS_FILES if is_foreign(cls) else SETTINGS_FILES[:1])
    found = [] if path is None else [extend_cfg_of(path)]
    in_file = getattr(sys.modules.get(cls.__module__), "extend_cfg", None)
    return [*found, in_file] if is_foreign(cls) and in_file else found


def fit_backbone(cfg: CfgNode) -> None:
    """Takes the embedded CLIP in ViT-B/16's widths where somebody else's file counts on them."""
    if cfg.MODEL.BACKBONE.NAME != TINY or not is_foreign(TRAINER_REGISTRY.get(cfg.TRAINER.NAME)):
        return
    ours = modules_of(CLIPTrainer)
    for module in modules_of(TRAINER_REGISTRY.get(cfg.TRAINER.NAME)):
        if module in ours:  # they fix none
            continue
        if lines := lines_with(Path(module.__file__), (TEXT_WIDTH, IMAGE_WIDTH)):
            logger.warning(
                f"Note: {module.__file__} fixes the widths {TEXT_WIDTH} or {IMAGE_WIDTH} of "
                f"ViT-B/16 in line {listed(lines)}: {TINY} comes as {WIDE}, the same in these"
            )
            cfg.MODEL.BACKBONE.NAME = WIDE
            return


def is_foreign(trainer: type) -> bool:
    """Whether a trainer was written for the public Dassl: ours are all on a `CLIPTrainer`."""
    return not issubclass(trainer, CLIPTrainer)


def _is_foreign_module(module: ModuleType) -> bool:
    own = [c for c in vars(module).values() if getattr(c, "__module__", "") == module.__name__]
    trainers = [c for c in own if isinstance(c, type) and issubclass(c, TrainerBase)]
    return bool(trainers) and all(map(is_foreign, trainers))


def import_file(path: Path) -> ModuleType:
    """Imports a trainer's file that lies elsewhere as if it lay here, in place of ours if any."""
    if path.stem in modules:
        TRAINER_REGISTRY.forget(Path(modules[path.stem].__file__))
    for places in (__path__, sys.path):
        places.append(str(path.parent))
    name = path.stem if path.stem not in modules else f"{path.stem}_from_elsewhere"
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = modules[name] = module
    try:
        with own_clip(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name], modules[name]
        raise
    _name_the_embedded_clip()
    return module
