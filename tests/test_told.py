"""What a person is told: of trainings that came to nothing, of data that are not as they should be, and what helps."""

import warnings

import numpy as np
import pytest

import fastprune as fp
from fastprune.evaluation import training_set

RNG = np.random.default_rng(0)


def knowing(count, positives, told):
    """Labels of which few are 1, the feature that tells them, and a network that uses it, or not."""
    y = np.zeros(count, int)
    y[np.random.default_rng(3).permutation(count)[:positives]] = 1
    network = fp.MLP([1, 1], loss="sigmoid_cross_entropy")
    network.state.values[:] = [20.0, -10.0] if told else [0.0, np.log(positives / (count - positives))]
    return y[:, np.newaxis], y, network


# Collapses


@pytest.mark.parametrize(("count", "positives"), [(5_000, 5), (60_000, 60)])
def test_a_rare_class_hides_no_collapse(count, positives):
    """The 2,048 samples that are watched may hold no positive one; then all that are watched were right."""
    x, y, network = knowing(count, positives, told=False)
    watched = []
    for seed in range(20):
        trainer = fp.Trainer(network, seed=seed)
        watched.append(training_set(network, x, y, network.loss, seed).watched.targets.sum())
        with pytest.warns(fp.TrainingWarning, match="training collapsed: the network gives one answer"):
            history = trainer.fit(x, y, 0)
        assert history.collapsed
        assert history.train.collapsed
    assert min(watched) == 0


def test_a_rare_class_that_is_told_is_no_collapse():
    x, y, network = knowing(5_000, 5, told=True)
    watched = []
    for seed in range(20):
        trainer = fp.Trainer(network, seed=seed)
        watched.append(training_set(network, x, y, network.loss, seed).watched.targets.sum())
        history = trainer.fit(x, y, 0)
        assert (history.collapsed, history.train.one_answer) == (False, False)
        (record,) = fp.Pruner(trainer, schedule=[0.0]).run(x, y, 0)
        assert [event.kind for event in record.events] == ["nothing removed"]
    assert min(watched) == 0


def test_a_rare_class_of_several():
    y = np.repeat([0, 1, 2], [3000, 3000, 3])
    x = np.where(y == 1, 1.0, -1.0)[:, np.newaxis]
    network = fp.MLP([1, 3], loss="softmax_cross_entropy")
    network.state.values[:] = 0
    network.state.values[-3:] = np.log([0.5, 0.4995, 0.0005])
    with pytest.warns(fp.TrainingWarning, match="training collapsed"):
        assert fp.Trainer(network).fit(x, y, 0).collapsed


def test_labels_that_are_all_the_same_leave_nothing_to_learn():
    """The best possible answer to labels of 0.5 is 0.5, at a loss of their entropy."""
    x = RNG.normal(size=(50, 3))
    for label in (0.5, 0.3, 0.0, 1.0):
        network = fp.MLP([3, 1], loss="sigmoid_cross_entropy")
        network.state.values[:] = 0
        network.state.values[-1] = np.log(label / (1 - label)) if 0 < label < 1 else 100 * (2 * label - 1)
        evaluation = fp.Trainer(network).evaluate(x, np.full(50, label))
        assert (evaluation.one_answer, evaluation.collapsed) == (True, False)


def test_of_labels_between_0_and_1_only_what_can_be_learned_counts():
    """To labels of 0.45 and 0.48 a loss of 0.6902 is perfect, and one of 0.6907 knows nothing."""
    x = np.repeat([[0.0], [1.0]], 25, axis=0)
    y = np.where(x > 0, 0.48, 0.45)
    network = fp.MLP([1, 1], loss="sigmoid_cross_entropy", dtype="float64")
    low, middle, high = (np.log(p / (1 - p)) for p in (0.45, 0.465, 0.48))
    network.state.values[:] = [0.0, middle]
    assert fp.Trainer(network).evaluate(x, y).collapsed
    network.state.values[:] = [high - low, low]
    evaluation = fp.Trainer(network).evaluate(x, y)
    assert (evaluation.one_answer, evaluation.collapsed) == (True, False)


def test_one_answer_that_is_no_collapse_is_an_event_and_a_warning():
    """The network puts all samples into the larger class, but its probabilities tell the classes apart."""
    y = np.repeat([0, 1], [107, 74])
    network = fp.MLP([1, 1], dtype="float64", loss="sigmoid_cross_entropy")
    network.state.values[:] = [2.0, -2.1]
    pruner = fp.Pruner(fp.Trainer(network), schedule=[0.0, 0.0])
    with pytest.warns(
        fp.TrainingWarning, match="after rounds 1, 2 the network gives one answer for all training"
    ) as told:
        history = pruner.run(y.reshape(-1, 1), y, 0)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert [str(event) for event in history[0].events] == ["nothing removed", "one answer"]
    assert not history[0].failed
    assert history[0].after.train.one_answer


def test_one_answer_to_labels_that_are_all_the_same_is_right():
    network = fp.MLP([1, 1], loss="sigmoid_cross_entropy")
    (record,) = fp.Pruner(fp.Trainer(network), schedule=[0.0]).run(np.ones((8, 1)), np.zeros(8, int), 30)
    assert record.after.train.one_answer
    assert [event.kind for event in record.events] == ["nothing removed"]


def test_a_collapse_that_is_undone_is_told_too():
    x, y = RNG.normal(size=(60, 4)), np.repeat([0, 1, 2], [30, 20, 10])
    x[np.arange(60), y] += 3
    trainer = fp.Trainer(fp.MLP([4, 8, 3], seed=1), batch_size=None, momentum=0.0)
    good = trainer.fit(x, y, 60).train
    trainer.l2 = 100.0  # halves all weights at each step, until next to nothing but biases is left
    with pytest.warns(fp.TrainingWarning, match=r"training collapsed: the best earlier state was restored \(loss 0"):
        history = trainer.fit(x, y, 60, learning_rate=0.005)
    assert history.collapsed
    assert history.restored
    assert history.train == good


# Features


def test_features_far_from_scale_1_are_told_before_training():
    x, y = RNG.random((200, 10)), np.arange(200) % 2
    factors = {1e-200: True, 1e-4: True, 0.1: False, 1: False, 10: False, 255: True, 1e30: True, 1e200: True, 0: False}
    for factor, told in factors.items():
        network = fp.MLP([10, 2], dtype="float64")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fp.Trainer(network).fit(factor * x, y, 0)
        scale = [warning for warning in caught if "features are far from scale 1" in str(warning.message)]
        assert len(scale) == told, factor
        assert not any("inf" in str(warning.message) for warning in scale)
        assert all(warning.category is fp.TrainingWarning and warning.filename == __file__ for warning in scale)
    network = fp.MLP([10, 2])
    with pytest.raises(fp.TrainingWarning, match=r"root mean square up to 1\d\d\).* Divide pixels by 255; scale col"):
        fp.Trainer(network).fit(255 * x, y, 1)
    assert network.loss is None, "a warning made an error changes nothing"


# Labels and shapes


@pytest.mark.parametrize(
    ("outputs", "x", "y", "message"),
    [
        (3, None, [1, 2, 3, 3], r"y: .* in 0 .. 2, got values from 1 to 3; classes start at 0: train on y - 1"),
        (3, None, [0, 1, 2, 3], r"y: expected integers of shape \(4,\) in 0 .. 2, got values from 0 to 3$"),
        (3, None, ["a", "b", "c", "a"], r"got text; np.unique\(y, return_inverse=True\)\[1\] gives classes from 0"),
        (3, None, np.array(["a", "b", "c", "a"], object), "got text; np.unique"),
        (2, None, np.array([b"a", b"b", b"b", b"a"]), "got text; np.unique"),
        (3, None, np.eye(3)[[0, 1, 2, 0]], r"y: expected classes .*got one-hot rows: y.argmax\(axis=1\)"),
        (3, np.ones((4, 2, 3)), [0, 1, 2, 0], r"got shape \(4, 2, 3\); x.reshape\(len\(x\), -1\) makes"),
        (3, np.ones(6), [0], r"got shape \(6,\); a single sample is x.reshape\(1, -1\)"),
        (3, np.ones((4, 5)), [0, 1, 2, 0], r"got shape \(4, 5\)$"),
        (3, np.ma.masked_equal(np.eye(4, 6), 1), [0, 1, 2, 0], "x: .* got a masked array; fill or drop the masked"),
        (3, None, np.ma.masked_equal([0, 1, 2, 0], 1), "y: .* got a masked array"),
        (3, list(np.ma.masked_equal(np.eye(4, 6), 1)), [0, 1, 2, 0], "x: .* got a masked array"),
        (1, None, [3, 1, 2, 0], "for a regression, pass loss='mean_squared_error' to MLP or fit"),
    ],
)
def test_what_is_wrong_with_data_and_what_helps(outputs, x, y, message):
    network = fp.MLP([6, outputs])
    x = np.eye(4, 6) if x is None else x
    with pytest.raises(ValueError, match=message):
        fp.Trainer(network).fit(x, y, 1)
    assert network.loss is None


def test_features_that_are_rarely_1_are_not_too_small():
    x = np.eye(20_000, 600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fp.Trainer(fp.MLP([600, 2], seed=1)).fit(x, np.arange(20_000) % 2, 0)


def test_one_hot_rows_for_a_network_of_classes_say_what_to_do():
    network = fp.MLP([6, 3], loss="softmax_cross_entropy")
    with pytest.raises(ValueError, match=r"y: expected integers of shape .*one-hot rows: y.argmax\(axis=1\) gives the"):
        fp.Trainer(network).fit(np.eye(4, 6), np.eye(3)[[0, 1, 2, 0]], 1)
    with pytest.raises(ValueError, match=r"y: expected .* of shape \(4, 3\), got shape \(0, 3\)"):
        fp.Trainer(fp.MLP([6, 3])).fit(np.eye(4, 6), np.empty((0, 3)), 1)


@pytest.mark.filterwarnings("ignore:training collapsed")
def test_what_only_looks_wrong_is_taken():
    x = np.eye(4, 6)
    fp.Trainer(fp.MLP([6, 3])).fit(np.ma.masked_array(x), [0, 1, 2, 0], 1)  # nothing is masked
    fp.Trainer(fp.MLP([6, 3])).fit(x, np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]), 1)  # several at once
    fp.Trainer(fp.MLP([6, 1])).fit(x, np.array([[1], [1], [1], [1]]), 1)


def test_the_loss_can_be_named_where_labels_would_choose_another():
    """Values to meet that happen to be 0 and 1 are taken for no and yes."""
    x, y = RNG.normal(size=(40, 2)), np.arange(40.0) % 2
    guessed, named = fp.MLP([2, 1]), fp.MLP([2, 1])
    fp.Trainer(guessed, learning_rate=0.01).fit(x, y, 5)
    history = fp.Trainer(named, learning_rate=0.01).fit(x, y, 5, loss="mean_squared_error")
    assert (guessed.loss, named.loss) == ("sigmoid_cross_entropy", "mean_squared_error")
    assert history.train.accuracy is None
    fp.Trainer(named, learning_rate=0.01).fit(x, y, 5, loss="mean_squared_error")
    with pytest.raises(ValueError, match="loss: expected the network's loss 'mean_squared_error', got 'sigmoid"):
        fp.Trainer(named).fit(x, y, 5, loss="sigmoid_cross_entropy")
    with pytest.raises(ValueError, match=r"loss: expected one of 'softmax_cross_entropy', .* got 'mse'"):
        fp.Trainer(fp.MLP([2, 1])).fit(x, y, 5, loss="mse")
    one_hot = np.eye(3)[np.arange(40) % 3]
    network = fp.MLP([2, 3])
    fp.Trainer(network).fit(x, one_hot, 5, loss="sigmoid_cross_entropy")
    assert network.predict(x).shape == (40, 3)


def test_a_schedule_that_is_used_up_says_what_to_do():
    pruner = fp.Pruner(fp.Trainer(fp.MLP([4, 3])), schedule=[0.5])
    pruner.step()
    message = r"the one round of the schedule is done; give a longer schedule, or a number: step\(sparsity=...\)"
    with pytest.raises(ValueError, match=message):
        pruner.step()
