"""Everything that training and pruning change, as one object.

A network holds one `State`. Training writes into its arrays. Operations that change which weights are live (pruning,
regrowth, rewinding, setting weights) build a new `State` with `State.stored_in` and replace the old one in a single
assignment, so that Ctrl-C cannot leave a half-changed network.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastprune.files import read_npz
from fastprune.kernels.layout import Floats, Indices, Ints
from fastprune.storage import Storage, from_positions

_VECTORS = ("values", "velocity", "square")


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """Parameters, masks and optimizer state: what `Trainer.snapshot` copies and `Trainer.restore` puts back.

    Attributes
    ----------
    storage : Storage
        Where the parameters lie, and which are live.
    values : ndarray (P,)
        The parameters.
    velocity, square : ndarray (P,) or (0,)
        The optimizer's vectors: momentum, or Adam's two moments. Empty if the optimizer does not use them.
    updates : ndarray of int64 (1,)
        Number of updates the optimizer has made.
    groups : ndarray of int32 (P,) or (0,)
        The group of each parameter that shares its value with others, else -1; empty if none does. See `share_weights`.
    owner : object
        Identifies the trainer that `velocity`, `square` and `updates` belong to; any other trainer starts from 0.
    """

    storage: Storage
    values: Floats
    velocity: Floats
    square: Floats
    updates: Ints
    groups: Indices = field(default_factory=lambda: np.empty(0, np.int32))
    owner: object = None

    @classmethod
    def zeros(
        cls,
        sizes: list[int],
        execution: list[str],
        activation: int,
        positions: Sequence[Ints | None],
        dtype: npt.DTypeLike,
    ) -> Self:
        """Make the state of an untrained network with these live weights (see `Storage.with_live`), all 0."""
        storage = from_positions(sizes, execution, activation, positions)
        nothing = np.empty(0, dtype)
        return cls(storage, np.zeros(storage.live.size, dtype), nothing, nothing, np.zeros(1, np.int64))

    def stored_in(self, storage: Storage) -> Self:
        """Move the network to another storage, with other live weights or other layers stored sparse.

        Weights that are live in both keep their value and optimizer state. All others are 0.
        """
        sources = storage.sources(self.storage)
        kept = (sources >= 0) & (storage.live > 0)
        vectors = [np.where(kept, vector[sources], 0) if vector.size else vector for vector in self.vectors]
        groups = np.where(kept, self.groups[sources], np.int32(-1)) if self.groups.size else self.groups
        return replace(self._with(*vectors), storage=storage, updates=self.updates.copy(), groups=groups)

    def with_live(self, positions: Sequence[Ints | None]) -> Self:
        """Return the network with these live weights (see `Storage.with_live`); new ones are 0."""
        return self.stored_in(self.storage.with_live(positions))

    def with_values(self, weights: Iterable[npt.NDArray[Any]], biases: Sequence[npt.NDArray[Any]]) -> Self:
        """Return the network with new values for the live weights (one vector per layer, in C order) and the biases.

        None are shared any more.
        """
        values = np.zeros_like(self.values)
        for (low, high), layer in zip(pairwise(self.storage.layout.weights.tolist()), weights, strict=True):
            values[low:high][self.storage.live[low:high] > 0] = layer
        values[self.storage.layout.biases[0] :] = np.concatenate(biases)
        return replace(self, values=values, groups=self.groups[:0])

    def rewound(self, earlier: "State") -> Self:
        """Return the parameters and optimizer state of an earlier state, with the present masks.

        Raises
        ------
        ValueError
            If a weight that is live now was not live then.
        """
        for layer in range(len(self.storage.execution)):
            if not np.isin(self.storage.positions(layer), earlier.storage.positions(layer), assume_unique=True).all():
                raise ValueError(f"weights of layer {layer}")
        then = earlier.stored_in(self.storage)
        return replace(self._with(*then.vectors), updates=earlier.updates.copy(), groups=then.groups)

    @property
    def vectors(self) -> tuple[Floats, Floats, Floats]:
        """The parameters and the optimizer's two vectors."""
        return self.values, self.velocity, self.square

    def copy(self) -> Self:
        """Copy the state; the two share no memory."""
        return replace(self._with(*(vector.copy() for vector in self.vectors)), updates=self.updates.copy())

    def begun(self, owner: object, squares: bool) -> Self:
        """Return the parameters with a fresh optimizer state, which has `square` only if `squares`."""
        velocity = np.zeros_like(self.values)
        square = np.zeros(velocity.size if squares else 0, velocity.dtype)
        return replace(self, velocity=velocity, square=square, updates=np.zeros(1, np.int64), owner=owner)

    def __setstate__(self, parts: dict[str, Any]) -> None:
        """Read a pickle: other libraries may put its arrays into read-only memory, but training writes into them."""
        names = (*_VECTORS, "updates")
        vars(self).update(parts, **{name: np.require(parts[name], requirements=["C", "A", "W"]) for name in names})

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.storage.sizes))
        live, total = sum(self.storage.layer_live_weights), sum(self.storage.layer_total_weights)
        return f"State({sizes}, {live:,} of {total:,} weights live, {self.updates[0]:,} updates)"

    def check(self) -> None:
        """Check that the state is one that training can produce.

        Raises
        ------
        ValueError
            If a vector does not fit the storage or holds impossible values.
        """
        if not isinstance(self.storage, Storage):
            raise ValueError(f"storage: expected a Storage, got {type(self.storage).__name__}")
        size, pruned = self.storage.live.size, np.flatnonzero(self.storage.live == 0)
        for name, vector in zip(_VECTORS, self.vectors, strict=True):
            if not isinstance(vector, np.ndarray) or vector.dtype not in (np.float32, np.float64):
                raise ValueError(f"{name}: expected an array of float32 or float64, got {vector!r:.60}")
            if vector.dtype != self.values.dtype:
                raise ValueError(f"{name}: expected {self.values.dtype}, the dtype of values, got {vector.dtype}")
            if vector.shape != (size,) and (name == "values" or vector.shape != (0,)):
                raise ValueError(f"{name}: expected shape ({size},), got {vector.shape}")
            if not np.isfinite(vector).all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
            if vector.size and vector[pruned].any():
                raise ValueError(f"{name}: expected 0 where the weight is pruned")
        groups = self.groups
        if not isinstance(groups, np.ndarray) or groups.dtype != np.int32 or groups.shape not in ((size,), (0,)):
            raise ValueError(f"groups: expected int32 ({size},) or (0,), got {groups!r:.60}")
        if groups.size:
            if groups.min() < -1 or groups.max() >= size or (groups[pruned] >= 0).any():
                raise ValueError("groups: expected numbers of groups, and -1 where the weight is pruned")
            for vector in self.vectors:
                if vector.size and (vector != self._shared(vector)).any():
                    raise ValueError("groups: expected the same number in all of a group")
        if self.square.size and self.square.min() < 0:
            raise ValueError("square: expected numbers of at least 0")
        updates = self.updates
        if not isinstance(updates, np.ndarray) or updates.shape != (1,) or updates.dtype != np.int64 or updates < 0:
            raise ValueError(f"updates: expected int64 (1,) of at least 0, got {updates!r:.60}")

    def to_bytes(self) -> bytes:
        """Serialize the state as an `.npz` file without pickles, which holds only live parameters.

        Returns
        -------
        bytes
            Input for `from_bytes`. The same state gives the same bytes.

        Examples
        --------
        >>> import fastprune as fp
        >>> trainer = fp.Trainer(fp.MLP([4, 3], seed=1))
        >>> kept = trainer.snapshot().to_bytes()  # can be written to a file
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
        if self.groups.size:
            arrays["groups"] = self.groups[live]
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes an array for `allow_pickle`
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a state that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If `content` is not the complete output of `to_bytes`.
        """
        try:
            arrays = read_npz(io.BytesIO(content))
            storage = Storage.from_arrays(arrays)
            live = storage.live > 0
            vectors = {}
            for name in _VECTORS:
                kept = arrays[name]
                if kept.shape != (np.count_nonzero(live),) and (name != "square" or kept.shape != (0,)):
                    raise ValueError(f"{name}: expected one number for each live parameter, got shape {kept.shape}")
                vector = np.zeros(live.size if kept.size else 0, kept.dtype)
                vector[live[: vector.size]] = kept
                vectors[name] = vector
            groups = np.empty(0, np.int32)
            if "groups" in arrays:
                groups = np.full(live.size, -1, np.int32)
                groups[live] = arrays["groups"]
            state = cls(storage, **vectors, updates=arrays["updates"].reshape(1), groups=groups)
            state.check()
        except Exception as error:  # damaged content can raise almost anything
            raise ValueError(
                f"content: expected bytes from State.to_bytes, got something else ({error or type(error).__name__})"
            ) from error
        return state

    def _shared(self, vector: Floats) -> Floats:
        """Return the vector with the number of each group's first parameter in all of the group."""
        named, firsts = np.unique(self.groups, return_index=True)
        return np.where(self.groups < 0, vector, vector[firsts[np.searchsorted(named, self.groups)]])

    def _with(self, values: Floats, velocity: Floats, square: Floats) -> Self:
        return replace(self, values=values, velocity=velocity, square=square)
