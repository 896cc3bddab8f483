"""Colours of a page, in a light and a dark look.

Texts have a contrast of 4.5 or more with what they stand on, lines and bars one of 3 or more (WCAG
2.1, criteria 1.4.3 and 1.4.11, level AA); `tests/pages` computes them.
"""

from __future__ import annotations

# Of lines and bars, by slot: enough for all methods.
LIGHT = (
    *("#2f6fb3", "#b8640f", "#2b8050", "#8e5bb0", "#c0392b"),
    *("#6b7778", "#0f7f72", "#8a6a00", "#34495e", "#c2187a"),
    *("#24388f", "#5f7d00", "#74400f", "#0a83b0", "#5a1796"),
    *("#86183c", "#0d4a38", "#c052b5"),
)
DARK = (
    *("#7db2ee", "#f0a458", "#6cc991", "#c69be3", "#f08a7d"),
    *("#a9b4b6", "#4fd1c0", "#e0c04f", "#9fb6d4", "#f776b6"),
    *("#8fa2ff", "#b3d640", "#c98a55", "#56c3f0", "#cf7dff"),
    *("#ff8fae", "#93ecd0", "#f0b0ea"),
)
# name → light, dark.
ROLES = {
    "ground": ("#ffffff", "#12171d"),
    "raised": ("#f3f6f9", "#1c242d"),
    "text": ("#1d2733", "#e6ebf0"),
    "soft": ("#4b5763", "#b3bec9"),
    "rule": ("#d5dce3", "#36414d"),
    "link": ("#1d5f9f", "#8fc1f5"),
    "good": ("#1a6f33", "#7fd69a"),
    "bad": ("#b3202a", "#ff9d94"),
    "gap": ("#7f5700", "#e8bd5c"),
}


def variables(dark: bool) -> str:
    """Returns the colours as CSS variables: --text, …, --s0, …"""
    named = {name: pair[dark] for name, pair in ROLES.items()}
    slots = {f"s{i}": color for i, color in enumerate(DARK if dark else LIGHT)}
    return " ".join(f"--{name}: {color};" for name, color in {**named, **slots}.items())


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of two colours #rrggbb (WCAG 2.1, relative luminance)."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
