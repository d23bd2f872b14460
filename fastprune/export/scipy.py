"""SciPy: sparse matrices and biases, without a dense matrix in between."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import DTypeLike

from fastprune import check
from fastprune.base import Network
from fastprune.export.chain import outgoing
from fastprune.kernels.layout import Floats
from fastprune.network import MLP

if TYPE_CHECKING:
    import scipy.sparse


def to_scipy(network: Network) -> list[tuple[scipy.sparse.csr_array, Floats]]:
    """Return the layers of a network as sparse matrices and biases.

    Parameters
    ----------
    network : MLP or FrozenMLP
        The network, which is unchanged.

    Returns
    -------
    list of tuple
        One (matrix, bias) per layer: a `scipy.sparse.csr_array` (fan_out, fan_in) that stores the live weights, also
        those that are 0, and an ndarray (fan_out,), both of the network's dtype. They are copies.

    Raises
    ------
    ValueError
        If `network` is not as described, or weights or biases are not finite.

    Examples
    --------
    >>> import fastprune as fp
    >>> from fastprune.export import to_scipy
    >>> [(matrix.shape, matrix.nnz, bias.shape) for matrix, bias in to_scipy(fp.MLP([4, 3, 2], density=0.5))]
    [((3, 4), 5, (3,)), ((2, 3), 4, (2,))]
    """
    from scipy.sparse import csr_array

    network = outgoing(network)
    layers = map(network.layer, range(network.n_layers))
    return [(csr_array(layer.csr, shape=layer.shape, copy=True), layer.bias.copy()) for layer in layers]


def from_scipy(
    layers: Iterable[tuple[Any, npt.ArrayLike]],
    *,
    activation: str = "relu",
    loss: str | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """Make a network from sparse matrices and biases, without dense matrices in between.

    What a matrix stores is live, also zeros; everything else is pruned.

    Parameters
    ----------
    layers : iterable of tuple
        One (matrix, bias) per layer: any sparse array or matrix of SciPy, (fan_out, fan_in), and an array_like
        (fan_out,). They are copied. Entries need not be sorted; duplicates are added up, as SciPy does.
    activation : {"relu", "leaky_relu", "tanh", "sigmoid"}, default "relu"
        Activation of the hidden layers.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        Loss, which says what the outputs mean; see `MLP`.
    dtype : {"float32", "float64"}, optional
        Dtype of the network. If not given, the matrices'.

    Returns
    -------
    MLP

    Raises
    ------
    ValueError
        If an argument is not as described, layers do not fit together, or a number is NaN or infinite.

    Examples
    --------
    >>> from scipy.sparse import coo_array
    >>> from fastprune.export import from_scipy
    >>> matrix = coo_array(([2.0, 3.0], ([0, 1], [4, 0])), shape=(2, 5))
    >>> from_scipy([(matrix, [0.0, 1.0])])
    MLP([5, 2], activation='relu', dtype='float64', loss=None, live=2/10)
    """
    pairs = check.listed("layers", layers)
    matrices = [_csr(f"layers[{index}]", pair) for index, pair in enumerate(pairs)]
    for index, (below, above) in enumerate(pairwise(matrices)):
        if above.shape[1] != below.shape[0]:
            expected = f"({above.shape[0]}, {below.shape[0]})"
            raise ValueError(f"layers[{index + 1}][0]: expected a matrix {expected}, got shape {above.shape}")
    kind = check.dtype("dtype", np.result_type(*(matrix.dtype for matrix in matrices)) if dtype is None else dtype)
    positions, weights, biases = [], [], []
    for index, (matrix, pair) in enumerate(zip(matrices, pairs, strict=True)):
        fan_out, fan_in = matrix.shape
        values, bias = check.arrays(f"layers[{index}]", [matrix.data, pair[1]], [(matrix.nnz,), (fan_out,)], kind)
        rows = np.repeat(np.arange(fan_out, dtype=np.int64), np.diff(matrix.indptr))
        positions.append(rows * fan_in + matrix.indices)
        weights.append(values)
        biases.append(bias)
    sizes = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
    return MLP._of_live(sizes, activation, loss, kind, positions, weights, biases)


def _csr(name: str, pair: Any) -> scipy.sparse.csr_array:
    """Return the matrix of a pair as rows with ascending columns, each at most once."""
    import scipy.sparse

    if not isinstance(pair, tuple | list) or len(pair) != 2 or not scipy.sparse.issparse(pair[0]):
        raise ValueError(f"{name}: expected a pair of a SciPy sparse matrix and a bias, got {type(pair).__name__}")
    matrix, name = pair[0], f"{name}[0]"
    if matrix.ndim != 2 or not all(matrix.shape):
        raise ValueError(f"{name}: expected a matrix (fan_out, fan_in), got shape {matrix.shape}")
    try:
        if hasattr(matrix, "check_format"):  # of the compressed kinds, whose indices SciPy believes unread
            matrix.check_format()
    except ValueError as error:
        raise ValueError(f"{name}: expected a valid sparse matrix, got a broken one ({error})") from None
    rows = scipy.sparse.csr_array(matrix, copy=True)
    rows.sum_duplicates()
    return rows
