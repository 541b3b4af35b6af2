"""Array libraries of accelerators, loaded when asked for."""

from typing import Any

from tlcli.errors import MissingExtraError, UsageError


def cuda() -> tuple[Any, Any]:
    """Return the array-API namespace of PyTorch and its CUDA device.

    Raises:
        MissingExtraError: PyTorch is not installed.
        UsageError: no CUDA device is there.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from array_api_compat import torch as namespace  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("--device cuda needs PyTorch; install it with: pip install 'tlcli[gpu]'") from None
    if not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; use --device cpu.")
    return namespace, torch.device("cuda")
