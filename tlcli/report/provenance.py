"""What made a result: versions, the resolved recipe and its hash, the seed, the linear-algebra library; and its files.

The key `files` names every file of the run with the SHA-256 of its content, and `run` is the hash of all that, the wall
time apart: equal runs have one identity, and a file of another run or one that was changed is found out.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlcli.report.files import atomic, content_of
from tlcli.version import __version__

PROVENANCE = "provenance.json"
_UNSEALED = ("run", "wall_time_seconds")
_PACKAGES = ("numpy", "scipy", "matplotlib", "scikit-learn")


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the resolved recipe in canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def facts(command: str, recipe: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the facts that stand beside a table and inside a figure; they hold no date and no time."""
    from threadpoolctl import threadpool_info

    blas = [
        {"library": pool.get("internal_api"), "version": pool.get("version"), "threads": pool["num_threads"]}
        for pool in threadpool_info()
        if pool.get("user_api") == "blas"
    ]
    blas.sort(key=str)  # libraries are found in any order, but equal runs are equal bytes
    return {
        "command": command,
        "recipe": dict(recipe),
        "recipe_sha256": recipe_hash(recipe),
        "seed": seed,
        "versions": {
            "tlcli": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "blas": blas,
    }


def write_provenance(path: Path, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write the JSON file that stands beside a table, atomically; `files` are those that the run has written."""
    whole = {**content, "files": {file.name: checksum(file) for file in sorted(files)}}
    with atomic(path) as temporary:
        temporary.write_text(_text({**whole, "run": _seal(whole)}), encoding="utf-8")


@dataclass(frozen=True)
class Provenance:
    """What a provenance file says of files: name to SHA-256, its own included; `changed`: it is not as it was written.

    A file of an earlier version, or of another program, says nothing.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    changed: bool = False


def read_provenance(path: Path) -> Provenance:
    """Read which files a run wrote; a changed provenance owns no file, itself included."""
    try:
        data = content_of(path)
        content = json.loads(data)
        files = content["files"]
        seal = content["run"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Provenance()
    sound = isinstance(files, dict) and all(_is_entry(name, digest) for name, digest in files.items())
    if not sound or seal != _seal(content) or _text(content).encode() != data:
        return Provenance(changed=True)
    return Provenance({**files, path.name: hashlib.sha256(data).hexdigest()})


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_entry(name: Any, digest: Any) -> bool:
    plain = isinstance(name, str) and Path(name).name == name and name not in ("", ".", "..", PROVENANCE)
    return plain and isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _seal(content: Mapping[str, Any]) -> str:
    return recipe_hash(json.loads(json.dumps({k: v for k, v in content.items() if k not in _UNSEALED})))


def png_chunks(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the same facts as PNG text chunks (SVG and PDF take them as metadata)."""
    return {"Software": f"tlcli {__version__}", "Description": json.dumps(content, sort_keys=True)}
