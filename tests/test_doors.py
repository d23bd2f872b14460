"""The ways in and out: weights and masks from elsewhere, layers to look at, copies, pickles and files."""

import copy
import json
import pickle

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from networks import bits, matrices, parts, same
from scipy.sparse import csr_array

import fastprune as fp
from fastprune.base import ACTIVATIONS

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)).astype("float32"), np.arange(60) % 3
X[np.arange(60), Y] += 2
MATRICES = [RNG.normal(size=(5, 6)), RNG.normal(size=(3, 5))]
VECTORS = [RNG.normal(size=5), RNG.normal(size=3)]
MASKS = [RNG.random((5, 6)) < 0.6, RNG.random((3, 5)) < 0.6]
ALL = [np.ones((5, 6), bool), np.ones((3, 5), bool)]


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def made(seed=1, sizes=(6, 5, 3), **settings):
    return fp.MLP(list(sizes), seed=seed, **{"dtype": "float64", "loss": "softmax_cross_entropy"} | settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [np.array, np.asfortranarray, np.ndarray.tolist, tuple])
def test_weights_come_in_as_they_are(dtype, kind):
    weights, biases = tuple(map(kind, MATRICES)), tuple(map(kind, VECTORS))
    network = fp.MLP.from_weights(weights, biases, activation="tanh", dtype=dtype)
    assert (network.sizes, network.activation, network.dtype, network.loss) == ([6, 5, 3], "tanh", dtype, None)
    same(parts(network), [array.astype(dtype) for array in MATRICES + VECTORS] + ALL)
    logits = reference.forward(X, MATRICES, VECTORS, "tanh")[1][-1].T
    np.testing.assert_allclose(network.logits(X), logits, rtol=1e-4, atol=1e-5)
    sources = [w.astype(dtype) for w in MATRICES]
    network = fp.MLP.from_weights(sources, dtype=dtype)
    sources[0][:] = 7  # they were copied
    same(network.weights + network.biases, [w.astype(dtype) for w in [*MATRICES, np.zeros(5), np.zeros(3)]])


@pytest.mark.parametrize("execution", ["auto", "dense", "sparse"])
@pytest.mark.parametrize("kind", [np.asarray, np.int8, np.float32, np.ndarray.tolist])
def test_masks_are_booleans_or_zeros_and_ones_or_none(kind, execution):
    settings = {"dtype": "float64", "execution": execution}
    network = fp.MLP.from_weights(MATRICES, VECTORS, [kind(mask) for mask in MASKS], **settings)
    same(parts(network), [w * mask for mask, w in zip(MASKS, MATRICES, strict=True)] + VECTORS + MASKS)
    same(fp.MLP.from_weights(MATRICES, masks=[None, kind(MASKS[1])], **settings).masks, [ALL[0], MASKS[1]])
    same(fp.MLP.from_weights(MATRICES, masks=[None, None], **settings).weights, MATRICES)


BAD_ARRAYS = [
    ("weights", [MATRICES[0]], r"weights: expected a list of 2 arrays, one per layer, got 1"),
    ("weights", [MATRICES[0], MATRICES[1].T], r"weights\[1\]: expected .*, got shape \(5, 3\)"),
    ("weights", [MATRICES[0] * np.nan, MATRICES[1]], r"weights\[0\]: expected finite float32 .*, got NaN or infinity"),
    ("weights", [MATRICES[0], MATRICES[1] * 1e300], r"weights\[1\]: expected finite float32 .*, got NaN or infinity"),
    ("weights", [MATRICES[0], MATRICES[1] + 1j], r"weights\[1\]: expected .*, got dtype complex128"),
    ("weights", [MATRICES[0], [["a"] * 5] * 3], r"weights\[1\]: expected .*, got text"),
    ("weights", [MATRICES[0], [[1.0], [2.0, 3.0]]], r"weights\[1\]: expected .*, got list with unequal rows"),
    ("weights", [csr_array(MATRICES[0]), MATRICES[1]], r"weights\[0\]: expected .*, got dtype object"),
    ("biases", [VECTORS[0], [1.0]], r"biases\[1\]: expected finite float32 of shape \(3,\), got shape \(1,\)"),
    ("biases", [VECTORS[0] * 1e300, VECTORS[1]], r"biases\[0\]: expected .*, got NaN or infinity"),
    ("masks", MASKS[0], "masks: expected a list of 2 arrays, one per layer, got 5"),
    ("masks", [MASKS[0].T, None], r"masks\[0\]: expected a boolean array .*, got shape \(6, 5\)"),
    ("masks", [None, 2 * MASKS[1]], r"masks\[1\]: expected a boolean array .*, got numbers other than 0 and 1"),
    ("masks", [None, MASKS[1] * np.nan], r"masks\[1\]: expected a boolean array .*, got numbers other than 0 and 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_ARRAYS)
def test_what_is_no_network_is_refused_by_name_and_changes_nothing(name, value, message):
    network = made(dtype="float32")
    state, arguments = network.state, {"weights": MATRICES, "biases": VECTORS, "masks": MASKS} | {name: value}
    with pytest.raises(ValueError, match=message):
        network.set_weights(**arguments)
    assert network.state is state
    if name == "masks":
        with pytest.raises(ValueError, match=message):
            fp.Pruner(fp.Trainer(network)).apply(value)
        assert network.state is state
    if name != "weights" or not ("shape" in message or "a list of" in message):  # these follow from the weights
        with pytest.raises(ValueError, match=message):
            fp.MLP.from_weights(**arguments)


def test_settings_of_weights_from_elsewhere_are_checked():
    for arguments, message in (
        ({"weights": []}, r"weights: expected a list of at least one array, got \[\]"),
        ({"weights": 3}, "weights: expected a list of at least one array, got 3"),
        (
            {"weights": np.ones((3, 2))},
            r"weights\[0\]: expected numbers of shape .*, got shape \(2,\)",
        ),
        ({"weights": [np.ones((2, 3)), np.ones((4, 3))]}, r"weights\[1\]: expected \(4, 2\), got shape \(4, 3\)"),
        ({"weights": [np.ones((0, 3))]}, r"weights\[0\]: expected .*, got shape \(0, 3\)"),
        ({"loss": "hinge"}, "loss: expected one of"),
        ({"execution": ["dense"]}, "execution: expected one for each of 2 layers, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fp.MLP.from_weights(**{"weights": MATRICES, **arguments})


def test_set_weights_keeps_masks_and_biases_that_are_not_given():
    network = fp.MLP.from_weights(MATRICES, VECTORS, MASKS, dtype="float64")
    network.set_weights([np.full_like(w, 5) for w in MATRICES])
    same(parts(network), [5.0 * mask for mask in MASKS] + VECTORS + MASKS)
    network.set_weights(MATRICES, [b + 1 for b in VECTORS], [None, ~MASKS[1]])
    same(
        parts(network),
        [MATRICES[0] * MASKS[0], MATRICES[1] * ~MASKS[1]] + [b + 1 for b in VECTORS] + [MASKS[0], ~MASKS[1]],
    )


@pytest.mark.parametrize("nothing", [np.nan, np.inf, 1e300, 7.0])
def test_what_is_written_for_pruned_weights_does_not_matter(nothing):
    weights = [np.where(mask, w, nothing) for mask, w in zip(MASKS, MATRICES, strict=True)]
    network = fp.MLP.from_weights(weights, masks=MASKS)
    for masks in (MASKS, None, MASKS):
        same(network.weights, [(w * mask).astype("float32") for mask, w in zip(MASKS, MATRICES, strict=True)])
        network.set_weights([w + 1 for w in MATRICES])
        network.set_weights(weights, masks=masks)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("execution", ["auto", "dense", "sparse"])
def test_the_optimizer_keeps_what_it_knows_of_weights_that_stay_live(optimizer, execution):
    network = fp.MLP.from_weights(MATRICES, VECTORS, MASKS, dtype="float64", execution=execution)
    trainer = fp.Trainer(network, optimizer=optimizer, learning_rate=0.01)
    trainer.fit(X, Y, 3)
    then, new = trainer.snapshot(), [~MASKS[0], ALL[1]]
    new[0][:3] = True
    before = [matrices(network, vector) for vector in then.vectors[1:] if vector.size]
    network.set_weights(MATRICES, VECTORS, new)
    now = trainer.snapshot()
    after = [matrices(network, vector) for vector in now.vectors[1:] if vector.size]
    assert len(after) == {"sgd": 1, "adam": 2}[optimizer]
    for old, kept in zip(before, after, strict=True):
        same(kept, [np.where(was & now, one, 0) for was, now, one in zip(MASKS, new, old, strict=True)])
        assert all(one.any() for one in kept)
    same([now.velocity[-8:], now.updates], [then.velocity[-8:], then.updates])
    loss = trainer.evaluate(X, Y).loss
    assert trainer.fit(X, Y, 30).train.loss < loss
    same(network.masks, new)
    assert all((w != was)[mask].all() for w, mask, was in zip(network.weights, new, MATRICES, strict=True))


@pytest.mark.parametrize("execution", ["auto", "dense", "sparse"])
def test_applied_masks_are_cumulative_and_leave_no_momentum(execution):
    network = made(execution=execution)
    trainer = fp.Trainer(network)
    trainer.fit(X, Y, 3)
    weights, velocity = network.weights, matrices(network, network.state.velocity)
    pruner = fp.Pruner(trainer, schedule=[0.5])
    record = pruner.apply([MASKS[0].astype(int), None])
    same(network.masks, [MASKS[0], ALL[1]])
    assert (record.removed, record.grown, record.live) == (int((~MASKS[0]).sum()), 0, network.live_weights)
    assert (record.rule, record.scope, record.requested, record.requested_sparsity) == ("mask", "layer", None, None)
    assert (record.thresholds, record.sparsity, record.events) == ((None, None), network.sparsity, ())
    square = sum((w**2).sum() for w in weights)
    assert record.removed_norm == pytest.approx(((weights[0][~MASKS[0]] ** 2).sum() / square) ** 0.5)
    assert pruner.apply([ALL[0], MASKS[1]]).removed == (~MASKS[1]).sum(), "True brings nothing back"
    same(network.masks, MASKS)
    same(network.weights, [w * mask for w, mask in zip(weights, MASKS, strict=True)])
    same(matrices(network, trainer.snapshot().velocity), [v * mask for v, mask in zip(velocity, MASKS, strict=True)])
    assert [str(event) for event in pruner.apply(MASKS).events] == ["nothing removed"]
    assert [str(event) for event in pruner.apply([None, np.zeros((3, 5))]).events] == ["layer emptied (layer 1)"]
    assert pruner.round == 0


def test_masks_are_applied_whatever_the_settings_are():
    plain = made()
    expected = fp.Pruner(fp.Trainer(plain)).apply(MASKS)
    for settings in (
        {"ignored_layers": [0], "min_keep": 14, "grower": "random", "drop_fraction": 1.0},
        {"scope": "global", "criterion": "random", "seed": 3},
        {"rule": "percentile", "schedule": [0.0], "criterion": "gradient"},
        {"rule": "std", "schedule": [100.0]},
    ):
        network = made()
        record = fp.Pruner(fp.Trainer(network), **settings).apply(MASKS)
        same(parts(network), parts(plain))
        assert vars(record) | {"prunable_sparsity": 0} == vars(expected) | {"prunable_sparsity": 0}
    same(network.masks, MASKS)


@pytest.mark.parametrize("execution", [["dense", "sparse"], ["sparse", "dense"]])
def test_a_layer_is_what_the_network_has_of_it(execution):
    network = fp.MLP.from_weights(MATRICES, VECTORS, activation="tanh", dtype="float64", execution=execution)
    layers = [network.layer(0), network.layer(-1)]
    for masks in (ALL, MASKS, [mask & (np.arange(mask.size).reshape(mask.shape) % 2 > 0) for mask in MASKS]):
        fp.Pruner(fp.Trainer(network)).apply(masks)  # a layer that was taken before follows
        weights = [w * mask for w, mask in zip(MATRICES, masks, strict=True)]
        same([layer.weights for layer in layers] + [layer.bias for layer in layers], weights + VECTORS)
        same([layer.mask for layer in layers], masks)
        same([csr_array(layer.csr, layer.shape).toarray() for layer in layers], weights)
        live = [int(mask.sum()) for mask in masks]
        assert [layer.csr.data.size for layer in layers] == [layer.live_weights for layer in layers] == live
        assert [layer.sparsity for layer in layers] == [(30 - live[0]) / 30, (15 - live[1]) / 15]
    assert [(layer.shape, layer.activation) for layer in layers] == [((5, 6), "tanh"), ((3, 5), "identity")]
    assert [layer.execution for layer in layers] == network.execution == execution
    assert repr(layers[1]) == f"Layer(5 -> 3, 'identity', {live[1]} of 15 weights live, {execution[1]})"
    frozen = network.freeze()
    same([csr_array(layer.csr, layer.shape).toarray() for layer in map(frozen.layer, (0, -1))], frozen.weights)


def test_a_weight_of_0_that_is_live_stays_in_the_csr():
    layer = fp.MLP.from_weights([[[0.0, 2.0], [3.0, 0.0]]], masks=[[[1, 1], [0, 1]]], execution="dense").layer(0)
    assert [part.tolist() for part in layer.csr] == [[0, 2, 0], [0, 1, 1], [0, 2, 3]]


@pytest.mark.parametrize("index", [2, -3, True, 1.0, "0", None, [0]])
def test_layers_that_are_not_there(index):
    for network in (made(), made().freeze()):
        with pytest.raises(ValueError, match=r"index: expected layers in -2 .. 1, got"):
            network.layer(index)


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_what_is_looked_at_cannot_be_written_to(execution):
    network = made(execution=execution)
    for one in (network, network.freeze()):
        layer, before = one.layer(0), one.logits(X)
        for array in (*parts(one), layer.weights, layer.bias, layer.mask, *layer.csr):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 1
        same([one.logits(X)], [before])


@pytest.mark.parametrize(("dtype", "sparsity"), [("float32", 0.9), ("float64", 0.5), ("float32", 0.0)])
def test_a_frozen_network_comes_back_from_file_and_pickle_to_the_bit(tmp_path, dtype, sparsity):
    network = made(sizes=[6, 90, 70, 3], dtype=dtype, activation="leaky_relu")
    network.set_weights(network.weights, [np.arange(b.size) / b.size for b in network.biases])
    fp.Pruner(fp.Trainer(network), scope="global").step(sparsity=sparsity)
    frozen = network.freeze()
    frozen.save(tmp_path / "net.npz")
    for twin in (fp.load(tmp_path / "net.npz"), pickled(frozen), copy.deepcopy(frozen)):
        assert (type(twin), repr(twin)) == (fp.FrozenMLP, repr(frozen))
        same(parts(twin), parts(frozen))
        for x in (X, X[:5], X[:1]):
            same([twin.logits(x), twin.predict(x)], [frozen.logits(x), frozen.predict(x)])


def test_a_frozen_network_pickles_to_what_it_keeps():
    frozen = fp.MLP([784, 300, 100, 10], density=0.02).freeze()
    numbers = 4 * (frozen.live_weights + sum(frozen.sizes[1:]))
    assert numbers < len(pickle.dumps(frozen)) < numbers + 2 * frozen.live_weights + 2000, "gaps take a byte or two"


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_copies_go_on_training_to_the_same_bits(copied, optimizer):
    sizes, how = [6, 70, 40, 3], ["auto", "dense", "sparse"]
    settings = {"optimizer": optimizer, "learning_rate": 0.01, "dropout": 0.1, "batch_size": 16, "restore_best": False}
    trainer = fp.Trainer(made(sizes=sizes, execution=how), **settings)
    pruner = fp.Pruner(trainer, schedule=[0.5, 0.8], criterion="random")
    pruner.run(X, Y, 2, rounds=1)
    bare = [fp.Trainer(copied(trainer.network), **settings) for _ in "ab"]  # which begin with no momentum
    whole = [copied(trainer), fp.Trainer(made(9, sizes, execution=how), **settings), copied(pruner).trainer]
    whole[1].restore(copied(trainer.snapshot()))
    before, other = trainer.snapshot(), copied(pruner)
    trainer.fit(X, Y, 2)
    bare[0].fit(X, Y, 2)
    for twins, twin in ((whole, trainer), (bare[1:], bare[0])):
        for one in twins:
            same(one.network.state.vectors[:1], before.vectors[:1])  # the training of another has left it alone
            one.fit(X, Y, 2)
            same(bits(one), bits(twin))
    trainer.restore(before)
    for one in (pruner, other):
        assert [record.round for record in one.run(X, Y, 2)] == [2]
    same(parts(other.trainer.network), parts(trainer.network))


@given(
    st.lists(st.integers(1, 50), min_size=2, max_size=4),
    st.floats(0.02, 1.0),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["auto", "dense", "sparse"]),
    st.integers(0, 99),
)
def test_round_trips_predict_the_same_bits(tmp_path_factory, sizes, density, activation, dtype, execution, seed):
    rng = np.random.default_rng(seed)
    settings = {"activation": activation, "dtype": dtype, "loss": "mean_squared_error"}
    network = fp.MLP(sizes, density=density, execution=execution, seed=seed, **settings)
    network.set_weights(network.weights, [rng.normal(size=b.shape) for b in network.biases])
    x, out = rng.normal(size=(20, sizes[0])), (network.weights, network.biases, network.masks)
    twin, by_rule = (fp.MLP.from_weights(*out, execution=how, **settings) for how in (execution, "auto"))
    assert twin.execution == network.execution
    path = tmp_path_factory.getbasetemp() / "trip.npz"
    network.save(path)
    for one, other in ((twin, network), (fp.load(path), by_rule)):
        assert repr(one) == repr(network)
        same(parts(one), parts(network))
        same([one.predict(x)], [other.predict(x)])


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_version_0_1_are_read(tmp_path, version):
    """Format 1 is format 2 without "frozen"."""
    settings = {"sizes": [3, 2, 1], "activation": "sigmoid", "loss": "sigmoid_cross_entropy", "dtype": "float64"}
    np.savez_compressed(
        tmp_path / "net.npz",
        fastprune_format=version,
        settings=json.dumps(settings),
        biases=np.array([0.5, -0.5, 1.0]),
        weights_0=np.array([1.0, -2.0, 3.0]),  # at 0, 2 and 4 of 6
        gaps_0=np.array([1, 2, 2], np.uint8),
        weights_1=np.array([4.0, 5.0]),
    )
    network = fp.load(tmp_path / "net.npz")
    assert (type(network), network.activation, network.loss, network.dtype) == (fp.MLP, *list(settings.values())[1:])
    same(network.weights, [np.array([[1.0, 0, -2], [0, 3, 0]]), np.array([[4.0, 5.0]])])
    same(network.masks, [network.weights[0] != 0, np.ones((1, 2), bool)])
    same(network.biases, [np.array([0.5, -0.5]), np.array([1.0])])


def test_a_network_goes_from_pytorch_and_back():
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    data = fp.load_dataset("digits")
    torch.manual_seed(0)
    linear = [torch.nn.Linear(64, 40), torch.nn.Linear(40, 10)]
    model = torch.nn.Sequential(linear[0], torch.nn.Tanh(), linear[1])

    def out():
        return [p.weight.detach() for p in linear], [p.bias.detach() for p in linear]

    def logits():
        return model(torch.tensor(data.x_test, dtype=torch.float32)).detach().numpy()

    with pytest.raises(ValueError, match=r"weights\[0\]: expected .*, got Parameter \(.*requires grad"):
        fp.MLP.from_weights([p.weight for p in linear])
    with pytest.raises(ValueError, match=r"biases\[1\]: expected .*, got Parameter \(.*requires grad"):
        fp.MLP.from_weights(out()[0], [linear[0].bias.detach(), linear[1].bias])
    network = fp.MLP.from_weights(*out(), activation="tanh")
    np.testing.assert_allclose(network.logits(data.x_test), logits(), atol=1e-5)
    trainer = fp.Trainer(network)
    trainer.fit(data.x_train, data.y_train, 10)
    (record,) = fp.Pruner(trainer, schedule=[0.7]).run(data.x_train, data.y_train, 10)
    assert record.after.train.accuracy > 0.95
    for index, layer in enumerate(linear):
        ours = network.layer(index)
        layer.weight.data, layer.bias.data = torch.tensor(ours.weights), torch.tensor(ours.bias)
        prune.custom_from_mask(layer, "weight", torch.tensor(ours.mask))
    np.testing.assert_allclose(network.logits(data.x_test), logits(), atol=1e-5)
    same(parts(fp.MLP.from_weights(*out(), [p.weight_mask for p in linear])), parts(network))
