"""Formulas without MathJax or LaTeX: Unicode letters, for a web page with raised and lowered text."""

import re
import unicodedata
from collections.abc import Callable

_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ϵ",
    "theta": "θ",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "xi": "ξ",
    "rho": "ρ",
    "sigma": "σ",
    "chi": "χ",
    "ell": "ℓ",
    "Phi": "Φ",
    "Delta": "Δ",
    "infty": "∞",
    "cdot": "·",
    "times": "×",
    "top": "⊤",
    "pm": "±",
}
_ACCENTS = {"hat": "\N{COMBINING CIRCUMFLEX ACCENT}", "bar": "\N{COMBINING MACRON}"}


def page_text(text: str) -> str:
    """Return text with formulas between $ signs as HTML; what is no formula is text, whatever it holds."""
    return _shown(text, lambda formula: _lowered(_letters(_escaped(formula))), _escaped).replace("\n", "<br>")


def plain_text(text: str) -> str:
    """Return text with formulas between $ signs for a terminal: what is raised or lowered keeps its sign."""
    return _shown(text, lambda formula: _bare(_letters(formula)), str)


def _shown(text: str, formula: Callable[[str], str], other: Callable[[str], str]) -> str:
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2 == 0:  # a $ that closes nothing
        return other(text)
    return "".join(formula(part) if i % 2 else other(part.replace(r"\$", "$")) for i, part in enumerate(parts))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _letters(text: str) -> str:
    text = re.sub(r"\\mathcal\s*\{?L\}?", "ℒ", text).replace("-", "\N{MINUS SIGN}").replace("*", "∗")
    text = re.sub(r"(?<=[^\s{^_])([=\N{MINUS SIGN}])", r" \1 ", text)
    text = re.sub(r"\\([A-Za-z]+)(\s(?![=\N{MINUS SIGN}]))?", lambda m: _LETTERS.get(m[1], m[0]), text)
    for name, mark in _ACCENTS.items():
        text = re.sub(rf"\\{name}\s*(\{{.\}}|.)", lambda m, mark=mark: m[1].strip("{}") + mark, text)
    return text


def _lowered(text: str) -> str:
    for sign, tag in (("_", "sub"), ("^", "sup")):
        text = re.sub(rf"\{sign}(\{{[^{{}}]*\}}|.)", lambda m, tag=tag: f"<{tag}>{m[1].strip('{}')}</{tag}>", text)
    return _bare(text)


def _bare(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("{", "").replace("}", "").replace("\\", ""))
