"""Two words for one thing, as sigma1 of linear networks and noise1 of tasks: both are read, as the theory's own."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tlcli.errors import UsageError
from tlcli.options import OPTIONS

_OTHER = {name: option.synonym for name, option in OPTIONS.items() if option.synonym}
_OTHER |= {synonym: name for name, synonym in _OTHER.items()}


def words_of(taken: Collection[str], written: Collection[str]) -> dict[str, str]:
    """Return the words among `written` that a theory calls otherwise: word → the theory's, one of `taken`."""
    return {word: other for word, other in _OTHER.items() if word in written and word not in taken and other in taken}


def any_of(layers: Sequence[Mapping[str, Any]], axes: Collection[str]) -> set[str]:
    """Return the words with a synonym that settings or axes use."""
    return _OTHER.keys() & {*axes, *(word for layer in layers for word in layer)}


def in_words(settings: Mapping[str, Any], words: Mapping[str, str], strong: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings in the theory's words; of two words for one thing the one among `strong` holds.

    Raises:
        UsageError: both words, equally strong.
    """
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in words:
            out.setdefault(name, words.get(value, value) if name in ("x", "y") else value)
            continue
        other = words[name]
        if settings.get(other) is not None and (name in strong) == (other in strong):
            raise UsageError(f"{name} = {value} and {other} = {settings[other]} are two words for one thing; give one.")
        if other not in settings or name in strong:
            out[other] = value
    return out


def told(theory: str, words: Mapping[str, str]) -> tuple[str, ...]:
    """Return the note that says which columns hold what was written."""
    pairs = ", ".join(f"{word} is {other}" for word, other in sorted(words.items()))
    return (f"{pairs} in {theory} and its table.",) if words else ()
