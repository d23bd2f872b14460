"""The best networks of a sweep in other forms."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastprune.base import Network
from fastprune.export import to_c, to_onnx, to_safetensors


def _coded(network: Network, path: Path) -> None:
    network.save(path, coded=True)


def _c(network: Network, path: Path, **options: Any) -> None:
    to_c(network, path, name=re.sub("[^A-Za-z0-9]", "_", path.stem), **options)


FORMS: dict[str, tuple[str, Callable[..., None]]] = {
    "c": (".c", _c),
    "coded": (".fpc", _coded),
    "onnx": (".onnx", to_onnx),
    "safetensors": (".safetensors", to_safetensors),
}


def deliver(network: Network, form: str, folder: Path, name: str, **options: Any) -> Path:
    """Write a network in another form into a folder, which is made if there is none; return the path."""
    suffix, write = FORMS[form]
    path = folder / (name + suffix)
    folder.mkdir(exist_ok=True)
    write(network, path, **options)
    return path
