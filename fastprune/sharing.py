"""Shared weights: a layer's live weights take few values, which later training moves together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fastprune import check
from fastprune.evaluation import LabelledSet, checked_samples, evaluate, loss_of
from fastprune.kernels.layout import Floats, Ints
from fastprune.network import MLP
from fastprune.rules import to_unit
from fastprune.state import State
from fastprune.team import Threads

AUTO = "auto"
MOST_BITS = 8  # 256 values


def share_weights(
    network: MLP,
    bits: int | Sequence[int] | str,
    *,
    bias_bits: int | None = None,
    validation: LabelledSet | None = None,
    max_increase: float = 0.05,
) -> None:
    """Replace the live weights of each layer by at most 2**bits values, which are trained as one from now on.

    The values are found by k-means with linear initialization (Han, Mao, Dally 2016, "Deep Compression", section 3).
    Training then moves the values and keeps the assignment: the gradient of a value is the sum of its weights', so that
    a small learning rate, such as 0.003, is enough. Pruning takes weights out of their groups. What optimizers keep is
    reset. `MLP.set_weights` ends the sharing; `MLP.save` keeps the values, but not that they are trained as one.

    Parameters
    ----------
    network : MLP
        Network to change in place.
    bits : int, sequence of int, or "auto"
        Bits of each layer's weights, 1 to 8; one number for all layers, or one for each. "auto" takes for each layer
        the smallest number with which the loss on `validation` rises by at most `max_increase`, while the other layers
        stay as they are; later training makes up for part of it.
    bias_bits : int or None, default None
        Bits of each layer's biases, 1 to 8. None: biases do not share values.
    validation : (x, y), optional
        Held-out set, as for `Trainer.fit`; for bits "auto", and only then.
    max_increase : float, default 0.05
        For bits "auto": fraction of the loss, at least 0.

    Raises
    ------
    ValueError
        If an argument is not as described. The network is then unchanged.

    Examples
    --------
    >>> import fastprune as fp
    >>> import numpy as np
    >>> network = fp.MLP([64, 30, 10], density=0.1)
    >>> fp.share_weights(network, bits=2)
    >>> [np.unique(network.layer(i).csr.data).size for i in range(2)]
    [4, 4]
    """
    if not isinstance(network, MLP):
        raise ValueError(f"network: expected an MLP, got {type(network).__name__}")
    if (validation is None) == (isinstance(bits, str) and bits == AUTO):
        got = "none" if validation is None else f"samples with bits {check.shown(bits)}"
        raise ValueError(f"validation: expected samples if bits is 'auto', and only then, got {got}")
    check.number("max_increase", max_increase, "[0, inf)")
    of_biases = None if bias_bits is None else check.integer("bias_bits", bias_bits, 1, MOST_BITS)
    if validation is None:
        of_weights = bits_of_layers("bits", bits, network.n_layers)
    else:
        loss = loss_of(network, check.pair("validation", validation)[1])
        samples = checked_samples(network, "validation", validation, loss)
        with Threads(-1) as threads:
            of_weights = _fewest(network, lambda state: evaluate(state, samples, loss, threads).loss, max_increase)
    network.state = _shared(network, of_weights, [of_biases] * network.n_layers)


def bits_of_layers(name: str, bits: int | Sequence[int] | str, layers: int) -> list[int]:
    """Return the bits of each layer's weights. Raises ValueError if they are not as `share_weights` describes."""
    if isinstance(bits, np.ndarray):
        bits = bits.tolist()
    given = bits if isinstance(bits, list | tuple) else [bits] * layers
    if len(given) != layers:
        raise ValueError(f"{name}: expected one number for each of {layers} layers, got {len(given)}")
    return [check.integer(name, number, 1, MOST_BITS) for number in given]


def _fewest(network: MLP, loss_of_state: Callable[[State], float], max_increase: float) -> list[int]:
    """Return the fewest bits of each layer with which its sharing alone raises the loss by no more than a fraction."""
    bar = loss_of_state(network.state) * (1 + max_increase)
    nothing: list[int | None] = [None] * network.n_layers

    def fits(layer: int, bits: int) -> bool:
        alone = [bits if index == layer else None for index in range(network.n_layers)]
        return loss_of_state(_shared(network, alone, nothing)) <= bar

    layers = range(network.n_layers)
    return [next((bits for bits in range(1, MOST_BITS) if fits(layer, bits)), MOST_BITS) for layer in layers]


def _shared(network: MLP, of_weights: Sequence[int | None], of_biases: Sequence[int | None]) -> State:
    """Return the network's state with shared values; None leaves the weights or the biases of a layer alone."""
    state, layers = network.state, [network.layer(index) for index in range(network.n_layers)]
    numbers = [layer.csr.data for layer in layers] + [layer.bias for layer in layers]
    kept, groups, count = [], [], 0
    for own, bits in zip(numbers, [*of_weights, *of_biases], strict=True):
        if bits is None:
            kept.append(own)
            groups.append(np.full(own.size, -1))
            continue
        values, nearest = _clusters(own, 2**bits)
        kept.append(values[nearest])
        groups.append(nearest + count)
        count += values.size
    stored = np.full(state.values.size, -1, np.int32)
    stored[state.storage.live > 0] = np.concatenate(groups)
    changed = state.with_values(kept[: len(layers)], kept[len(layers) :])
    return replace(changed, groups=stored, owner=None)


def _clusters(numbers: Floats, count: int) -> tuple[Floats, Ints]:
    """Return at most `count` values, ascending, and the index of the one nearest to each number: k-means."""
    distinct, index, times = np.unique(numbers, return_inverse=True, return_counts=True)
    if distinct.size <= count:
        return distinct, index
    points, exponent = to_unit(distinct.astype(np.float64))
    values = np.linspace(points[0], points[-1], count)
    best = np.inf
    while True:
        nearest = np.unique(np.searchsorted((values[1:] + values[:-1]) / 2, points), return_inverse=True)[1]
        values = np.bincount(nearest, times * points) / np.bincount(nearest, times)  # without those of no numbers
        error = float(times @ (points - values[nearest]) ** 2)
        if not error < best:  # it falls until nothing changes, up to rounding
            return np.ldexp(values, exponent).astype(numbers.dtype), nearest[index]
        best = error
