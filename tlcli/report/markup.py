"""Formulas as a web page shows them without help: Unicode letters, raised and lowered text, no MathJax."""

import re
import unicodedata

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
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2 == 0:  # a $ that closes nothing
        return _escaped(text)
    shown = [_formula(part) if i % 2 else _escaped(part.replace(r"\$", "$")) for i, part in enumerate(parts)]
    return "".join(shown).replace("\n", "<br>")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _formula(text: str) -> str:
    text = re.sub(r"\\mathcal\s*\{?L\}?", "ℒ", _escaped(text)).replace("-", "\N{MINUS SIGN}").replace("*", "∗")
    text = re.sub(r"(?<=[^\s{^_])([=\N{MINUS SIGN}])", r" \1 ", text)
    text = re.sub(r"\\([A-Za-z]+)(\s?)", lambda m: _LETTERS.get(m[1], m[0]), text)
    for name, mark in _ACCENTS.items():
        text = re.sub(rf"\\{name}\s*(\{{.\}}|.)", lambda m, mark=mark: m[1].strip("{}") + mark, text)
    for sign, tag in (("_", "sub"), ("^", "sup")):
        text = re.sub(rf"\{sign}(\{{[^{{}}]*\}}|.)", lambda m, tag=tag: f"<{tag}>{m[1].strip('{}')}</{tag}>", text)
    return unicodedata.normalize("NFC", text.replace("{", "").replace("}", "").replace("\\", ""))
