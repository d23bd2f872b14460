"""All that training and pruning change, as one object.

A network holds one `State`. Training writes into its arrays. What changes which weights are live - a prune, regrowth, a
rewind, weights from elsewhere - makes a new `State` by `State.stored_in`, and puts it in its place by one assignment,
so that Ctrl-C cannot leave half of it.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastprune.files import read_npz
from fastprune.kernels.layout import Floats, Ints
from fastprune.kernels.tile import all_finite
from fastprune.storage import Storage, from_positions

_VECTORS = ("values", "velocity", "square")


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """What `Trainer.snapshot` copies and `Trainer.restore` puts back.

    Attributes
    ----------
    storage : Storage
        Where the parameters lie, and which are live.
    values : ndarray (P,)
        The parameters.
    velocity, square : ndarray (P,) or (0,)
        What the optimizer keeps of each: momentum, or Adam's two moments. Empty if it keeps no such thing.
    updates : ndarray of int64 (1,)
        The optimizer's updates so far.
    owner : object
        Identifies the trainer to whom `velocity`, `square` and `updates` belong; any other one starts from 0.
    """

    storage: Storage
    values: Floats
    velocity: Floats
    square: Floats
    updates: Ints
    owner: object = None

    @classmethod
    def empty(cls, sizes: list[int], execution: list[str], activation: int, dtype: npt.DTypeLike) -> Self:
        """A network without live weights, whose biases are 0, that nobody has trained."""
        storage = from_positions(sizes, execution, activation, [np.empty(0, np.int64)] * len(execution))
        nothing = np.empty(0, dtype)
        return cls(storage, np.zeros(storage.live.size, dtype), nothing, nothing, np.zeros(1, np.int64))

    def stored_in(self, storage: Storage) -> Self:
        """The same network as another storage has it: where other weights are live, or layers run another way.

        Weights that are live in both keep their values and what the optimizer keeps of them. All others are 0.
        """
        sources = storage.sources(self.storage)
        kept = (sources >= 0) & (storage.live > 0)
        vectors = [np.where(kept, vector[sources], 0) if vector.size else vector for vector in self.vectors]
        return replace(self._with(*vectors), storage=storage, updates=self.updates.copy())

    def with_live(self, positions: Sequence[Ints | None]) -> Self:
        """The same network with these live weights, see `Storage.with_live`; new ones are 0."""
        return self.stored_in(self.storage.with_live(positions))

    def with_values(self, weights: Iterable[npt.NDArray[Any]], biases: Sequence[npt.NDArray[Any]]) -> Self:
        """The same live weights with these values, one vector a layer, in C order; and biases."""
        values = np.zeros_like(self.values)
        for (low, high), layer in zip(pairwise(self.storage.layout.weights.tolist()), weights, strict=True):
            values[low:high][self.storage.live[low:high] > 0] = layer
        values[self.storage.layout.biases[0] :] = np.concatenate(biases)
        return replace(self, values=values)

    def rewound(self, earlier: "State") -> Self:
        """Parameters and optimizer as they were in an earlier state, with the present masks.

        Raises
        ------
        ValueError
            If weights that are live now were not so then.
        """
        for layer in range(len(self.storage.execution)):
            if not np.isin(self.storage.positions(layer), earlier.storage.positions(layer), assume_unique=True).all():
                raise ValueError(f"weights of layer {layer}")
        then = earlier.stored_in(self.storage)
        return replace(self._with(*then.vectors), updates=earlier.updates.copy())

    @property
    def vectors(self) -> tuple[Floats, Floats, Floats]:
        """The parameters, and what the optimizer keeps of each."""
        return self.values, self.velocity, self.square

    def copy(self) -> Self:
        """The same, in memory of its own."""
        return replace(self._with(*(vector.copy() for vector in self.vectors)), updates=self.updates.copy())

    def begun(self, owner: object, squares: bool) -> Self:
        """The same parameters, for an optimizer that has made no update; with `squares` it keeps two vectors."""
        velocity = np.zeros_like(self.values)
        square = np.zeros(velocity.size if squares else 0, velocity.dtype)
        return replace(self, velocity=velocity, square=square, updates=np.zeros(1, np.int64), owner=owner)

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.storage.sizes))
        live, total = sum(self.storage.layer_live_weights), sum(self.storage.layer_total_weights)
        return f"State({sizes}, {live:,} of {total:,} weights live, {self.updates[0]:,} updates)"

    def check(self) -> None:
        """Refuse what no training leaves behind.

        Raises
        ------
        ValueError
            If a vector does not fit the storage, or holds what it cannot.
        """
        if not isinstance(self.storage, Storage):
            raise ValueError(f"storage: expected a Storage, got {type(self.storage).__name__}")
        size, pruned = self.storage.live.size, np.flatnonzero(self.storage.live == 0)
        for name, vector in zip(_VECTORS, self.vectors, strict=True):
            if not isinstance(vector, np.ndarray) or vector.dtype not in (np.float32, np.float64):
                raise ValueError(f"{name}: expected an array of float32 or float64, got {vector!r:.60}")
            if vector.dtype != self.values.dtype:
                raise ValueError(f"{name}: expected {self.values.dtype}, as the values have, got {vector.dtype}")
            if vector.shape != (size,) and (name == "values" or vector.shape != (0,)):
                raise ValueError(f"{name}: expected shape ({size},), got {vector.shape}")
            if not all_finite(vector):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
            if vector.size and vector[pruned].any():
                raise ValueError(f"{name}: expected 0 where the weight is pruned")
        if self.square.size and self.square.min() < 0:
            raise ValueError("square: expected numbers of at least 0")
        updates = self.updates
        if not isinstance(updates, np.ndarray) or updates.shape != (1,) or updates.dtype != np.int64 or updates < 0:
            raise ValueError(f"updates: expected int64 (1,) of at least 0, got {updates!r:.60}")

    def to_bytes(self) -> bytes:
        """The state as the content of an `.npz` file without pickles, of the size of its live parameters.

        Returns
        -------
        bytes
            For `from_bytes`. The same state gives the same bytes.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([4, 3], seed=1))
        >>> kept = trainer.snapshot().to_bytes()  # to be written to a file, say
        >>> other = fp.Trainer(fp.MLP([4, 3], seed=2))
        >>> other.restore(fp.State.from_bytes(kept))
        >>> bool((other.network.weights[0] == trainer.network.weights[0]).all())
        True
        """
        file = io.BytesIO()
        live = self.storage.live > 0
        vectors = [vector[live] if vector.size else vector for vector in self.vectors]
        arrays = self.storage.to_arrays() | dict(zip(_VECTORS, vectors, strict=True))
        arrays["updates"] = self.updates.reshape(())
        np.savez(file, **arrays)  # type: ignore[arg-type]  # taken for `allow_pickle`
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The state that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is not the whole of what `to_bytes` gave.
        """
        try:
            arrays = read_npz(io.BytesIO(content))
            storage = Storage.from_arrays(arrays)
            live = storage.live > 0
            vectors = []
            for name in _VECTORS:
                kept = arrays[name]
                if kept.shape != (np.count_nonzero(live),) and (name != "square" or kept.shape != (0,)):
                    raise ValueError(f"{name}: expected one number for each live parameter, got shape {kept.shape}")
                vector = np.zeros(live.size if kept.size else 0, kept.dtype)
                vector[live[: vector.size]] = kept
                vectors.append(vector)
            values, velocity, square = vectors
            state = cls(storage, values, velocity, square, arrays["updates"].reshape(1))
            state.check()
        except Exception as error:  # whatever it is: nonsense can go wrong in any way
            raise ValueError(
                f"content: expected what State.to_bytes gave, got something else ({error or type(error).__name__})"
            ) from error
        return state

    def _with(self, values: Floats, velocity: Floats, square: Floats) -> Self:
        return replace(self, values=values, velocity=velocity, square=square)
