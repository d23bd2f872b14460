"""A synthetic stand-in for a small set of photographs, some of them with a car."""

import numpy as np

from fastprune import check
from fastprune.datasets.dataset import Dataset
from fastprune.kernels.layout import Floats

HEIGHT, WIDTH, CHANNELS = 45, 80, 3
TRAIN = (107, 74)  # pictures without and with a car
TEST = (37, 23)

_Int = int | np.int64


def make_binary_images(seed: int = 0) -> Dataset:
    """Draw 241 colour pictures of 45x80 pixels: 181 for training (107 without a car, 74 with one) and 60 for testing.

    Each has a background that fades from one colour to another, clutter, and noise. A car is a body of any colour and
    position on two dark wheels; clutter is boxes without wheels. There is little to learn from and much to memorize: a
    narrow network trained on all samples at once stays at the entropy of its labels once too few weights are left.

    Parameters
    ----------
    seed : int, default 0
        Seed for the pictures.

    Returns
    -------
    Dataset
        `x_train` (181, 10800), `x_test` (60, 10800), float32 in [0, 1]; labels 0 and 1, shuffled.

    Raises
    ------
    ValueError
        If `seed` is not an integer of at least 0.

    Examples
    --------
    >>> import fastprune as fp
    >>> data = fp.make_binary_images(seed=0)
    >>> data.x_train.shape, int(data.y_train.sum()), data.x_test.shape
    ((181, 10800), 74, (60, 10800))
    """
    rng = np.random.default_rng(check.integer("seed", seed, 0))
    parts = []
    for without, cars in (TRAIN, TEST):
        labels = rng.permutation(np.repeat([0, 1], [without, cars]))
        parts += [np.stack([_picture(rng, bool(label)) for label in labels]), labels.astype(np.int64)]
    return Dataset("binary_images", *parts)


def _picture(rng: np.random.Generator, car: bool) -> Floats:
    top, bottom = rng.uniform(0.2, 0.9, (2, CHANNELS))
    shade = np.linspace(0, 1, HEIGHT)[:, np.newaxis, np.newaxis]
    picture = np.broadcast_to(top + (bottom - top) * shade, (HEIGHT, WIDTH, CHANNELS)).copy()
    for _ in range(rng.integers(1, 4)):
        _box(picture, rng, rng.integers(0, HEIGHT), rng.integers(0, WIDTH), rng.integers(4, 14), rng.integers(4, 24))
    row, column = rng.integers(18, 30), rng.integers(22, 46)
    if car:
        _box(picture, rng, row - 8, column + 6, 8, 16)
        _box(picture, rng, row, column, 10, 28)
        for wheel in (column + 3, column + 19):
            picture[row + 8 : row + 14, wheel : wheel + 6] = rng.uniform(0, 0.1)
    picture += rng.normal(0, 0.1, picture.shape)
    return picture.clip(0, 1).astype(np.float32).reshape(-1)


def _box(picture: Floats, rng: np.random.Generator, row: _Int, column: _Int, height: _Int, width: _Int) -> None:
    picture[row : row + height, column : column + width] = rng.uniform(0, 1, CHANNELS)
