"""How large the file of a network is, beside the forms of the Deep Compression paper (Han, Mao and Dally 2016)."""

import gzip
import heapq
import io
import lzma
from typing import NamedTuple

import numpy as np

from fastprune.base import Network
from fastprune.coded import encode
from fastprune.frozen import FrozenMLP, freeze
from fastprune.kernels.layout import Ints

_NUMBER = 4  # bytes of a float32, and of an index in CSR
_GAP_BITS = (5, 8)  # of relative indices, in fully connected and in convolutional layers of the paper


class FileSizes(NamedTuple):
    """Sizes of a network in bytes, made by `file_sizes`.

    Attributes
    ----------
    dense : int
        All weights and biases in float32, with those that were pruned.
    csr : int
        Live weights in compressed sparse rows: a float32 and 32 bits of column each, and where each row begins.
    relative : int
        Codes of shared values and, for each weight, 5 or 8 bits of distance to the one before, whichever takes less in
        a layer; zeros fill distances that are too long. Tables of values in float32.
    huffman : int
        The same with codes and distances in Huffman codes of their own for each layer, with a byte for each length.
    npz, gzip, xz : int
        The file of `save`, and the same arrays in an archive without compression that gzip or xz compresses.
    coded : int
        The file of `save(..., coded=True)`.
    """

    dense: int
    csr: int
    relative: int
    huffman: int
    npz: int
    gzip: int
    xz: int
    coded: int


def file_sizes(network: Network) -> FileSizes:
    """Return the size of a network in several forms, to see what each step of Deep Compression gains.

    Parameters
    ----------
    network : MLP or FrozenMLP
        A network, pruned, and with few distinct values a layer, if it is to be small.

    Returns
    -------
    FileSizes
        All sizes but `dense` are of the frozen form (see `MLP.freeze`), with float32 biases in the first four. The last
        four are of real files.

    Examples
    --------
    >>> import fastprune as fp
    >>> sizes = fp.file_sizes(fp.MLP([784, 300, 10], density=0.02))
    >>> sizes.dense
    954040
    >>> sizes.csr > sizes.npz > sizes.coded
    True
    """
    frozen = network if isinstance(network, FrozenMLP) else freeze(network)
    arrays = frozen._arrays()
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **arrays)  # type: ignore[arg-type]  # an array for `allow_pickle`
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    biases = _NUMBER * sum(frozen.sizes[1:])
    rows = sum(frozen.sizes[1:]) + frozen.n_layers
    layers = [_indexed(frozen, layer) for layer in range(frozen.n_layers)]
    return FileSizes(
        dense=_NUMBER * (network.total_weights + sum(network.sizes[1:])),
        csr=_NUMBER * (2 * frozen.live_weights + rows) + biases,
        relative=sum(relative for relative, _ in layers) + biases,
        huffman=sum(huffman for _, huffman in layers) + biases,
        npz=len(packed.getvalue()),
        gzip=len(gzip.compress(plain.getvalue())),
        xz=len(lzma.compress(plain.getvalue())),
        coded=len(encode(frozen.state, frozen.loss)),
    )


def _indexed(frozen: FrozenMLP, layer: int) -> tuple[int, int]:
    """Return the bytes of a layer with relative indices and codes, and the same with Huffman codes."""
    positions = frozen.state.storage.positions(layer)
    table, codes = np.unique(frozen.layer(layer).csr.data, return_inverse=True)
    relative, huffman = [], []
    for bits in _GAP_BITS:
        most = 2**bits - 1  # a distance that is filled by a zero
        gaps = np.diff(positions, prepend=-1) - 1
        fillers = int((gaps // most).sum())
        values = table.size + (fillers > 0)
        width = bits + max(1, (values - 1).bit_length())
        relative.append(_NUMBER * values + -(-(codes.size + fillers) * width // 8))
        distances = np.append(np.bincount(gaps % most, minlength=most), fillers)
        shared = np.append(np.bincount(codes, minlength=table.size), fillers)
        bits = _huffman_bits(distances) + _huffman_bits(shared)
        huffman.append((_NUMBER + 1) * values + most + 1 + -(-bits // 8))
    return min(relative), min(huffman)


def _huffman_bits(counts: Ints) -> int:
    """Return the total length of a Huffman code for symbols that come so often; a lone symbol takes a bit."""
    heap = counts[counts > 0].tolist()
    if len(heap) < 2:
        return sum(heap)
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total
