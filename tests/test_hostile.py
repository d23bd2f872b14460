"""What hostile use once broke: lies in files, overflows, criteria that meddle, memory, Ctrl-C."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastprune as fp

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 8)).astype("float32"), np.arange(60) % 3
X[np.arange(60), Y] += 2
HUGE = np.full((3, 2), 3e38, "float32"), np.zeros((3, 2))  # for which outputs overflow


def limited(code, gigabytes):
    """Run a script in a process that may map so much more memory than it has mapped after its imports."""
    head = f"""
        import json, re, resource
        import numpy as np
        import fastprune as fp
        fp.MLP([2, 2]).freeze(); fp.Trainer(fp.MLP([2, 2])).fit([[0.0, 1.0]], [1], 1)
        now = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (now + int({gigabytes} * 2**30),) * 2)
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)


# Files


def test_a_frozen_file_of_a_kilobyte_takes_little_memory(tmp_path):
    """Nothing that is stored bounds sizes[0]."""
    settings = {"sizes": [2**24, 1], "activation": "relu", "loss": None, "dtype": "float32", "frozen": True}
    arrays = {"weights_0": np.ones(1, "float32"), "gaps_0": np.array([1], "uint8"), "biases": np.zeros(1, "float32")}
    path = tmp_path / "net.npz"
    np.savez_compressed(path, fastprune_format=np.array(2), settings=np.array(json.dumps(settings)), **arrays)
    assert path.stat().st_size < 2000
    done = limited(
        f"""
        try:
            network = fp.load({str(path)!r})
        except ValueError as error:
            assert "Unable to allocate" not in str(error), error
        """,
        0.75,
    )
    assert done.returncode == 0, done.stderr


def test_a_frozen_network_takes_memory_for_what_is_left():
    """freeze() of 16,777,216 inputs of which some 100 are read."""
    done = limited("fp.MLP([2**24, 1], density=1e-5).freeze()", 0.75)
    assert done.returncode == 0, done.stderr[-300:]


# Gradients that overflow


@pytest.mark.parametrize(("keyword", "number"), [("sparsity", 0.5), ("q", 50.0)])
def test_a_gradient_that_overflows_prunes_nothing(keyword, number):
    network = fp.MLP([2, 4, 2], loss="mean_squared_error")
    with pytest.raises(ValueError, match="samples"):
        fp.Pruner(fp.Trainer(network), criterion="gradient").step(samples=HUGE, **{keyword: number})
    assert network.sparsity == 0


def test_a_gradient_that_overflows_grows_nothing():
    network = fp.MLP([2, 4, 2], loss="mean_squared_error", density=0.5)
    with pytest.raises(ValueError, match="samples"):
        fp.Pruner(fp.Trainer(network), grower="gradient").step(samples=HUGE, sparsity=0.5)


def test_a_gradient_that_overflows_is_told():
    with pytest.raises(ValueError, match="x: the gradient overflows float32"):
        fp.Trainer(fp.MLP([2, 4, 2], loss="mean_squared_error")).gradient(*HUGE)


# Criteria that change the network


def test_a_criterion_that_regrows_the_network_is_refused():
    network = fp.MLP([8, 16, 3], density=0.3)

    def criterion(context):
        if context.layer == 0:
            network.set_weights(network.weights, masks=[None, None])
        return abs(context.values)

    with pytest.raises(RuntimeError, match="criterion"):
        fp.Pruner(fp.Trainer(network), criterion=criterion).step(sparsity=0.9)


def test_a_criterion_that_prunes_the_network_is_refused():
    network = fp.MLP([8, 16, 3])
    trainer = fp.Trainer(network)

    def criterion(context):
        if context.layer == 0:
            fp.Pruner(trainer).step(sparsity=0.8)
        return abs(context.values)

    with pytest.raises(RuntimeError, match="criterion"):
        fp.Pruner(trainer, criterion=criterion).step(sparsity=0.5)


# Dense_epochs and growers


def test_dense_epochs_end_with_the_first_prune_also_with_a_grower():
    network = fp.MLP([8, 16, 3], density=0.5)
    trainer = fp.Trainer(network, learning_rate=0.01)
    trainer.fit(X, Y, 2)
    schedule = fp.schedules.ConstantSparsity(network.sparsity, rounds=3)
    history = fp.Pruner(trainer, schedule=schedule, grower="random").run(X, Y, 2, learning_rate="adaptive")
    assert all(record.removed for record in history)
    assert trainer.dense_epochs == 2
    assert [record.learning_rate for record in history] == [0.01] * 3


# Rewinding and growers


def test_what_cannot_be_rewound_is_refused_by_its_name_before_the_first_round():
    network = fp.MLP([8, 16, 3], density=0.5)
    trainer = fp.Trainer(network, learning_rate=0.01)
    early = trainer.snapshot()
    trainer.fit(X, Y, 2)
    told = []
    pruner = fp.Pruner(trainer, schedule=[network.sparsity] * 2, grower="random")
    with pytest.raises(ValueError, match=r"^rewind_to: "):
        pruner.run(X, Y, 2, rewind_to=early, on_round=told.append)
    assert not told


# Sizes and dtype


@pytest.mark.parametrize("form", [lambda network: network, lambda network: network.freeze()])
def test_sizes_cannot_be_changed_from_outside(form):
    """The kernel would read beyond the samples."""
    network = form(fp.MLP([8, 3], loss="softmax_cross_entropy"))
    try:
        network.sizes[0] = 1
    except TypeError:
        return
    assert network.sizes == [8, 3]


# What ends a run


def test_a_run_that_on_round_ends_says_so():
    trainer = fp.Trainer(fp.MLP([8, 16, 3]), learning_rate=0.01)
    history = fp.Pruner(trainer, schedule=[0.1, 0.2]).run(X, Y, 1, on_round=lambda record: True)
    assert len(history) == 1
    assert "stopped" in [event.kind for event in history[0].events]


def test_a_true_of_numpy_ends_a_fit():
    trainer = fp.Trainer(fp.MLP([8, 3]), learning_rate=0.01)
    history = trainer.fit(X, Y, 5, validation=(X, Y), callback=lambda p: np.mean([p.loss]) < 1e9)
    assert history.stopped


# Bars


def test_a_bar_that_ctrl_c_cut_off_at_its_start_is_gone():
    from rich import get_console
    from rich.live import Live

    trainer = fp.Trainer(fp.MLP([8, 3]), learning_rate=0.01)
    real = Live.start

    def start(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise KeyboardInterrupt  # at the last moment of `start`

    before = threading.active_count()
    try:
        Live.start = start
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, Y, 1, progress=True)
    finally:
        Live.start = real
    assert get_console()._render_hooks == []
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


# Arguments


def test_what_is_written_for_pruned_weights_does_not_matter():
    network = fp.MLP.from_weights([[[1.0, np.nan], [np.inf, 2.0]]], masks=[[[1, 0], [0, 1]]])
    assert network.weights[0].tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("schedule", [fp.schedules.ConstantSparsity, list[float]])
def test_a_class_is_no_schedule(schedule):
    with pytest.raises(ValueError, match="schedule"):
        fp.Pruner(fp.Trainer(fp.MLP([8, 3])), schedule=schedule)


def test_masks_are_applied_whatever_the_settings_are():
    pruner = fp.Pruner(fp.Trainer(fp.MLP([8, 3])))
    pruner.ignored_layers = [0]
    assert pruner.apply([np.eye(3, 8)]).live == 3


def test_an_unknown_number_is_refused_also_if_it_is_none():
    pruner = fp.Pruner(fp.Trainer(fp.MLP([8, 3])), schedule=[0.5])
    with pytest.raises(ValueError, match="step: expected"):
        pruner.step(sparsty=None)


def test_a_criterion_is_asked_only_about_layers_that_are_pruned():
    asked = []

    def criterion(context):
        asked.append(context.layer)
        return abs(context.values)

    fp.Pruner(fp.Trainer(fp.MLP([8, 4, 3])), criterion=criterion, ignored_layers=[-1]).step(sparsity=0.5)
    assert asked == [0]


def test_lots_are_new_each_time_also_without_training_between():
    network = fp.MLP.from_weights([np.arange(1.0, 401).reshape(20, 20)], masks=[np.arange(400).reshape(20, 20) % 2])
    pruner = fp.Pruner(fp.Trainer(network), grower="random", criterion="random", drop_fraction=0.3)
    ranks = []
    for _ in range(2):
        pruned = np.flatnonzero(~network.masks[0].reshape(-1))
        before = network.masks[0]
        pruner.step(sparsity=0.5)
        ranks.append(np.searchsorted(pruned, np.flatnonzero((network.masks[0] & ~before).reshape(-1))).tolist())
    assert ranks[0] != ranks[1]


def test_no_dtype_is_no_float64():
    with pytest.raises(ValueError, match="dtype: expected"):
        fp.MLP([2, 2], dtype=None)


# Two Ctrl-C


def test_a_second_ctrl_c_while_a_round_is_undone_splits_nothing():
    """At every line of the package that runs after the first one."""
    trainer = fp.Trainer(fp.MLP([8, 16, 3]), learning_rate=0.01)
    start = trainer.snapshot()
    for moment in range(40):
        trainer.restore(start)
        pruner = fp.Pruner(trainer, schedule=[0.5])
        seen = []

        def second(frame, event, argument, seen=seen, moment=moment):
            if "fastprune" not in Path(frame.f_code.co_filename).parts[-2]:
                return None
            seen.append(event)
            if len(seen) > moment:
                sys.settrace(None)
                raise KeyboardInterrupt
            return second

        def first(record, second=second):
            frame = sys._getframe(1)
            sys.settrace(second)
            while frame is not None and "fastprune" in Path(frame.f_code.co_filename).parts[-2]:
                frame.f_trace, frame = second, frame.f_back
            raise KeyboardInterrupt

        try:
            with pytest.raises(KeyboardInterrupt):
                pruner.run(X, Y, 1, on_round=first)
        finally:
            sys.settrace(None)
        assert (pruner.round, trainer.network.sparsity) in ((0, 0.0), (1, 0.5)), moment
