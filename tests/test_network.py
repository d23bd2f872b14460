"""The network: initialization, predictions, sparsity, and its file."""

import copy
import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import fastprune as fp
from fastprune.allocation import erdos_renyi


def pruned(sparsity=0.6, sizes=(5, 8, 3), **settings):
    """A network of which every layer has lost weights."""
    network = fp.MLP(list(sizes), seed=1, **settings)
    fp.Pruner(fp.Trainer(network), schedule=[0.0]).step(sparsity=sparsity)
    return network


def same(a, b):
    np.testing.assert_array_equal(a.state.values, b.state.values)
    np.testing.assert_array_equal(a.state.storage.live, b.state.storage.live)
    for mask, other in zip(a.masks, b.masks, strict=True):
        np.testing.assert_array_equal(mask, other)
    assert repr(a) == repr(b)
    assert a.state.values.dtype == b.state.values.dtype


def test_initialization_has_the_variance_it_is_named_after():
    sizes = [400, 300, 200]
    he, glorot, sigma = (fp.MLP(sizes, initialization=kind) for kind in ("he", "glorot", 0.03))
    for layer, (fan_in, fan_out) in enumerate([(400, 300), (300, 200)]):
        assert he.weights[layer].std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
        assert glorot.weights[layer].std() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.02)
        assert abs(glorot.weights[layer]).max() <= (6 / (fan_in + fan_out)) ** 0.5
        assert sigma.weights[layer].std() == pytest.approx(0.03, rel=0.02)
    assert not any(bias.any() for bias in he.biases)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.floats(0, 1, exclude_min=True))
def test_density_is_exact_and_shared_out_by_erdos_renyi(sizes, density):
    network = fp.MLP(sizes, density=density)
    live = max(1, round(density * network.total_weights))
    assert network.live_weights == sum(int(mask.sum()) for mask in network.masks) == live
    assert network.layer_live_weights == erdos_renyi(live, sizes)
    assert network.sparsity == (network.total_weights - live) / network.total_weights
    assert all(w[mask].all() and not w[~mask].any() for w, mask in zip(network.weights, network.masks, strict=True))


@pytest.mark.parametrize("density", [0.03, 0.5, 0.8])
def test_the_live_weights_are_chosen_at_random_by_the_seed(density):
    networks = [fp.MLP([40, 50, 30], density=density, seed=seed) for seed in (0, 0, 1)]
    same(networks[0], networks[1])
    for mask, other in zip(networks[0].masks, networks[2].masks, strict=True):
        assert (mask != other).any()
    chosen = sum(fp.MLP([8, 9], density=density, seed=seed).masks[0] for seed in range(400)) / 400
    assert abs(chosen - chosen.mean()).max() < 4.5 * (density * (1 - density) / 400) ** 0.5
    assert chosen.mean() == pytest.approx(density, abs=0.01)


@pytest.mark.parametrize("execution", ["dense", "sparse", "auto"])
def test_density_does_not_depend_on_how_layers_are_stored(execution):
    network, other = (fp.MLP([40, 50, 30], density=0.3, seed=3, execution=how) for how in ("auto", execution))
    for array, twin in zip(network.weights + network.masks, other.weights + other.masks, strict=True):
        np.testing.assert_array_equal(array, twin)


def test_density_1_is_no_density():
    same(fp.MLP([40, 50, 30], density=1.0), fp.MLP([40, 50, 30]))
    for execution in ("dense", "sparse"):
        for weights, others in zip(
            fp.MLP([40, 50, 30], execution=execution).weights, fp.MLP([40, 50, 30]).weights, strict=True
        ):
            np.testing.assert_array_equal(weights, others)


def test_the_least_density_keeps_one_weight():
    network = fp.MLP([40, 50, 30], density=1e-12)
    assert network.live_weights == 1
    assert np.isfinite(network.logits(np.ones((3, 40)))).all()


def test_the_variance_of_initialization_is_of_live_weights():
    he, glorot = (fp.MLP([400, 300], density=0.1, initialization=kind) for kind in ("he", "glorot"))
    assert he.weights[0][he.masks[0]].std() == pytest.approx((2 / 40) ** 0.5, rel=0.02)
    assert glorot.weights[0][glorot.masks[0]].std() == pytest.approx((2 / 70) ** 0.5, rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_the_dtype_cannot_hold_are_refused(dtype):
    with pytest.raises(ValueError, match=f"initialization: expected weights that {dtype} can hold, got 1e[+]308"):
        fp.MLP([40, 40], initialization=1e308, dtype=dtype)
    assert np.isfinite(fp.MLP([40, 40], initialization=1e30).state.values).all()


def test_the_loss_that_is_set_later_is_one_of_them():
    network = fp.MLP([4, 3])
    with pytest.raises(ValueError, match=r"loss: expected one of 'softmax_cross_entropy', .* got 'foo'"):
        network.loss = "foo"
    network.loss = "mean_squared_error"
    assert network.predict(np.ones((2, 4))).shape == (2, 3)


@pytest.mark.parametrize("path", ["", ".", "/", "nul\0", "lone\ud800"])
def test_names_that_no_file_can_have_are_refused(path):
    with pytest.raises(ValueError, match="path: expected"):
        fp.MLP([4, 3]).save(path)


def test_long_names_are_written_and_longer_ones_named(tmp_path):
    network = fp.MLP([4, 3])
    network.save(tmp_path / ("n" * 250 + ".npz"))
    assert fp.load(tmp_path / ("n" * 250 + ".npz")).sizes == [4, 3]
    for path in (tmp_path / ("n" * 300), tmp_path / ("n" * 250 + ".npz") / "net.npz"):
        with pytest.raises(OSError, match=r"n{250}") as error:
            network.save(path)
        assert error.value.filename == str(path)
        assert ".part" not in str(error.value)
    assert len(list(tmp_path.iterdir())) == 1


def test_probabilities_of_extreme_outputs_are_0_and_1():
    network = fp.MLP([1, 2], loss="softmax_cross_entropy")
    network.state.values[:] = [3e38, -3e38, 0, 0]
    assert network.predict_proba([[1.0]]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("dtype", [">f4", "<f4", np.float32, np.dtype(">f8")])
def test_the_order_of_bytes_is_this_machines(dtype):
    network = fp.MLP([4, 3], dtype=dtype)
    assert network.dtype.isnative
    assert network.logits(np.ones((2, 4), ">f8")).dtype == network.dtype


@pytest.mark.parametrize("samples", [1, 20])
def test_samples_that_no_output_can_be_had_for_are_refused(samples):
    """The outputs were infinite or NaN, and class 0 was predicted."""
    network = fp.MLP([4, 8, 3], loss="softmax_cross_entropy", seed=1)
    for predictor in (network, network.freeze()):
        x = np.full((samples, 4), 3.4e38, "float32")
        for predict in (predictor.logits, predictor.predict, predictor.predict_proba):
            with pytest.raises(ValueError, match="x: the outputs overflow float32"):
                predict(x)
        assert np.isfinite(predictor.logits(x / 1e4)).all()


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_a_network_that_is_sparse_from_the_start_never_takes_the_memory_of_a_dense_one(tmp_path):
    """784-20000-20000-10: 416 million weights, of which 200,000 are live."""
    sizes = [784, 20000, 20000, 10]
    x, y = np.random.default_rng(0).standard_normal((20, 784)).astype("float32"), np.arange(20) % 10
    fp.Trainer(fp.MLP([3, 2])).fit(np.ones((2, 3)), [0, 1], 1)  # what is compiled is not counted
    tracemalloc.start()
    try:
        network = fp.MLP(sizes, density=200_000 / 415_880_000)
        assert network.live_weights == 200_000
        history = fp.Trainer(network, learning_rate=0.01).fit(x, y, 1)
        network.save(tmp_path / "net.npz")
        loaded, before = fp.load(tmp_path / "net.npz"), network.layer_live_weights
        fp.Pruner(fp.Trainer(network)).step(sparsity=1 - 199_000 / network.total_weights)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6 < network.total_weights
    assert np.isfinite(history.train.loss)
    assert network.live_weights == 199_000
    assert loaded.live_weights == 200_000
    assert loaded.layer_live_weights == before


def test_seeds_differ_and_repeat():
    one, again, other = (fp.MLP([4, 3, 2], seed=seed).state.values for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert (one != other)[:18].all()


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_weights_biases_and_masks_are_read_only_copies_of_the_right_shape(execution):
    network = pruned(execution=execution)
    assert [w.shape for w in network.weights] == [m.shape for m in network.masks] == [(8, 5), (3, 8)]
    assert [b.shape for b in network.biases] == [(8,), (3,)]
    before = network.state.values.copy(), network.state.storage.live.copy()
    for array in network.weights + network.biases + network.masks + list(network.layer(0).csr):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1
    np.testing.assert_array_equal(network.state.values, before[0])
    np.testing.assert_array_equal(network.state.storage.live, before[1])


def test_sparsity_counts_weights_and_no_biases():
    network = pruned(0.5)
    assert network.total_weights == 64
    assert network.live_weights == sum(int(mask.sum()) for mask in network.masks) == 32
    assert network.sparsity == 0.5
    assert network.compression == 2
    assert network.layer_sparsity == [0.5, 0.5]
    biases = network.state.storage.live[network.state.storage.layout.biases[0] :]
    assert biases.size == 11
    assert biases.all(), "biases stay"


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_probabilities(loss):
    network = fp.MLP([5, 8, 3], loss=loss, dtype="float64")
    x = np.random.default_rng(0).normal(size=(70, 5))
    logits = network.logits(x)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if loss == "sigmoid_cross_entropy":
        expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(network.predict_proba(x), expected, rtol=1e-12)
    predicted = logits.argmax(axis=1) if loss == "softmax_cross_entropy" else (expected > 0.5).astype(int)
    np.testing.assert_array_equal(network.predict(x), predicted)


def test_probabilities_of_a_single_sigmoid_output():
    network = fp.MLP([5, 1], loss="sigmoid_cross_entropy", initialization=100.0)
    x = np.random.default_rng(0).normal(size=(9, 5))
    probabilities = network.predict_proba(x)
    assert probabilities.shape == (9, 2)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(network.predict(x), probabilities.argmax(axis=1))


def test_predictions_of_a_regression():
    x = np.ones((4, 5))
    assert fp.MLP([5, 3], loss="mean_squared_error").predict(x).shape == (4, 3)
    network = fp.MLP([5, 1], loss="mean_squared_error")
    np.testing.assert_array_equal(network.predict(x), network.logits(x)[:, 0])
    with pytest.raises(ValueError, match="predict_proba: expected a classifier"):
        network.predict_proba(x)


def test_prediction_does_not_depend_on_the_company():
    network = fp.MLP([5, 8, 3], dtype="float64")
    x = np.random.default_rng(0).normal(size=(130, 5))
    one_by_one = np.concatenate([network.logits(x[i : i + 1]) for i in range(130)])
    np.testing.assert_allclose(network.logits(x), one_by_one, rtol=1e-12)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32, np.uint8, np.bool_])
def test_any_real_numbers_are_samples_and_stay_untouched(kind):
    network = fp.MLP([5, 3])
    x = (np.arange(20).reshape(4, 5) % 2).astype(kind)
    copies = [x.copy(order="F"), x[::-1][::-1], x.copy(), x.tolist()]
    copies[2].flags.writeable = False
    for variant in copies:
        np.testing.assert_array_equal(network.logits(variant), network.logits(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.98])
def test_save_and_load(tmp_path, dtype, sparsity):
    network = pruned(sparsity, (50, 40, 3), dtype=dtype, activation="leaky_relu", loss="softmax_cross_entropy")
    network.state.values[network.state.storage.layout.biases[0] :] = 0.5
    network.save(tmp_path / "net.npz")
    same(fp.load(tmp_path / "net.npz"), network)
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:
        assert all(array.dtype != object for array in file.values())


def test_save_and_load_empty_layers(tmp_path):
    network = fp.MLP([5, 4, 3])
    fp.Pruner(fp.Trainer(network), schedule=[0.0]).step(q={0: 100.0})
    network.save(tmp_path / "net.npz")
    same(fp.load(tmp_path / "net.npz"), network)
    fp.Pruner(fp.Trainer(network), schedule=[0.0]).step(q=100.0)
    network.save(tmp_path / "net.npz")
    assert fp.load(tmp_path / "net.npz").live_weights == 0


def test_a_loaded_network_can_be_pruned_further(tmp_path):
    network = pruned(0.5)
    network.save(tmp_path / "net.npz")
    loaded = fp.load(tmp_path / "net.npz")
    fp.Pruner(fp.Trainer(loaded), schedule=[0.0]).step(sparsity=0.75)
    assert loaded.sparsity == 0.75
    assert all((new <= old).all() for new, old in zip(loaded.masks, network.masks, strict=True))


def test_the_file_shrinks_with_the_network(tmp_path):
    network = fp.MLP([300, 100, 10])
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.0])
    sizes = []
    for sparsity in (0.0, 0.5, 0.9, 0.98):
        pruner.step(sparsity=sparsity)
        network.save(tmp_path / "net.npz")
        sizes.append((tmp_path / "net.npz").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 20


def test_save_keeps_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "net.npz"
    network = pruned()
    network.save(path)
    before = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        network.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_load_refuses_what_is_not_whole(tmp_path):
    path, other = tmp_path / "net.npz", tmp_path / "other.npz"
    pruned(sizes=(50, 40, 3)).save(path)
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 30):
        other.write_bytes(content[:size])
        with pytest.raises(ValueError, match="path: expected a network saved by fastprune, got"):
            fp.load(other)
    other.write_bytes(b"not a network")
    with pytest.raises(ValueError, match="path: expected a network saved by fastprune"):
        fp.load(other)
    with pytest.raises(ValueError, match="No such file"):
        fp.load(tmp_path / "missing.npz")


def damaged(tmp_path, **changes):
    """A saved network with some of its arrays replaced, or left out where they are None."""
    path = tmp_path / "net.npz"
    pruned().save(path)
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fastprune_format": np.array(99)}, "format 99"),
        ({"settings": None}, "array 'settings' is missing"),
        ({"settings": np.array('{"sizes": [5, 8, 3], "colour": "red"}')}, "colour"),
        (
            {"settings": np.array('{"sizes": [5, 0, 3], "activation": "relu", "loss": null, "dtype": "float32"}')},
            r"sizes\[1\]",
        ),
        ({"settings": np.array('{"sizes": [5, 8, 3]}')}, "activation"),
        ({"biases": np.zeros(3, "float32")}, r"biases: expected finite float32 \(11,\), got float32 \(3,\)"),
        ({"biases": np.full(11, np.nan, "float32")}, "biases: expected finite"),
        ({"biases": np.zeros(11)}, "got float64"),
        ({"weights_1": None}, "weights_1"),
        ({"gaps_0": np.full(16, 100, "uint8")}, "gaps_0 points outside the layer"),
        ({"gaps_0": np.zeros(16, "uint8")}, "gaps_0 points outside the layer"),
        ({"gaps_0": np.array([[object()]], dtype=object)}, "gaps_0.npy: .* got pickled objects"),
        ({"gaps_0": np.ones(16)}, "gaps_0: expected whole numbers, got float64"),
    ],
)
def test_load_refuses_damage(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fp.load(damaged(tmp_path, **changes))


@pytest.mark.parametrize("bad", [10**6, b"net.npz", None, io.BytesIO()])
def test_files_have_names(bad):
    for use in (fp.load, fp.MLP([3, 2]).save):
        with pytest.raises(ValueError, match=f"path: expected a str or os.PathLike, got {type(bad).__name__}"):
            use(bad)


def test_load_closes_no_file_of_others(tmp_path):
    with (tmp_path / "mine").open("wb") as file:
        with pytest.raises(ValueError, match="path: expected"):
            fp.load(file.fileno())
        os.fstat(file.fileno())


def test_load_reads_regular_files_only(tmp_path):
    """Nobody writes to the pipe: to open it would take for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=r"path: expected a network saved by fastprune, got .*Not a regular file"):
            fp.load(path)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_could_not_be_loaded_is_not_saved(tmp_path, place, value):
    network = fp.MLP([3, 2])
    network.state.values[place] = value
    with pytest.raises(ValueError, match="network: only finite weights can be saved"):
        network.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_load_checks_what_the_archive_says_of_itself(tmp_path):
    path = tmp_path / "net.npz"
    pruned(0.0, (50, 40, 3)).save(path)
    with zipfile.ZipFile(path) as archive:
        weights = archive.getinfo("weights_0.npy")
    content = bytearray(path.read_bytes())
    content[weights.header_offset + 200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="path: expected a network saved by fastprune"):
        fp.load(path)


def test_networks_can_be_copied_and_pickled():
    network = pruned()
    clone = copy.deepcopy(network)
    same(clone, network)
    same(pickle.loads(pickle.dumps(network)), network)
    clone.state.values[:] = 0
    assert network.state.values.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [5]}, "sizes: expected at least two"),
        ({"sizes": 5}, "sizes: expected at least two"),
        ({"sizes": "54"}, "sizes: expected at least two"),
        ({"sizes": [5, 0]}, r"sizes\[1\]: expected an integer of at least 1, got 0"),
        ({"sizes": [5, 2.5]}, r"sizes\[1\]: expected an integer of at least 1, got 2.5"),
        ({"activation": "swish"}, "activation: expected one of 'relu', 'leaky_relu', 'tanh', 'sigmoid', got 'swish'"),
        ({"activation": None}, "activation: expected one of"),
        ({"initialization": "ones"}, "initialization: expected one of 'he', 'glorot', got 'ones'"),
        ({"initialization": 0.0}, r"initialization: expected a number in \(0, inf\), got 0.0"),
        ({"initialization": float("nan")}, "initialization: expected a number"),
        ({"loss": "hinge"}, "loss: expected one of"),
        ({"dtype": "float16"}, "dtype: expected 'float32' or 'float64', got 'float16'"),
        ({"dtype": "text"}, "dtype: expected 'float32' or 'float64', got 'text'"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 1.5}, "seed: expected an integer"),
        ({"seed": 2**64}, "seed: expected an integer of at most"),
        ({"sizes": [2**40, 2**40]}, "sizes: expected at most 2[*][*]60 weights"),
        ({"density": 0}, r"density: expected a number in \(0, 1\], got 0"),
        ({"density": 1.5}, r"density: expected a number in \(0, 1\], got 1.5"),
        ({"density": float("nan")}, "density: expected a number"),
        ({"execution": "fast"}, "execution: expected one of 'auto', 'dense', 'sparse', got 'fast'"),
        ({"execution": ["dense", "sparse"]}, "execution: expected one for each of 1 layers, got 2"),
        ({"execution": ["blocked"]}, "execution: expected one of"),
        ({"execution": None}, "execution: expected"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fp.MLP(**{"sizes": [5, 3], **arguments})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((4, 6)), r"x: expected finite numbers of shape \(N, 5\), got shape \(4, 6\)"),
        (np.ones(5), r"got shape \(5,\)"),
        (np.ones((0, 5)), "x: expected at least one sample, got none"),
        (np.full((4, 5), np.nan), "got NaN or infinity"),
        (np.full((4, 5), np.inf), "got NaN or infinity"),
        (np.full((4, 5), 1e300), "got NaN or infinity"),  # beyond float32
        (np.ones((4, 5), complex), "got dtype complex128"),
        (np.full((4, 5), "a"), "got text$"),
        ([[1, 2], [3]], "unequal rows"),
        (None, "got dtype object"),
    ],
)
def test_bad_samples(x, message):
    with pytest.raises(ValueError, match=message):
        fp.MLP([5, 3]).logits(x)


def test_predict_needs_to_know_what_outputs_mean():
    for method in ("predict", "predict_proba"):
        with pytest.raises(ValueError, match="the loss of this network is not known yet"):
            getattr(fp.MLP([5, 3]), method)(np.ones((1, 5)))


def test_activations_are_the_twins():
    for activation in ("relu", "leaky_relu", "tanh", "sigmoid"):
        network = fp.MLP([3, 4, 2], activation=activation, dtype="float64")
        x = np.random.default_rng(0).normal(size=(5, 3))
        expected = reference.forward(x, network.weights, network.biases, activation)[1][-1].T
        np.testing.assert_allclose(network.logits(x), expected, rtol=1e-12)
