"""What made a result: versions, the resolved recipe and its hash, the seed, the linear-algebra library."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tlcli
from tlcli.report.files import atomic

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
            "tlcli": tlcli.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "blas": blas,
    }


def write_provenance(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON file that stands beside a table, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def png_chunks(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the same facts as PNG text chunks (SVG and PDF take them as metadata)."""
    return {"Software": f"tlcli {tlcli.__version__}", "Description": json.dumps(content, sort_keys=True)}
