"""PyTorch: an `nn.Sequential` with the masks of `torch.nn.utils.prune`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.base import Network
from fastprune.export.chain import FLATTEN, SOFTMAX, Linear, Link, chained, optional_loss, outgoing
from fastprune.kernels.constants import SLOPE
from fastprune.network import MLP

if TYPE_CHECKING:
    import torch

_ACTIVATIONS = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_LINKS = {**_ACTIVATIONS, "Flatten": FLATTEN, "Softmax": SOFTMAX, "LogSoftmax": SOFTMAX}
_PASSED = ("Dropout", "Identity")
_SUPPORTED = ", ".join(["Linear", *_ACTIVATIONS, "Flatten", *_PASSED])


def from_torch(module: torch.nn.Sequential, *, loss: str | None = None) -> MLP:
    """Make a network from a PyTorch module.

    Masks of `torch.nn.utils.prune` become masks of the network. A pruned bias is 0, but can be trained. Without masks,
    all weights are live, also those that are 0. Dropout is left out: `Trainer` has its own.

    Parameters
    ----------
    module : torch.nn.Sequential
        Linear layers with one kind of activation between them: ReLU, LeakyReLU (with a slope of 0.01), Tanh or Sigmoid.
        Dropout and Identity may stand anywhere, Flatten before the first layer. Sequentials may be nested. Parameters
        are float32 or float64, on the CPU. The module is unchanged, and shares no memory with the network.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        Loss, which says what the outputs mean; see `MLP`.

    Returns
    -------
    MLP
        Its `logits` equal the module's outputs up to rounding. It has the module's dtype.

    Raises
    ------
    ValueError
        If the module holds anything else, an activation after the last layer, layers that do not fit together, or
        NaN or infinity. The error names the part.
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> import torch
    >>> from fastprune.export import from_torch
    >>> from_torch(torch.nn.Sequential(torch.nn.Linear(64, 30), torch.nn.Tanh(), torch.nn.Linear(30, 10)))
    MLP([64, 30, 10], activation='tanh', dtype='float32', loss=None, live=2220/2220)
    """
    import torch

    optional_loss(loss)
    if not _is_sequential(module):
        raise ValueError(
            f"module: expected a torch.nn.Sequential, got {type(module).__name__}; put its layers into one, in the "
            "order in which forward calls them"
        )
    with torch.no_grad():
        return chained("module", _links("module", module), loss)


def to_torch(network: Network, *, masks: bool = True) -> torch.nn.Sequential:
    """Make a PyTorch module from a network.

    Parameters
    ----------
    network : MLP or FrozenMLP
        The network, which is unchanged.
    masks : bool, default True
        Whether each layer is put under its mask by `torch.nn.utils.prune`, so that PyTorch, too, keeps pruned weights
        at 0 in training. Otherwise they are plain zeros.

    Returns
    -------
    torch.nn.Sequential
        Linear layers, with an activation between them, of the network's dtype. Its outputs are the network's `logits`,
        up to rounding.

    Raises
    ------
    ValueError
        If an argument is not as described, or weights or biases are not finite.
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> import torch
    >>> import fastprune as fp
    >>> from fastprune.export import to_torch
    >>> module = to_torch(fp.MLP([64, 30, 10], density=0.1))
    >>> module(torch.zeros(1, 64)).shape, int(module[0].weight_mask.sum() + module[2].weight_mask.sum())
    (torch.Size([1, 10]), 222)
    """
    import torch
    from torch.nn.utils import prune

    network, masks = outgoing(network), check.boolean("masks", masks)
    modules = []
    for layer in map(network.layer, range(network.n_layers)):
        fan_out, fan_in = layer.shape
        linear = torch.nn.Linear(fan_in, fan_out, device="meta")  # takes no memory and draws no random numbers
        linear.weight = torch.nn.Parameter(torch.tensor(layer.weights))
        linear.bias = torch.nn.Parameter(torch.tensor(layer.bias))
        if masks:
            prune.custom_from_mask(linear, "weight", torch.tensor(layer.mask))
        modules += [linear, _activation(network.activation)]
    return torch.nn.Sequential(*modules[:-1])


def _activation(name: str) -> torch.nn.Module:
    import torch

    if name == "leaky_relu":
        return torch.nn.LeakyReLU(SLOPE)
    (kind,) = (there for there, here in _ACTIVATIONS.items() if here == name)
    return getattr(torch.nn, kind)()


def _is_sequential(module: Any) -> bool:
    """Whether its parts are called one after the other: a subclass may call them as it likes."""
    from torch import nn

    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _links(name: str, module: torch.nn.Sequential) -> Iterator[Link]:
    """Yield what the parts of a Sequential mean. Only exact types count: subclasses may do anything."""
    from torch import nn

    for index, part in enumerate(module):
        where, kind = f"{name}[{index}]", type(part)
        what = kind.__name__ if getattr(nn, kind.__name__, None) is kind else ""
        if _is_sequential(part):
            yield from _links(where, part)
        elif what == "Linear":
            yield Link(where, what, _linear(where, part))
        elif what == "LazyLinear":
            raise ValueError(f"{where}: expected a layer of known size, got LazyLinear; call the module once before")
        elif what == "LeakyReLU" and part.negative_slope != SLOPE:
            raise ValueError(f"{where}: expected LeakyReLU with a slope of {SLOPE}, got {part.negative_slope}")
        elif what == "Flatten" and (part.start_dim, part.end_dim) != (1, -1):
            raise ValueError(f"{where}: expected Flatten of all but the first axis, got {part}")
        elif what in _LINKS:
            yield Link(where, what, _LINKS[what])
        elif what not in _PASSED:
            raise ValueError(f"{where}: expected one of {_SUPPORTED}, or a Sequential of these, got {kind.__name__}")


def _linear(where: str, part: torch.nn.Linear) -> Linear:
    """Return a layer's parameters; under `torch.nn.utils.prune`, those before the mask, and the mask."""
    own = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
    weights, mask = _parameter(where, own, "weight")
    if part.bias is None:
        return Linear(weights, np.zeros(len(weights), weights.dtype), mask)
    bias, bias_mask = _parameter(where, own, "bias")
    return Linear(weights, bias if bias_mask is None else bias * bias_mask, mask)


def _parameter(
    where: str, own: Mapping[str, torch.Tensor], name: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    if name in own:
        return _array(where, name, own[name]), None
    original, mask = f"{name}_orig", f"{name}_mask"
    if original in own and mask in own:
        return _array(where, original, own[original]), _array(where, mask, own[mask])
    raise ValueError(
        f"{where}: expected a {name} that is a parameter, or pruned by torch.nn.utils.prune, got one that is computed "
        f"from {', '.join(own)}; make it permanent before"
    )


def _array(where: str, name: str, tensor: torch.Tensor) -> npt.NDArray[Any]:
    import torch

    if tensor.device.type != "cpu":
        advice = "which holds no numbers" if tensor.is_meta else "module.cpu() brings it here"
        raise ValueError(f"{where}: expected {name} on the CPU, got device {tensor.device}; {advice}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{where}: expected {name} of float32 or float64, got {str(tensor.dtype).removeprefix('torch.')}; "
            "module.float() converts it"
        )
    if tensor.layout != torch.strided:
        raise ValueError(f"{where}: expected {name} as a dense tensor, got layout {tensor.layout}")
    array: npt.NDArray[Any] = tensor.detach().numpy()
    return array
