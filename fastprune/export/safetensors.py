"""safetensors: tensors by name, without pickles, as Hugging Face's libraries read and write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.base import ACTIVATIONS, Network
from fastprune.export.chain import optional_loss, outgoing
from fastprune.files import atomic_write, regular
from fastprune.network import MLP

_DTYPES = {"weight": ("F32", "F64"), "bias": ("F32", "F64"), "mask": ("BOOL", "U8")}


def to_safetensors(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network's weights, biases and masks to a safetensors file.

    Tensors are named as in PyTorch: `layers.0.weight` (fan_out, fan_in) and `layers.0.bias` (fan_out,), of the
    network's dtype, and `layers.0.mask`, bool like the weights. Weights are dense, zeros included, so `network.save`
    makes smaller files. The metadata hold `activation`, and `loss` if it is known.

    Parameters
    ----------
    network : MLP or FrozenMLP
        The network, which is unchanged.
    path : str or path
        Name of the file, used without change. An existing file is replaced; the write is atomic.

    Raises
    ------
    ValueError
        If an argument is not as described, or weights or biases are not finite.
    OSError
        If the file cannot be written.
    ImportError
        If the package safetensors is not installed: `pip install "fastprune[safetensors]"`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import fastprune as fp
    >>> from fastprune.export import from_safetensors, to_safetensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "net.safetensors")
    ...     to_safetensors(fp.MLP([64, 30, 10], density=0.1, activation="tanh"), path)
    ...     from_safetensors(path)
    MLP([64, 30, 10], activation='tanh', dtype='float32', loss=None, live=222/2220)
    """
    from safetensors.numpy import save

    network, path = outgoing(network), check.file_name("path", path)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for index, layer in enumerate(map(network.layer, range(network.n_layers))):
        parts = {"weight": layer.weights, "bias": layer.bias, "mask": layer.mask}
        tensors |= {f"layers.{index}.{part}": array for part, array in parts.items()}
    content = save(tensors, {"activation": network.activation} | ({"loss": network.loss} if network.loss else {}))
    with atomic_write(path) as file:
        file.write(content)


def from_safetensors(path: str | os.PathLike[str], *, activation: str | None = None, loss: str | None = None) -> MLP:
    """Make a network from a safetensors file, written by `to_safetensors` or with names like PyTorch's.

    Each layer has a tensor `<layer>.weight` (fan_out, fan_in), and may have `<layer>.bias` (fan_out,) and
    `<layer>.mask`. Without a bias, it is 0; without a mask, all weights are live, also those that are 0. Names of
    layers differ only in numbers, which give the order: `0`, `2`, `4`, or `fc1`, `fc2`.

    Parameters
    ----------
    path : str or path
        Name of the file.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid"}, optional
        Activation of the hidden layers. If not given, the file's metadata say it.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        Loss, which says what the outputs mean; see `MLP`. If not given, the file's metadata may say it.

    Returns
    -------
    MLP
        It has the dtype of the weights, float32 or float64.

    Raises
    ------
    ValueError
        If the file does not exist, is damaged, holds tensors of other names or dtypes, layers that do not fit together,
        or NaN or infinity, or if nothing says the activation.
    ImportError
        If the package safetensors is not installed: `pip install "fastprune[safetensors]"`.

    Examples
    --------
    See `to_safetensors`.
    """
    from safetensors import safe_open

    path = check.path("path", path)
    if activation is not None:
        check.one_of("activation", activation, ACTIVATIONS)
    optional_loss(loss)
    try:
        with safe_open(regular(path), framework="numpy") as file:
            layers = _layers(file.keys())
            tensors = {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
        activation = activation or metadata.get("activation")
        if activation is None:
            raise ValueError("it does not say the activation; pass one: activation='relu'")
        weights = [tensors[f"{layer}weight"] for layer in layers]
        return MLP.from_weights(
            weights,
            [tensors.get(f"{layer}bias", np.zeros(len(w))) for layer, w in zip(layers, weights, strict=True)],
            [tensors.get(f"{layer}mask") for layer in layers],
            activation=activation,
            loss=loss or metadata.get("loss"),
            dtype=np.result_type(*weights),
        )
    except Exception as error:  # a damaged file can raise almost anything
        fault = error or type(error).__name__
        raise ValueError(f"path: expected a safetensors file of a network, got {path!r} ({fault})") from error


def _layers(names: Iterable[str]) -> list[str]:
    """Return what the names of each layer's tensors begin with, such as "layers.0.", in the order of the layers."""
    parts: dict[str, set[str]] = {}
    for name in names:
        part = name.rpartition(".")[2]
        if part not in _DTYPES:
            raise ValueError(f"expected tensors '<layer>.weight', '<layer>.bias' and '<layer>.mask', got {name!r}")
        parts.setdefault(name.removesuffix(part), set()).add(part)
    for layer, found in parts.items():
        if "weight" not in found:
            raise ValueError(f"expected {layer + 'weight'!r} beside {layer + found.pop()!r}, got none")
    if not parts:
        raise ValueError("expected at least one layer, got none")
    split = {layer: re.split(r"([0-9]+)", layer) for layer in parts}
    if len({tuple(text[::2]) for text in split.values()}) > 1:
        raise ValueError(f"expected names of layers that differ in numbers, which give the order, got {[*parts]}")
    return sorted(parts, key=lambda layer: [int(number) for number in split[layer][1::2]])


def _tensor(file: Any, name: str) -> npt.NDArray[Any]:
    expected, dtype = _DTYPES[name.rpartition(".")[2]], file.get_slice(name).get_dtype()
    if dtype not in expected:
        raise ValueError(f"{name}: expected {' or '.join(expected)}, got {dtype}")
    array: npt.NDArray[Any] = file.get_tensor(name)
    return array
