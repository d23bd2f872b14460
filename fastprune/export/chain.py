"""What the formats share: which networks go out, and which chains of layers and activations come in."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastprune import check
from fastprune.base import ACTIVATIONS, Network
from fastprune.kernels.layout import Floats
from fastprune.network import LOSSES, MLP

FLATTEN, SOFTMAX = "flatten", "softmax"  # what a link can be besides a layer or an activation of an `MLP`
_OUTPUTS = {SOFTMAX: "softmax_cross_entropy", "sigmoid": "sigmoid_cross_entropy"}  # at the end, with logits before it


class Linear(NamedTuple):
    """A layer that comes in: weights (fan_out, fan_in), bias (fan_out,), and a mask like the weights, or None."""

    weights: Floats
    bias: Floats
    mask: npt.NDArray[Any] | None


class Link(NamedTuple):
    """A part of a chain, with what errors say of it."""

    where: str  # such as "module[1]"
    what: str  # such as "ReLU"
    does: Linear | str  # a layer, the name of an activation, FLATTEN or SOFTMAX
    leave_out: str = "leave it out"  # how to get rid of it, if it stands at the end


def outgoing(network: Any) -> Network:
    """Return `network` if it is one with finite parameters, which `from_...` would take back."""
    if not isinstance(network, Network):
        raise ValueError(f"network: expected an MLP or a FrozenMLP, got {type(network).__name__}")
    if not np.isfinite(network.state.values).all():
        raise ValueError("network: only finite weights can be exported, but some are NaN or infinite")
    return network


def optional_loss(loss: Any) -> None:
    """Refuse `loss` unless it is None or the name of a loss."""
    if loss is not None:
        check.one_of("loss", loss, LOSSES)


def chained(name: str, links: Iterable[Link], loss: str | None) -> MLP:
    """Make a network of links that alternate between layers and one activation; errors about all of it use `name`."""
    layers: list[Linear] = []
    places: list[str] = []
    activations: list[Link] = []
    for link in links:
        if isinstance(link.does, Linear):
            if len(layers) > len(activations):
                raise ValueError(f"{link.where}: expected an activation between two layers, got {link.what}")
            if layers and link.does.weights.dtype != layers[0].weights.dtype:
                was, now = layers[0].weights.dtype, link.does.weights.dtype
                raise ValueError(f"{link.where}: expected {was}, as in {places[0]}, got {now}")
            layers.append(link.does)
            places.append(link.where)
        elif link.does == FLATTEN:
            if layers:
                raise ValueError(f"{link.where}: expected {link.what} before the first layer, got one after it")
        elif len(activations) == len(layers):
            raise ValueError(f"{link.where}: expected a layer before an activation, got {link.what}")
        else:
            activations.append(link)
    if not layers:
        raise ValueError(f"{name}: expected at least one layer, got none")
    if len(activations) == len(layers):
        _refuse_end(activations[-1])
    for link in activations:
        if link.does not in ACTIVATIONS:
            raise ValueError(f"{link.where}: expected one of {', '.join(ACTIVATIONS)} between layers, got {link.what}")
        if link.does != activations[0].does:
            first = activations[0].what
            raise ValueError(f"{link.where}: expected {first}, one activation for all hidden layers, got {link.what}")
    for (below, above), place in zip(pairwise(layers), places[1:], strict=True):
        if above.weights.shape[1] != len(below.weights):
            units, inputs = below.weights.shape[0], above.weights.shape[1]
            raise ValueError(f"{place}: expected {units} inputs, the units of the layer before, got {inputs}")
    weights, biases, masks = zip(*layers, strict=True)
    activation = activations[0].does if activations else "relu"
    assert isinstance(activation, str)
    try:
        return MLP.from_weights(weights, biases, masks, activation=activation, loss=loss, dtype=layers[0].weights.dtype)
    except ValueError as error:  # NaN, infinity, masks of other numbers, more weights than there can be
        raise ValueError(f"{name}: {error}") from None


def _refuse_end(link: Link) -> None:
    loss = _OUTPUTS.get(str(link.does))
    advice = f"{link.leave_out}, and pass loss={loss!r} in its place" if loss else link.leave_out
    raise ValueError(f"{link.where}: expected a layer at the end, whose outputs are logits, got {link.what}; {advice}")
