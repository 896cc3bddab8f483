"""Packages of plug-ins: every file is imported, which registers what it defines.

The settings that `x.py` reads may be declared by another file beside it, `x_cfg.py` or `train.py`;
of this, `extend_cfg(cfg)` alone is used.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache, reduce
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode

from dassl.utils.errors import ConfigError
from dassl.utils.logger import get_logger
from dassl.utils.without_gpu import INSTEAD

logger = get_logger(__name__)

# The first that is there is taken; the last is where it lies in a repository of its own.
SETTINGS_FILES = ("{}_cfg.py", "train.py", "../train.py")
PLUGIN_PACKAGES = ("datasets", "trainers")
_ASKING = {f"torch.cuda.{name}" for name in INSTEAD}  # a GPU for something


def import_files(
    package: str,
    folders: Iterable[str],
    around: Callable[[Path], AbstractContextManager] = lambda path: nullcontext(),
) -> tuple[dict[str, ModuleType], dict[str, Exception]]:
    """Imports every file of a package, in the order of their names.

    A file that cannot be imported does not stop the others. Folders are left alone: they hold no
    plug-ins. So are `__main__`, as importing a command line would run it, and files of settings.

    Args:
        package: its `__name__`.
        folders: its `__path__`.
        around: file → what to do around its import.

    Returns:
        {name: module}, and {file name: why it could not be imported}.
    """
    modules: dict[str, ModuleType] = {}
    failed: dict[str, Exception] = {}
    for info in pkgutil.iter_modules(folders):
        if info.ispkg or info.name in ("__main__", "train") or info.name.endswith("_cfg"):
            if info.ispkg and Path(info.module_finder.path, f"{info.name}.py").is_file():
                failed[f"{info.name}.py"] = ImportError(f"the folder {info.name}/ hides it")
            continue
        try:
            with around(Path(info.module_finder.path, f"{info.name}.py")):
                modules[info.name] = importlib.import_module(f"{package}.{info.name}")
        except Exception as error:  # whatever a foreign file does wrong
            failed[f"{info.name}.py"] = error
    return modules, failed


def extend_cfg_by(modules: Iterable[object], cfg: CfgNode) -> None:
    """Calls `extend_cfg` of the modules that have one: each adds its settings."""
    for module in modules:
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)


def settings_file(plugin: Path, names: Iterable[str] = SETTINGS_FILES) -> Path | None:
    """Returns the file beside a plug-in that declares its settings; None: there is none."""
    found = (plugin.parent / name.format(plugin.stem) for name in names if plugin.is_file())
    return next((path for path in found if path.is_file() and _declares_settings(path)), None)


def _declares_settings(path: Path) -> bool:
    return path.name != "train.py" or "def extend_cfg(" in path.read_text(encoding="utf-8")


def extend_cfg_of(path: Path) -> Callable[[CfgNode], None]:
    """Returns `extend_cfg` of a file of settings, such as a repository's `train.py`.

    Of its top level, only imports, functions and constants are looked at: what the file would do as
    a program is not done. Imports of plug-ins, and of what is not installed, are left out. New keys
    that another function sets to constants, as in `cfg.DEVICE = "cuda"`, have those values, and
    `args`, global or a second parameter, has the defaults of the command line's flags.

    Raises:
        ConfigError: the file cannot be read, or has no `extend_cfg`.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    args = _flags(tree)
    scope: dict[str, object] = {"__name__": path.stem, "__file__": str(path), "args": args}
    for statement in tree.body:
        code = compile(ast.Module([statement], []), str(path), "exec")
        if isinstance(statement, ast.FunctionDef) or _is_constant(statement):
            exec(code, scope)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)) and not _is_of_plugins(statement):
            with suppress(ImportError):
                exec(code, scope)
    set_elsewhere, merged_elsewhere = list(_constants_of_cfg(tree)), list(_merges(tree))
    extend = scope.get("extend_cfg")
    if not callable(extend):
        raise ConfigError(f"{path} declares no settings: it has no function extend_cfg(cfg)")

    def extend_cfg(cfg: CfgNode) -> None:
        try:
            extend(*(cfg, args)[: max(1, _n_required(extend))])
        except Exception as error:  # whatever a foreign file does wrong
            raise ConfigError(f"extend_cfg of {path} failed: {error!r}") from error
        for line, text in merged_elsewhere:
            _note(
                f"Note: {path} also changes settings in line {line}, `{text}`: that is not done "
                "here; give them as KEY VALUE pairs, or in a YAML file"
            )
        for names, value in set_elsewhere:
            node = reduce(lambda node, name: node.get(name, {}), names[:-1], cfg)
            if isinstance(node, CfgNode):
                node.setdefault(names[-1], value)

    return extend_cfg


def _constants_of_cfg(tree: ast.Module) -> Iterator[tuple[list[str], object]]:
    """Yields (["A", "B"], value) for each `cfg.A.B = value` with a constant value.

    The value of a command line's flag, `args.b`, is the flag's default.
    """
    flags = {f"args.{name}": repr(value) for name, value in vars(_flags(tree)).items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            base, *names = ast.unparse(node.targets[0]).split(".")
            text = ast.unparse(node.value)
            with suppress(ValueError):
                value = ast.literal_eval(flags.get(text, text))
                if base == "cfg" and not any(hasattr(CfgNode, name) for name in names):
                    yield names, value


def _flags(tree: ast.Module) -> Namespace:
    """Returns the flags of a file's command line with their defaults."""
    flags: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            given = {}
            for key in node.keywords:
                with suppress(ValueError):
                    given[key.arg] = ast.literal_eval(key.value)
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            longest = max((str(name) for name in names), key=len, default="")
            off = {"store_true": False, "store_false": True}.get(given.get("action"))
            name = given.get("dest") or longest.lstrip("-").replace("-", "_")
            flags[name] = given.get("default", off)
    return Namespace(**flags)


def _n_required(function: Callable) -> int:
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def _merges(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and text of each `cfg.merge_from_list` of other than the command line's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "cfg.merge_from_list":
            text = ast.unparse(node)
            if "args.opts" not in text:
                yield node.lineno, text


@lru_cache(maxsize=32)  # once is enough
def _note(text: str) -> None:
    logger.warning(text)


def _is_constant(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Assign):
        return False
    if not all(isinstance(target, ast.Name) for target in statement.targets):
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return False
    return True


def _is_of_plugins(statement: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return bool(statement.level) or (statement.module or "").split(".")[0] in PLUGIN_PACKAGES
    return any(alias.name.split(".")[0] in PLUGIN_PACKAGES for alias in statement.names)


def lines_with(path: Path, numbers: Iterable[int]) -> list[int]:
    """Returns the lines of a Python file that write down one of these numbers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return sorted({node.lineno for node in found if node.value in set(numbers)})


def lines_for_a_gpu(path: Path) -> list[int]:
    """Returns the lines of a Python file that ask for a GPU by name: `.cuda()`, `"cuda"`."""
    text = path.read_text(encoding="utf-8")
    return _lines_for_a_gpu(text) if "cuda" in text else []


@lru_cache(maxsize=32)  # runs of one process look at the same few files
def _lines_for_a_gpu(text: str) -> list[int]:
    lines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", "")
            named = ("device", "map_location")
            places = [key.value for key in node.keywords if key.arg in named]
            places += node.args if name in ("to", "device", "load") else []
            of_torch = ast.unparse(node.func) in _ASKING
            if name == "cuda" or of_torch or any(map(_is_cuda, places)):
                lines.add(node.lineno)
    return sorted(lines)


def _is_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).startswith("cuda")
