"""However layers are stored and run, and by however many threads: the same network, trained to the same weights."""

import numpy as np
import pytest
from networks import prune_at

import fastprune as fp
from fastprune import spans

# Labels are random, layers may be empty: that some of these networks learn nothing is no matter here.
pytestmark = pytest.mark.filterwarnings("ignore:training collapsed")

SIZES = (20, 40, 33, 3)
WIDE = (2000, 5, 4, 3, 1)
COUNT = 150


def samples(sizes, loss="softmax_cross_entropy", count=COUNT):
    rng = np.random.default_rng([count, *sizes])
    x, outputs = rng.standard_normal((count, sizes[0])), sizes[-1]
    return x, {
        "softmax_cross_entropy": rng.integers(0, outputs, count),
        "sigmoid_cross_entropy": rng.integers(0, 2, (count, outputs)),
        "mean_squared_error": rng.standard_normal((count, outputs)),
    }[loss]


def random_masks(sizes, densities, seed=0):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [rng.random(shape) < density for shape, density in zip(shapes, densities, strict=True)]


def prune_to(trainer, masks):
    """Remove what the masks do not keep."""
    fp.Pruner(trainer).apply(masks)


def parameters(trainer):
    """Weights and biases, and what the optimizer keeps of each: in full, 0 where nothing is stored."""
    network, arrays = trainer.network, []
    for vector in trainer.snapshot().vectors:
        if vector.size:
            arrays += [network.state.storage.matrix(layer, vector) for layer in range(network.n_layers)]
            arrays.append(vector[network.state.storage.layout.biases[0] :].copy())
    return arrays


def run(execution, masks, *, sizes=SIZES, activation="tanh", loss="softmax_cross_entropy", dtype="float64", **settings):
    """Five steps at full density, so that momentum is under way, then 20 under the masks."""
    network = fp.MLP(sizes, activation=activation, loss=loss, dtype=dtype, seed=1, execution=execution)
    trainer = fp.Trainer(network, **{"learning_rate": 0.02, "batch_size": 40, **settings})
    x, y = samples(sizes, loss)
    batch = trainer.batch_size or COUNT
    trainer.fit(x[: 5 * batch], y[: 5 * batch], 1)
    prune_to(trainer, masks)
    epochs = -(-20 // -(-COUNT // batch))
    history = trainer.fit(x, y, epochs)
    return trainer, history


def assert_execution_does_not_matter(masks, expected=None, **settings):
    """Sparse and mixed execution agree with dense execution under the same masks."""
    dense, history = run("dense", masks, **settings)
    for execution in ("sparse", "auto"):
        other, other_history = run(execution, masks, **settings)
        for epoch, twin in zip(other_history.epochs, history.epochs, strict=True):
            assert epoch.loss == pytest.approx(twin.loss, rel=1e-9)
            assert epoch.accuracy == twin.accuracy
        for array, twin in zip(parameters(other), parameters(dense), strict=True):
            np.testing.assert_allclose(array, twin, rtol=1e-9, atol=1e-9 * abs(twin).max())
        for mask, wanted, weights in zip(other.network.masks, masks, other.network.weights, strict=True):
            np.testing.assert_array_equal(mask, wanted)
            assert not weights[~mask].any()
        x, _ = samples(other.network.sizes)
        np.testing.assert_allclose(other.network.logits(x), dense.network.logits(x), rtol=1e-9, atol=1e-9)
        if execution == "sparse":
            assert other.network.execution == ["sparse"] * len(masks)
    assert dense.network.execution == ["dense"] * len(masks)
    assert expected is None or other.network.execution == expected


MIXED = {"masks": random_masks(SIZES, [0.3, 0.8, 0.5]), "expected": ["sparse", "dense", "sparse"]}


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_sparse_and_dense_execution_agree(activation, loss):
    """Invariant 6."""
    assert_execution_does_not_matter(**MIXED, activation=activation, loss=loss)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"nesterov": True},
        {"optimizer": "adam", "learning_rate": 0.002},
        {"dropout": 0.4},
        {"l1": 0.001, "l2": 0.01},
        {"optimizer": "adam", "l1": 0.001, "l2": 0.01, "dropout": 0.2, "learning_rate": 0.002},
    ],
    ids=str,
)
def test_they_agree_with_every_optimizer(settings):
    assert_execution_does_not_matter(**MIXED, **settings)


@pytest.mark.parametrize("batch_size", [1, 9, 64, 70, None])
def test_they_agree_for_batches_of_any_size(batch_size):
    assert_execution_does_not_matter(**MIXED, batch_size=batch_size, dropout=0.2)


@pytest.mark.parametrize(
    "densities", [(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0), (0, 0, 0), (1, 1, 1), (0.9, 0.1, 1), (0.01, 0.02, 0.1)]
)
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_they_agree_with_empty_full_and_nearly_empty_layers(densities, activation):
    assert_execution_does_not_matter(random_masks(SIZES, densities), activation=activation, dropout=0.2)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_they_agree_with_one_single_live_weight(layer):
    masks = random_masks(SIZES, [0.2, 0.2, 0.2])
    masks[layer][:] = False
    masks[layer][1, 2] = True
    assert_execution_does_not_matter(masks)


@pytest.mark.parametrize("density", [1, 0.3, 0.05])
@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "mean_squared_error"])
def test_they_agree_with_many_inputs_and_few_outputs(density, loss):
    masks = random_masks(WIDE, [density, 1, 1, 1])
    assert_execution_does_not_matter(
        masks, sizes=WIDE, loss=loss, activation="leaky_relu", learning_rate=1e-3, expected=["sparse"] * 4
    )


@pytest.mark.parametrize("density", [1, 0.05])
@pytest.mark.parametrize(
    "settings",
    [{"dropout": 0.3, "l2": 0.01}, {"optimizer": "adam", "l1": 1e-4}, {"input_dropout": 0.2}, {"sizes": (2000, 3)}],
    ids=str,
)
@pytest.mark.parametrize("dead", [False, True])
def test_they_agree_where_a_batch_of_all_samples_is_read_once_a_step(density, settings, dead):
    settings = {"sizes": WIDE, "batch_size": None, "learning_rate": 1e-3, **settings}
    masks = random_masks(settings["sizes"], [density, *[1] * (len(settings["sizes"]) - 2)])
    if dead and len(masks) > 1:
        masks[1][:, 2] = False  # a unit on no path to an output: its weights decay, and its momentum goes on
    assert_execution_does_not_matter(masks, loss="mean_squared_error", **settings)


@pytest.mark.parametrize("execution", [["sparse", "dense", "sparse"], ["dense", "sparse", "dense"]])
def test_they_agree_however_they_are_mixed(execution):
    masks = random_masks(SIZES, [0.3, 0.1, 0.3])
    for array, twin in zip(*(parameters(run(how, masks)[0]) for how in (execution, "dense")), strict=True):
        np.testing.assert_allclose(array, twin, rtol=1e-9, atol=1e-9 * abs(twin).max())


def test_they_agree_through_rounds_of_pruning():
    """By the pruner, each round from what the last one left: the same weights go, and the same are left."""
    ends = []
    x, y = samples(SIZES)
    for execution in ("dense", "sparse", "auto"):
        network = fp.MLP(SIZES, dtype="float64", activation="tanh", execution=execution)
        trainer = fp.Trainer(network, learning_rate=0.05, batch_size=40)
        pruner = fp.Pruner(trainer, rule="percentile", scope="global", schedule=[30.0, 40.0, 50.0, 60.0])
        history = pruner.run(x, y, 3)
        ends.append((trainer, [(record.live, record.layer_sparsity) for record in history]))
    (dense, records), *others = ends
    for other, other_records in others:
        assert other_records == records
        for array, twin in zip(parameters(other), parameters(dense), strict=True):
            np.testing.assert_allclose(array, twin, rtol=1e-9, atol=1e-9 * abs(twin).max())


# Threads


@pytest.fixture
def all_threads_work(monkeypatch):
    """However little there is to do."""
    monkeypatch.setattr(spans, "_THREAD_FLOP", 1)


BIG = (40, 800, 780, 3)  # dense layers that are cut into chunks


@pytest.mark.parametrize(
    ("sizes", "execution", "densities"),
    [
        (BIG, "dense", (1, 1, 1)),
        (BIG, "sparse", (0.2, 0.02, 0.2)),
        (BIG, ["sparse", "dense", "sparse"], (0.3, 0.7, 1)),
        (WIDE, "auto", (1, 1, 1, 1)),
        (WIDE, "auto", (0.05, 0.5, 0.5, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("epochs", "settings"),
    [
        (2, {"batch_size": 70}),
        (2, {"batch_size": 13, "dropout": 0.3, "nesterov": True}),
        (8, {"batch_size": None, "optimizer": "adam", "learning_rate": 0.001, "l1": 1e-4}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.long)])
@pytest.mark.usefixtures("all_threads_work")
def test_same_bits_whatever_the_number_of_threads(sizes, execution, densities, epochs, settings, dtype):
    x, y = samples(sizes)
    masks, ends = random_masks(sizes, densities), []
    for n_jobs in (1, 2, 4):
        network = fp.MLP(sizes, dtype=dtype, loss="mean_squared_error", execution=execution)
        trainer = fp.Trainer(network, n_jobs=n_jobs, **{"learning_rate": 0.01, **settings})
        targets = np.eye(sizes[-1])[y]
        prune_to(trainer, masks)
        history = trainer.fit(x, targets, epochs, validation=(x[:67], targets[:67]))
        ends.append((trainer.snapshot().vectors, history))
    for vectors, history in ends[1:]:
        for vector, alone in zip(vectors, ends[0][0], strict=True):
            np.testing.assert_array_equal(vector, alone)
        assert history.epochs == ends[0][1].epochs
        assert (history.train, history.validation) == (ends[0][1].train, ends[0][1].validation)


@pytest.mark.parametrize("batch_size", [None, 75])
@pytest.mark.parametrize("density", [1.0, 0.05])  # of the latter, there are more biases than weights
@pytest.mark.parametrize("epochs", [60, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.usefixtures("all_threads_work")
def test_same_bits_of_many_short_steps(batch_size, density, epochs):
    """That leave a thread little time to be late in without being seen."""
    x, y = samples((8, 300, 3))
    ends = []
    for n_jobs in (1, 2, 4):
        network = fp.MLP((8, 300, 3), execution="sparse", density=density)
        trainer = fp.Trainer(network, n_jobs=n_jobs, batch_size=batch_size, learning_rate=0.01)
        history = trainer.fit(x, y, epochs)
        ends.append((network.state.values, history.epochs))
    for values, of_epochs in ends[1:]:
        np.testing.assert_array_equal(values, ends[0][0])
        assert of_epochs == ends[0][1]


def test_same_bits_however_many_steps_a_call_has(monkeypatch):
    """What one step leaves for the next in the workspace is there in the next call, too."""
    x, y = samples(WIDE, "mean_squared_error")
    ends = []
    for flop in (1, 1e12):
        monkeypatch.setattr(spans, "_SPAN_FLOP", flop)
        network = fp.MLP(WIDE, execution="sparse", density=0.3)
        trainer = fp.Trainer(network, batch_size=None, dropout=0.3, learning_rate=0.01, restore_best=False)
        history = trainer.fit(x, y, 9)
        ends.append((network.state.values, [epoch.loss for epoch in history.epochs]))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.usefixtures("all_threads_work")
def test_same_bits_through_rounds_whatever_the_number_of_threads():
    x, y = samples(SIZES)
    ends = []
    for n_jobs in (1, 2, 4):
        trainer = fp.Trainer(fp.MLP(SIZES), n_jobs=n_jobs, batch_size=32, dropout=0.1)
        history = fp.Pruner(trainer, schedule=[0.3, 0.6, 0.9]).run(x, y, 3)
        ends.append((trainer.network.state.values, [(record.live, record.after) for record in history]))
    for values, records in ends[1:]:
        np.testing.assert_array_equal(values, ends[0][0])
        assert records == ends[0][1]


# What is stored when


def test_storage_comes_back_with_a_state():
    x, y = samples(SIZES)
    trainer = fp.Trainer(fp.MLP(SIZES), optimizer="adam", learning_rate=0.01, batch_size=32, dropout=0.1)
    network = trainer.network
    trainer.fit(x, y, 2)
    states, ends = [], []
    for sparsity in (0.0, 0.7, 0.9):  # beyond where any processor's rule changes
        fp.Pruner(trainer, schedule=[0.0]).step(sparsity=sparsity)
        states.append((trainer.snapshot(), network.execution, network.masks, parameters(trainer)))
        trainer.fit(x, y, 2)
        ends.append(parameters(trainer))
    assert [execution for _, execution, _, _ in states] == [["dense", "dense", "sparse"], *[["sparse"] * 3] * 2]
    for (state, execution, masks, before), end in [*zip(states, ends, strict=True)][::-1]:
        trainer.restore(state)
        assert network.execution == execution
        for mask, old in zip(network.masks, masks, strict=True):
            np.testing.assert_array_equal(mask, old)
        for array, old in zip(parameters(trainer), before, strict=True):
            np.testing.assert_array_equal(array, old)
        trainer.fit(x, y, 2)
        for array, old in zip(parameters(trainer), end, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ({"sizes": (20, 40, 30, 3)}, {}),
        ({"sizes": (20, 40, 3)}, {}),
        ({"dtype": "float64"}, {}),
        ({}, {"optimizer": "adam"}),
        ({"activation": "tanh"}, {}),
    ],
    ids=str,
)
def test_the_state_of_another_trainer_is_refused(network, settings):
    trainer, other = (
        fp.Trainer(fp.MLP(**{"sizes": SIZES, **arguments}), **options)
        for arguments, options in (({}, {}), (network, settings))
    )
    fp.Pruner(trainer, schedule=[0.0]).step(sparsity=0.8)
    before, storage = parameters(trainer), trainer.network.state.storage
    for one, foreign in ((trainer, other), (other, trainer)):
        with pytest.raises(ValueError, match="state: expected a snapshot of this trainer"):
            one.restore(foreign.snapshot())
    assert trainer.network.state.storage is storage
    for array, old in zip(parameters(trainer), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("change", ["prune", "restore"])
@pytest.mark.parametrize("flop", [1, 1e9])
def test_a_network_that_a_callback_prunes_or_restores_ends_the_fit(monkeypatch, change, flop):
    """After the first of many spans, and after the only one."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", flop)
    x, y = samples(SIZES)
    trainer = fp.Trainer(fp.MLP(SIZES), batch_size=40)
    state = trainer.snapshot()
    fp.Pruner(trainer, schedule=[0.0]).step(sparsity=0.5)

    def meddle(_):
        if change == "prune":
            prune_at(trainer.network, np.arange(20))
        else:
            trainer.restore(state)

    with pytest.raises(RuntimeError, match="the callback pruned, restored or trained the network"):
        trainer.fit(x, y, 2, callback=meddle)
    assert np.isfinite(trainer.fit(x, y, 1).train.loss), "training can go on"


def test_a_restore_by_a_callback_is_noticed_even_if_nothing_was_pruned():
    x, y = samples(SIZES)
    trainer = fp.Trainer(fp.MLP(SIZES), batch_size=40)
    state = trainer.snapshot()
    with pytest.raises(RuntimeError, match="the callback pruned, restored or trained the network"):
        trainer.fit(x, y, 2, callback=lambda _: trainer.restore(state))


def test_two_trainers_take_turns_at_one_network():
    """What an optimizer keeps goes with the parameters, through another trainer's prune; but it keeps its own only."""
    x, y = samples(SIZES)

    def made():
        network = fp.MLP(SIZES, seed=2)
        return fp.Trainer(network, batch_size=40), fp.Trainer(network, batch_size=40, optimizer="adam")

    one, other = made()
    one.fit(x, y, 1)
    fp.Pruner(other, schedule=[0.0]).step(sparsity=0.9)
    momentum = one.snapshot().velocity
    assert momentum.any()
    assert momentum.size == one.network.state.values.size
    one.fit(x, y, 1)

    alone, _ = made()
    alone.fit(x, y, 1)
    fp.Pruner(alone, schedule=[0.0]).step(sparsity=0.9)
    alone.fit(x, y, 1)
    for array, twin in zip(parameters(one), parameters(alone), strict=True):
        np.testing.assert_array_equal(array, twin)

    other.fit(x, y, 1)
    assert not one.snapshot().velocity.any()
    assert (one.snapshot().square.size, one.snapshot().updates) == (0, 0)
    fresh = fp.Trainer(one.network, batch_size=40)
    state = fresh.snapshot()
    fresh.fit(x, y, 1)
    expected = parameters(fresh)
    one.restore(state)
    one.fit(x, y, 1)
    for array, twin in zip(parameters(one), expected, strict=True):
        np.testing.assert_array_equal(array, twin)


@pytest.mark.parametrize("execution", ["dense", "sparse", "auto"])
@pytest.mark.parametrize("densities", [(1, 1, 1), (0.3, 0.8, 0.5), (0, 0.5, 1)])
def test_files_do_not_depend_on_how_layers_are_stored(tmp_path, execution, densities):
    trainer, _ = run(execution, random_masks(SIZES, densities))
    network, (x, _) = trainer.network, samples(SIZES)
    network.save(tmp_path / "net.npz")
    loaded = fp.load(tmp_path / "net.npz")
    assert loaded.execution == run("auto", random_masks(SIZES, densities))[0].network.execution
    arrays = [network.weights, network.masks, network.biases], [loaded.weights, loaded.masks, loaded.biases]
    for group, other in zip(*arrays, strict=True):
        for array, twin in zip(group, other, strict=True):
            np.testing.assert_array_equal(array, twin)
    np.testing.assert_allclose(loaded.logits(x), network.logits(x), rtol=1e-12, atol=1e-12)
    loaded.save(tmp_path / "again.npz")
    with np.load(tmp_path / "net.npz") as one, np.load(tmp_path / "again.npz") as other:
        assert one.files == other.files
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
