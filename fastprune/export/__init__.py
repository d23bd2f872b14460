"""Networks to other formats, and from most of them. A library is imported when a call needs it."""

from typing import TYPE_CHECKING

from fastprune.lazy import attach

if TYPE_CHECKING:  # `as` tells type checkers that a name is public
    from fastprune.export.c import to_c as to_c
    from fastprune.export.onnx import from_onnx as from_onnx
    from fastprune.export.onnx import to_onnx as to_onnx
    from fastprune.export.safetensors import from_safetensors as from_safetensors
    from fastprune.export.safetensors import to_safetensors as to_safetensors
    from fastprune.export.scipy import from_scipy as from_scipy
    from fastprune.export.scipy import to_scipy as to_scipy
    from fastprune.export.torch import from_torch as from_torch
    from fastprune.export.torch import to_torch as to_torch
else:
    _NAMES = {name: [f"from_{name}", f"to_{name}"] for name in ("onnx", "safetensors", "scipy", "torch")}
    _NAMES["c"] = ["to_c"]
    __getattr__, __dir__ = attach(__name__, _NAMES)
    __all__ = [name for names in _NAMES.values() for name in names]
