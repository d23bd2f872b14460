"""Data sets: built-in ones, scikit-learn's tables, MNIST, and your own files."""

from fastprune.datasets.binary_images import make_binary_images
from fastprune.datasets.dataset import Dataset
from fastprune.datasets.loading import load_dataset

__all__ = ["Dataset", "load_dataset", "make_binary_images"]
