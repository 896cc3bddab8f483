"""CLIPs of open_clip: their names, weights, tokenizers. The only file that touches the package.

    open_clip:ViT-B-32/laion2b_s34b_b79k    its name of an architecture, and of weights
    open_clip:ViT-B-32, with a file         weights in a file
    open_clip:local-dir:FOLDER              open_clip_config.json and weights in a folder

The package is optional: pip install "open_clip_torch>=3.3,<4".
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dassl.utils import CheckpointError, ConfigError
from dassl.utils.checkpoint import check_finite
from dassl.utils.download import DownloadError
from dassl.utils.errors import closest
from dassl.utils.files import listed
from dassl.utils.random_state import random_state_kept
from encoders.adapted import AdaptedCLIP, adapted_image_tower, is_plain_block
from encoders.tokens import Tokenizer

PREFIX = "open_clip:"
LOCAL = "local-dir:"
CONFIG = "open_clip_config.json"  # in such a folder; open_clip's own name
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
VERSION = (3, 3)  # or a newer minor version
INSTALL = 'pip install "open_clip_torch>=3.3,<4"'

Cfg = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """What stands behind `open_clip:` in a backbone's name.

    Attributes:
        name: of an architecture, or "local-dir:FOLDER".
        tag: open_clip's name of weights.
        file: with weights, in place of those that the tag or the folder names.
    """

    name: str
    tag: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str, file: str = "") -> Source:
        """Reads `open_clip:NAME`, `open_clip:NAME/TAG` or `open_clip:local-dir:FOLDER`."""
        text = text.removeprefix(PREFIX)
        name, _, tag = (text, "", "") if text.startswith(LOCAL) else text.partition("/")
        return cls(name, tag, file)

    @property
    def folder(self) -> Path | None:
        """The folder that it names, if it does."""
        local = self.name.startswith(LOCAL)
        return Path(self.name.removeprefix(LOCAL)).expanduser() if local else None

    def __str__(self) -> str:
        return PREFIX + "/".join(filter(None, (self.name, self.tag)))

    @property
    def read_as(self) -> str:
        """What a weights file does not tell, wherever it lies: heads, activation, tokenizer.

        Raises:
            ConfigError: it names a folder that holds no model.
        """
        if self.folder is None:
            return self.name
        content = json.dumps(_folder_config(self.folder)["model_cfg"], sort_keys=True)
        return f"{LOCAL} {hashlib.sha256(content.encode()).hexdigest()}"


Backbone = str | Path | Source


def parsed(name_or_file: Backbone) -> Backbone:
    """Returns a Source for a name that begins with "open_clip:", anything else as it is."""
    if isinstance(name_or_file, str) and name_or_file.startswith(PREFIX):
        return Source.parse(name_or_file)
    return name_or_file


def package() -> Any:
    """Returns the package; raises ConfigError if it is not installed, or is another version."""
    try:
        found = importlib.import_module("open_clip")
    except ImportError as error:
        raise ConfigError(
            f"backbones that begin with {PREFIX!r} need the package open_clip, which cannot be "
            f"imported ({error}): {INSTALL}"
        ) from None
    major, minor = map(int, found.__version__.split(".")[:2])
    if major != VERSION[0] or minor < VERSION[1]:
        raise ConfigError(
            f"open_clip is {found.__version__}; expected {VERSION[0]}.{VERSION[1]} or a newer "
            f"{VERSION[0]}.x, as its layers are read by name: {INSTALL}"
        )
    return found


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """What logs by the root logger, as open_clip does, gives it a handler, and ours a second."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = before


# --- what a name stands for -----------------------------------------------------------------------


def problems_of(source: Source) -> list[str]:
    """Returns a sentence for each reason why a backbone cannot be had; no weights are read."""
    try:
        config = model_config(source)
    except ConfigError as error:
        return error.problems
    reasons = refusal(config)
    if reasons:
        return [
            f"MODEL.BACKBONE.NAME is {str(source)!r}, which prompts cannot be trained for: "
            f"{' and '.join(reasons)}. docs/backbones.md lists the names that can be used."
        ]
    return _weights_problems(source, config)


def _weights_problems(source: Source, config: Cfg) -> list[str]:
    if source.file and not Path(source.file).expanduser().is_file():
        return [f"MODEL.BACKBONE.PATH: file {source.file} does not exist."]
    if source.folder is not None:
        try:
            weights_file(source)
        except ConfigError as error:
            return error.problems
        return []
    tags = package().list_pretrained_tags_by_model(source.name)
    if not source.tag and not source.file:
        named = f"write {source}/TAG with one of {listed(tags)}, or " if tags else ""
        return [
            f"MODEL.BACKBONE.NAME is {str(source)!r}, which names no weights: {named}set "
            "MODEL.BACKBONE.PATH (--backbone-path) to a file."
        ]
    known = package().get_pretrained_cfg(source.name, source.tag)
    if source.tag and not known:
        return [
            f"MODEL.BACKBONE.NAME is {str(source)!r}, but open_clip has no weights "
            f"{source.tag!r} for {source.name}; expected one of {listed(tags)}."
            + closest(source.tag, tags)
        ]
    if source.tag and bool(known.get("quick_gelu")) != bool(config.get("quick_gelu")):
        quick = source.name.endswith("-quickgelu")
        other = source.name.removesuffix("-quickgelu") if quick else f"{source.name}-quickgelu"
        return [
            f"MODEL.BACKBONE.NAME is {str(source)!r}, but these weights were trained with "
            f"{'GELU' if quick else 'QuickGELU'}: set it to {PREFIX}{other}/{source.tag}."
        ]
    return []


def model_config(source: Source) -> Cfg:
    """Returns open_clip's description of the towers.

    Raises:
        ConfigError: there is no such name, or no such folder.
    """
    if source.folder is not None:
        return _folder_config(source.folder)["model_cfg"]
    if source.name not in package().list_models():  # another may be asked for over the network
        hub = source.name.startswith("hf-hub:")
        raise ConfigError(
            f"MODEL.BACKBONE.NAME is {str(source)!r}, but open_clip {package().__version__} knows "
            f"no {source.name!r}; docs/backbones.md lists the names."
            + closest(source.name, package().list_models())
            + (f" Fetch its files, and write {PREFIX}{LOCAL}FOLDER." if hub else "")
        )
    return package().get_model_config(source.name)


def _folder_config(folder: Path) -> Cfg:
    package()
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        assert {"vision_cfg", "text_cfg", "embed_dim"} <= content["model_cfg"].keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(
            f"{folder} holds no model of open_clip's: its {CONFIG} cannot be read ({error})"
        ) from None
    return content


def preprocessing(source: Source) -> Cfg:
    """Returns how a CLIP's images were prepared, as far as it is known.

    Returns:
        "size": height and width in pixels; "mean" and "std" of three channels, "interpolation"
        and "resize_mode", where weights or a folder say them.
    """
    size = model_config(source)["vision_cfg"].get("image_size", 224)
    known: Cfg = package().get_pretrained_cfg(source.name, source.tag)
    if source.folder is not None:
        known = _folder_config(source.folder).get("preprocess_cfg", {})
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {"size": size} | {key: known[key] for key in keys if known.get(key) is not None}


# --- which towers can be used ---------------------------------------------------------------------

POOLED_AT_END = ("argmax", "eos")  # text towers whose feature is the end token's
# Settings of a text tower that may have any value, or are looked at by themselves.
KNOWN = {
    *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"),
    *("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "pad_id", "eos_id"),
    *("embed_cls", "no_causal_mask", "pool_type"),
}


def refusal(config: Cfg) -> list[str]:
    """Returns the reasons why towers of a description cannot be used here; [] if they can."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "hf_model_name" in text:
        return [f"its text tower is {text['hf_model_name']}, of Hugging Face, with other layers"]
    reasons = []
    if "multimodal_cfg" in config or text.get("embed_cls"):
        reasons.append("its texts end in a class token of its own behind all positions (CoCa)")
    if text.get("no_causal_mask"):
        reasons.append("its text tower is not causal: each token sees those behind it")
    if text.get("pool_type", "argmax") not in POOLED_AT_END:
        reasons.append(
            f"a text's feature is its {text['pool_type']} position's, not its end token's"
        )
    if config.get("init_logit_bias") is not None:
        reasons.append("its logits have a bias (SigLIP)")
    odd = [key for key in sorted(text.keys() - KNOWN) if text[key] and text[key] != "linear"]
    if odd and not reasons:
        reasons.append(f"its text tower has {', '.join(f'{key} {text[key]}' for key in odd)}")
    if vision.get("output_tokens") and not reasons:
        reasons.append("its image tower returns tokens beside features")
    size = vision.get("image_size", 224)
    if not isinstance(size, int) and len(set(size)) != 1:
        reasons.append(f"its images are not square ({size})")
    return reasons


# --- weights and tokenizer ------------------------------------------------------------------------


def weights_file(source: Source) -> Path:
    """Returns the weights file; what a tag stands for is downloaded first.

    Raises:
        ConfigError: a folder holds no weights.
        DownloadError: the weights cannot be fetched.
    """
    if source.file:
        return Path(source.file).expanduser()
    if source.folder is not None:
        found = [path for name in WEIGHTS if (path := source.folder / name).is_file()]
        if not found:
            raise ConfigError(f"{source.folder} holds no weights; expected {' or '.join(WEIGHTS)}")
        return found[0]
    known = package().get_pretrained_cfg(source.name, source.tag)
    try:
        with _root_logger_kept():
            return Path(package().download_pretrained(known))
    except Exception as error:  # of whichever library fetches it
        place = known.get("hf_hub") or known.get("url")
        raise DownloadError(
            f"the weights {source} cannot be fetched ({error!r:.200}). Fetch {place} elsewhere and "
            "name the file with MODEL.BACKBONE.PATH (--backbone-path)."
        ) from None


def tokenizer_for(source: Source) -> Tokenizer:
    """Returns the tokenizer of a text tower.

    Raises:
        ConfigError: it needs a package that is not there, or its texts have no start token.
        DownloadError: it cannot be fetched.
    """
    text = model_config(source)["text_cfg"]
    end = text.get("eos_id", 2) if text.get("pool_type") == "eos" else None
    try:
        with _root_logger_kept():
            theirs = package().get_tokenizer(source.name)
    except ImportError as error:
        raise ConfigError(
            f"the tokenizer of {source} needs a package that is not installed ({error}): "
            "pip install transformers sentencepiece"
        ) from None
    except Exception as error:  # of whichever library fetches it
        raise DownloadError(
            f"the tokenizer {text.get('hf_tokenizer_name')} of {source} cannot be fetched "
            f"({error!r:.200}). Fetch it elsewhere, with its cache (HF_HOME)."
        ) from None
    if hasattr(theirs, "encode"):
        return Tokenizer(theirs.encode, theirs.decode, theirs, end)
    inner = theirs.tokenizer

    def encode(words: str) -> list[int]:
        return inner(theirs.clean_fn(words), add_special_tokens=False).input_ids

    row = theirs(["a"], 16)[0].tolist()
    if end not in row or row.index(end) != 1 + len(encode("a")):
        raise ConfigError(
            f"the tokenizer of {source} reads texts without a start token or an end token {end}, "
            "which prompts stand between"
        )
    return Tokenizer(encode, inner.decode, theirs, end)


# --- models ---------------------------------------------------------------------------------------


def load_model(source: Source, precision: str) -> AdaptedCLIP:
    """Loads a CLIP onto the CPU, in evaluation mode; draws no random number.

    Args:
        source: what `problems_of` has nothing against.
        precision: "fp16": convolutions, products and projections in half precision, as open_clip
            has them, and image towers of other kinds as a whole; else float32, as in the file.

    Raises:
        ConfigError: see `problems_of`.
        CheckpointError: the file does not hold these towers.
        DownloadError: weights or tokenizer cannot be fetched.
    """
    problems = problems_of(source)
    if problems:
        raise ConfigError(problems)
    path, config = weights_file(source), model_config(source)
    with random_state_kept(), _root_logger_kept():
        model = build(config, precision)
    try:
        with _root_logger_kept():
            package().load_checkpoint(model, str(path))
    except Exception as error:  # torch, pickle and safetensors each have their own
        raise CheckpointError(f"{path} does not hold {source}: {error!s:.300}") from None
    check_finite(model.state_dict(), path)
    if precision == "fp16":
        package().convert_weights_to_lp(model)
        if "timm_model_name" in config["vision_cfg"]:
            model.visual.half()
    return adapt(model, config, tokenizer_for(source))


def build(config: Cfg, precision: str = "fp32") -> Any:
    """Builds open_clip's own model of a description, with random weights, in evaluation mode."""
    config = {**config, "vision_cfg": {**config["vision_cfg"], "timm_model_pretrained": False}}
    kind = package().CustomTextCLIP if config.pop("custom_text", False) else package().CLIP
    cast = torch.float16 if precision == "fp16" else None  # its norms then compute in float32
    return kind(**config, cast_dtype=cast).eval()


def adapt(model: Any, config: Cfg, tokenizer: Tokenizer) -> AdaptedCLIP:
    """Returns open_clip's model under OpenAI's names, with the same weights.

    Raises:
        ConfigError: the text tower has other blocks than OpenAI's.
    """
    text, vision = getattr(model, "text", model), config["vision_cfg"]
    if not all(map(is_plain_block, text.transformer.resblocks)):
        raise ConfigError("its text tower has other blocks than OpenAI's, which cannot be run")
    size = vision.get("image_size", 224)
    size = size if isinstance(size, int) else size[0]
    kind = f"open_clip's {vision.get('timm_model_name') or type(model.visual).__name__}"
    visual: Any = adapted_image_tower(model.visual, kind, size, config["embed_dim"])
    # What no weight tells, for features that are stored.
    versions = [f"open_clip {package().__version__}"]
    if "timm_model_name" in vision:
        versions.append(f"timm {importlib.import_module('timm').__version__}")
    visual.identity = json.dumps([*versions, vision, bool(config.get("quick_gelu"))])
    return AdaptedCLIP(visual, text, model.logit_scale, tokenizer).eval()
