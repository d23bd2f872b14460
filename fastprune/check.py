"""Argument checks: accept and convert a value, or raise a ValueError "name: expected ..., got ..."."""

import inspect
import numbers
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastprune import kernels
from fastprune.kernels.layout import Features, Floats, Ints


def shown(value: Any) -> str:
    """Format `value` for an error message."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists thousands deep
        return f"one {type(value).__name__} too long to show"


def path(name: str, value: Any) -> str:
    """Return `value` as a str if it is a file name; a number would be taken for an open file."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected a str or os.PathLike, got {type(text).__name__}")
    try:
        if b"\0" not in os.fsencode(text):
            return text
    except UnicodeError:  # lone surrogates
        pass
    raise ValueError(f"{name}: expected a valid file name, got {text!r}")


def file_name(name: str, value: Any) -> str:
    """Return `value` as a str if a file of that name could be written: a path that does not end in a folder."""
    text = path(name, value)
    if not Path(text).name:
        raise ValueError(f"{name}: expected the name of a file, got {text!r}")
    return text


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def number(name: str, value: Any, interval: str) -> float:
    """Return `value` as a float if it is a real number in `interval`, such as "[0, 1)", which excludes 1."""
    low, high = map(float, interval[1:-1].split(","))
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            result = float(value)
        except OverflowError:  # an integer too large for a float
            result = float("nan")
        above = result > low if interval[0] == "(" else result >= low
        below = result < high if interval[-1] == ")" else result <= high
        if above and below:
            return result
    raise ValueError(f"{name}: expected a number in {interval}, got {shown(value)}")


def integer(name: str, value: Any, low: int, high: int = 2**63 - 1) -> int:
    """Return `value` as an int if it is a whole number from `low` to `high`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < low:
        raise ValueError(f"{name}: expected an integer of at least {low}, got {shown(value)}")
    if int(value) > high:
        raise ValueError(f"{name}: expected an integer of at most {high}, got {shown(value)}")
    return int(value)


def layer(name: str, value: Any, count: int) -> int:
    """Return `value` as the index of one of `count` layers, from 0; negative ones count from the end."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not -count <= int(value) < count:
        raise ValueError(f"{name}: expected layers in {-count} .. {count - 1}, got {shown(value)}")
    return int(value) % count


def boolean(name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {shown(value)}")
    return value


def function(name: str, value: Any, expected: str) -> Any:
    """Return `value` if it can be called with one argument; the error message says `expected`."""
    try:
        if callable(value):
            inspect.signature(value, follow_wrapped=False).bind(None)
            return value
    except TypeError as error:
        raise ValueError(f"{name}: expected {expected}, got {shown(value)} ({error})") from None
    except ValueError:  # some built-in functions have no signature
        return value
    raise ValueError(f"{name}: expected {expected}, got {shown(value)}")


def callback(name: str, value: Any, told: str) -> None:
    """Refuse `value` unless it is None or a function that takes `told`."""
    if value is not None:
        function(name, value, f"a function that takes {told}")


class Checked:
    """Base class that checks attributes whenever they are set, with the functions in `_checks`."""

    _checks: ClassVar[Mapping[str, Callable[[str, Any], Any]]]

    def __setattr__(self, name: str, value: Any) -> None:
        check = self._checks.get(name)
        object.__setattr__(self, name, value if check is None else check(name, value))


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Return the same check, but one that also accepts None."""
    return lambda name, value: None if value is None else check(name, value)


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return `value` if it is a pair of samples and labels."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
        raise ValueError(f"{name}: expected a pair (x, y), got {type(value).__name__}{size}")
    return value[0], value[1]


def dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return `value` as float32 or float64, in native byte order."""
    try:
        result = np.dtype("O" if value is None else value)
    except TypeError:
        result = np.dtype(object)
    if result.name not in ("float32", "float64"):
        raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")
    return np.dtype(result.name)


_OF_TEXT = "; np.unique({0}, return_inverse=True)[1] gives classes from 0"


def _numeric(
    name: str, value: Any, expected: str, of_text: str = "", shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """Return `value` as an array of numbers, of `shape` if given."""
    if np.ma.is_masked(value) or (isinstance(value, list | tuple) and any(map(np.ma.is_masked, value))):
        raise ValueError(f"{name}: expected {expected}, got a masked array; fill or drop the masked values")
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise ValueError(f"{name}: expected {expected}, got {type(value).__name__} with unequal rows") from None
    except (RuntimeError, TypeError) as error:  # a tensor on another device, or one that requires a gradient
        raise ValueError(f"{name}: expected {expected}, got {type(value).__name__} ({error})") from None
    if array.dtype.kind in "SU" or (array.dtype == object and array.size and isinstance(array.flat[0], str)):
        raise ValueError(f"{name}: expected {expected}, got text{of_text.format(name)}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected {expected}, got dtype {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
    return array


def _floats(name: str, array: npt.NDArray[Any], dtype: npt.DTypeLike, expected: str) -> Floats:
    """Return a finite, C-ordered, aligned, writable array; Numba would compile again for any other kind."""
    with np.errstate(over="ignore"):  # an overflow is found below
        floats = np.require(array, dtype, ["C", "A", "W"])
    if not kernels.all_finite(floats.reshape(-1)):
        raise ValueError(f"{name}: expected {expected}, got NaN or infinity")
    return floats


def arrays(
    name: str, value: Any, shapes: Sequence[tuple[int, ...]], dtype: npt.DTypeLike, taken: Sequence[Ints] | None = None
) -> list[Floats]:
    """Return `value` as a list of finite arrays of these shapes, or as vectors of the elements `taken` of each."""
    found = []
    for index, (one, shape) in enumerate(zip(_one_each(name, value, len(shapes)), shapes, strict=True)):
        expected = f"finite {np.dtype(dtype)} of shape {shape}"
        array = _numeric(f"{name}[{index}]", one, expected, shape=shape)
        if taken is not None:
            array = array.reshape(-1)[taken[index]]
        found.append(_floats(f"{name}[{index}]", array, dtype, expected))
    return found


def matrix(name: str, value: Any) -> npt.NDArray[Any]:
    """Return `value` as a non-empty array of numbers with two axes."""
    array = _numeric(name, value, "numbers of shape (fan_out, fan_in)")
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: expected numbers of shape (fan_out, fan_in), got shape {array.shape}")
    return array


def scores(name: str, value: Any, count: int) -> Floats:
    """Return `value`, the result of a user's function, as `count` numbers that can be ranked."""
    expected = f"a function that returns {count} scores, one per live weight"
    array = _numeric(name, value, expected, shape=(count,))
    if np.isnan(array).any():
        raise ValueError(f"{name}: expected {expected}, got NaN")
    return array.astype(np.float64)


def masks(name: str, value: Any, shapes: Sequence[tuple[int, ...]]) -> list[npt.NDArray[np.bool_] | None]:
    """Return `value` as a list with a boolean mask, or None, for each of these shapes; zeros and ones are accepted."""
    found: list[npt.NDArray[np.bool_] | None] = []
    for index, (one, shape) in enumerate(zip(_one_each(name, value, len(shapes)), shapes, strict=True)):
        if one is None:
            found.append(None)
            continue
        expected = f"a boolean array of shape {shape}, or None"
        array = _numeric(f"{name}[{index}]", one, expected, shape=shape)
        if array.dtype != bool and not ((array == 0) | (array == 1)).all():
            raise ValueError(f"{name}[{index}]: expected {expected}, got numbers other than 0 and 1")
        found.append(array.astype(bool))
    return found


def listed(name: str, value: Any) -> list[Any]:
    """Return `value`, any iterable, as a list with at least one item."""
    try:
        items = list(value)
    except TypeError:
        items = []
    if not items or isinstance(value, str | Mapping):
        raise ValueError(f"{name}: expected a list of at least one array, got {shown(value):.60}")
    return items


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    items = listed(name, value)
    if len(items) != count:
        raise ValueError(f"{name}: expected a list of {count} arrays, one per layer, got {len(items)}")
    return items


def samples(name: str, x: Any, features: int, dtype: npt.DTypeLike) -> Any:
    """Return `x` as (N, features) of `dtype`, N at least 1: an array, or a SciPy `csr_array` if `x` is sparse."""
    if type(x) is np.ndarray and x.dtype == dtype and x.ndim == 2 and x.shape[1] == features and x.size:
        floats: Floats = x
        if floats.flags.carray and kernels.all_finite(floats.reshape(-1)):
            return floats  # fast path: predicting one sample takes only a few microseconds
    expected = f"finite numbers of shape (N, {features})"
    sparse = hasattr(x, "tocsr")
    array: Any = _csr(name, x, dtype, expected) if sparse else _numeric(name, x, expected)
    if array.ndim != 2 or array.shape[1] != features:
        advice = ""
        if array.shape == (features,):
            advice = f"; a single sample is {name}.reshape(1, -1)"
        elif array.ndim > 2 and int(np.prod(array.shape[1:])) == features:
            advice = f"; {name}.reshape(len({name}), -1) makes each sample a row"
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}{advice}")
    if array.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, got none")
    if sparse:
        _floats(name, array.data, dtype, expected)
        return array
    return _floats(name, array, dtype, expected)


def _csr(name: str, x: Any, dtype: npt.DTypeLike, expected: str) -> Any:
    """Return a sparse array or matrix of SciPy as a `csr_array` of `dtype`, each element at most once."""
    from scipy.sparse import csr_array  # imported here because it takes as long as importing all of fastprune

    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected {expected}, got dtype {x.dtype}")
    with np.errstate(over="ignore"):  # an overflow is found later
        csr = csr_array(x, dtype=dtype)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def sample_weight(name: str, value: Any, count: int) -> npt.NDArray[np.float64]:
    """Return `value` as weights of `count` samples, scaled to be 1 on average; None means 1 for all."""
    if value is None:
        return np.ones(count)
    expected = f"numbers of at least 0 of shape ({count},), not all of them zero"
    weights = _floats(name, _numeric(name, value, expected, shape=(count,)), np.float64, expected)
    if weights.min() < 0 or not weights.any():
        raise ValueError(f"{name}: expected {expected}, got values from {weights.min():g} to {weights.max():g}")
    parts = weights / weights.max()  # their sum cannot overflow
    scaled: npt.NDArray[np.float64] = parts * (count / parts.sum())
    return scaled


def whole(array: npt.NDArray[Any]) -> bool:
    """Whether all numbers are whole, so that they can be classes, whatever their dtype."""
    return array.dtype.kind in "biu" or bool((array == np.round(array)).all())


def _one_hot(array: npt.NDArray[Any], outputs: int) -> bool:
    """Whether each row is a single 1 and otherwise 0."""
    if array.ndim != 2 or array.shape[1] != outputs or outputs == 1 or not array.size:
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def infer_loss(name: str, y: Any, outputs: int) -> str:
    """Infer the loss from the labels; see `fastprune.MLP`."""
    array = _numeric(name, y, "numbers", _OF_TEXT)
    if outputs > 1 and array.ndim == 1 and whole(array):
        return "softmax_cross_entropy"
    yes_or_no = bool(((array == 0) | (array == 1)).all())
    if _one_hot(array, outputs):
        raise ValueError(
            f"{name}: expected classes or several labels per sample, got one-hot rows: {name}.argmax(axis=1) gives the "
            "classes; loss='sigmoid_cross_entropy' reads each column as yes or no"
        )
    if yes_or_no or (outputs == 1 and array.dtype.kind != "f"):
        return "sigmoid_cross_entropy"
    return "mean_squared_error"


def labels(name: str, y: Any, count: int, outputs: int, loss: str, dtype: npt.DTypeLike) -> tuple[Ints, Floats]:
    """Return `y` as (labels, targets); `loss` needs one of them, and the other is empty."""
    if loss == "softmax_cross_entropy":
        expected = f"integers of shape ({count},) in 0 .. {outputs - 1}"
        array = _numeric(name, y, expected, _OF_TEXT)
        is_whole = whole(array)
        if array.shape != (count,) or not is_whole:
            came = f"shape {array.shape}" if is_whole else "fractions"
            if _one_hot(array, outputs):
                came = f"one-hot rows: {name}.argmax(axis=1) gives the classes"
            raise ValueError(f"{name}: expected {expected}, got {came}")
        if array.min() < 0 or array.max() >= outputs:
            low, high = array.min(), array.max()
            advice = f"; classes start at 0: train on {name} - 1" if (low, high) == (1, outputs) else ""
            raise ValueError(f"{name}: expected {expected}, got values from {low} to {high}{advice}")
        return np.require(array, np.int64, ["C", "A", "W"]), np.empty((0, 0), dtype)
    bounded = loss == "sigmoid_cross_entropy"
    expected = f"{'numbers in 0 .. 1' if bounded else 'finite numbers'} of shape ({count}, {outputs})"
    array = _numeric(name, y, expected, _OF_TEXT)
    if outputs == 1 and array.shape == (count,):
        array = array.reshape(count, 1)
    if array.shape != (count, outputs):
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
    targets = _floats(name, array, dtype, expected)
    if bounded and (targets.min() < 0 or targets.max() > 1):
        raise ValueError(
            f"{name}: expected {expected}, got values from {targets.min():g} to {targets.max():g}; for a regression, "
            "pass loss='mean_squared_error' to MLP or fit"
        )
    return np.empty(0, np.int64), targets


_SCALES = 0.01, 10.0  # generous bounds for features that train well


def scale(features: Features) -> str | None:
    """Return a warning if the features of samples are far from scale 1, else None."""
    x = features.values if features.starts.size else features.dense
    largest = float(np.abs(x).max(initial=0))
    if 0 < largest < _SCALES[0]:
        return f"features are far from scale 1 (at most {largest:.3g}), so training may be slow. Scale them up"
    if largest <= _SCALES[1]:
        return None
    parts = x / largest
    if x.ndim == 1:
        squares = np.bincount(features.columns, parts**2)
    else:
        squares = np.einsum("nf,nf->f", parts, parts, dtype=np.float64)
    size = largest * float(np.sqrt(squares.max() / len(features.dense)))
    if size <= _SCALES[1]:
        return None
    return (
        f"features are far from scale 1 (root mean square up to {size:.3g}), so training may collapse or diverge. "
        "Divide pixels by 255; scale columns to mean 0 and standard deviation 1"
    )
