"""The package `clip` as other people's files use it: `compat/clip`, our own methods do without.

Where a repository's own folder clip/ is put beside this file, Python takes the folder.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent / "compat" / "clip")]

from clip.clip import available_models, load, tokenize

__all__ = ["available_models", "load", "tokenize"]
