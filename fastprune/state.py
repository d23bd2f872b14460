"""All that training and pruning change, as one object.

A network holds one `State`. Training writes into its arrays. A prune, a rewind or a restoration makes a new `State` and
puts it in its place by one assignment, so that Ctrl-C cannot leave half of it.
"""

import io
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from fastprune.files import read_npz
from fastprune.kernels.layout import Floats, Ints
from fastprune.kernels.tile import all_finite
from fastprune.storage import Storage, join

_VECTORS = ("values", "velocity", "square")


@dataclass(frozen=True, eq=False)
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
    def of(cls, storage: Storage, dtype: npt.DTypeLike) -> Self:
        """Parameters that are all 0, and that nobody has trained."""
        nothing = np.empty(0, dtype)
        return cls(storage, np.zeros(storage.live.size, dtype), nothing, nothing, np.zeros(1, np.int64))

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

    def without(self, removed: Ints) -> Self:
        """The state after these weights are gone, by position among the stored ones; what is gone is 0."""
        storage, left = self.storage.without(removed)
        vectors = [np.where(storage.live, join(v, left), 0) if v.size else v for v in self.vectors]
        return replace(self._with(*vectors), storage=storage)

    def rewound(self, earlier: "State") -> Self:
        """Parameters and optimizer as they were in an earlier state, with the present masks.

        Raises
        ------
        ValueError
            If weights that are live now were not so then.
        """
        found = earlier.storage.find(self.storage)
        vectors = [np.where(self.storage.live, then[found], 0) if then.size else then for then in earlier.vectors]
        return replace(self._with(*vectors), updates=earlier.updates.copy())

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
