"""What a person sees of trainings and runs, how they end them, and what records look like."""

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import rich
from networks import bits, same
from rich.console import Console

import fastprune as fp
from fastprune import spans
from fastprune.records import Event

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
X[np.arange(60), Y] += 1
HELD_OUT = X[::7] + np.float32(0.1), Y[::7]
SIZES = [16, 16, 16, 12]  # of an epoch's batches


def made(**settings):
    return fp.Trainer(fp.MLP([4, 8, 3]), **{"batch_size": 16, "restore_best": False} | settings)


def span_of(monkeypatch, steps):
    """Let a call of the kernel make so many steps: whole epochs of 4, or fewer than 4."""
    monkeypatch.setattr(spans, "_SPAN_FLOP", steps * (6 * 56 * 16 + spans._STEP_FLOP) + 1)


def at(step, answer=True):
    """A callback that gives this answer from a step on."""
    return lambda progress: answer if progress.step >= step else None


# Progress


@pytest.mark.parametrize(
    ("span", "held_out", "steps"),
    [
        (1, None, range(1, 21)),
        (3, None, [3, 4, 7, 8, 11, 12, 15, 16, 19, 20]),
        (3, HELD_OUT, [3, 4, 7, 8, 11, 12, 15, 16, 19, 20]),
        (4, None, [4, 8, 12, 16, 20]),
        (9, None, [8, 16, 20]),
        (9, HELD_OUT, [4, 8, 12, 16, 20]),
        (999, None, [20]),
    ],
)
def test_what_a_callback_is_told(monkeypatch, span, held_out, steps):
    span_of(monkeypatch, span)
    trainer, told = made(), []

    def look(progress):
        told.append(progress)
        if held_out and progress.epoch_ended:
            assert progress.validation == trainer.evaluate(*held_out)

    history = trainer.fit(X, Y, 5, validation=held_out, callback=look)
    assert [p.step for p in told] == list(steps)
    assert [p.epoch for p in told] == [step // 4 for step in steps]
    assert [p.epoch_ended for p in told] == [step % 4 == 0 for step in steps]
    assert {(p.steps, p.epochs, p.round, p.rounds) for p in told} == {(20, 5, None, None)}
    assert [p.train for p in told] == [history.epochs[p.epoch - 1] if p.epoch else None for p in told]
    assert [p.validation for p in told] == [p.train and p.train.validation for p in told]
    seconds = [0.0, *(p.seconds for p in told), history.seconds]
    assert seconds == sorted(seconds)
    assert seconds[1] > 0
    assert not history.stopped
    if span == 1:  # the mean of each batch, also of the last, which is smaller
        for epoch in history.epochs:
            losses = [p.loss for p in told[4 * epoch.epoch - 4 : 4 * epoch.epoch]]
            assert np.dot(losses, SIZES) / 60 == pytest.approx(epoch.loss, rel=1e-6)


# The end of a fit


@pytest.mark.parametrize(("span", "step"), [(1, 1), (1, 6), (3, 11), (1, 8), (3, 12), (9, 16), (4, 20), (999, 20)])
@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_fit_ends_where_the_callback_says(monkeypatch, span, step, answer):
    span_of(monkeypatch, span)
    trainer, twin = made(), made()
    history = trainer.fit(X, Y, 5, validation=HELD_OUT if span < 9 else None, callback=at(step, answer))
    assert (history.stopped, len(history.epochs), history.restored) == (True, step // 4, False)
    assert trainer.network.state.updates == step
    assert history.train == trainer.evaluate(X, Y)
    assert history.validation == (trainer.evaluate(*HELD_OUT) if span < 9 else None)
    if step % 4:

        def interrupt(progress):
            if progress.step == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            twin.fit(X, Y, 5, callback=interrupt)
    else:
        twin.fit(X, Y, step // 4)
    same(bits(trainer), bits(twin))
    trainer.fit(X, Y, 2)  # and can go on
    twin.fit(X, Y, 2)
    same(bits(trainer), bits(twin))


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("restore_best", [True, False])
def test_a_fit_that_is_ended_keeps_the_best_state(monkeypatch, step, restore_best):
    span_of(monkeypatch, 1)
    trainer = made()
    trainer.fit(X, Y, 30)
    best, before = trainer.evaluate(X, Y), bits(trainer)
    before, trainer.restore_best = [array.copy() for array in before], restore_best
    history = trainer.fit(X, Y, 5, learning_rate=3.0, callback=at(step))
    assert (history.stopped, history.restored) == (True, restore_best)
    assert history.train == trainer.evaluate(X, Y)
    assert (history.train == best) == restore_best
    assert (trainer.network.state.updates == before[-1]) == restore_best
    if restore_best:
        same(bits(trainer), before)
        history = trainer.fit(X, Y, 5, learning_rate=0.01, callback=at(step))  # this one only gets better
        assert (history.stopped, history.restored, history.train.loss < best.loss) == (True, False, True)


@pytest.mark.parametrize("answer", [False, None, 1, "x", np.False_, [True], np.ones(2, bool)])
def test_other_answers_do_not_end_anything(monkeypatch, answer):
    span_of(monkeypatch, 3)
    trainer, twin = made(), made()
    assert not trainer.fit(X, Y, 2, callback=at(0, answer)).stopped
    twin.fit(X, Y, 2)
    for one, told in ((trainer, {"callback": at(0, answer), "on_round": lambda _: answer}), (twin, {})):
        records = fp.Pruner(one, schedule=[0.3, 0.5]).run(X, Y, 2, **told)
        assert [record.events for record in records] == [(), ()]
    same(bits(trainer), bits(twin))


# The end of a run


def test_a_run_tells_round_and_rounds_and_ends_where_the_callback_says(monkeypatch):
    span_of(monkeypatch, 3)
    trainer, twin, told = made(), made(), []

    def look(progress):
        told.append((progress.round, progress.rounds, progress.step, progress.steps, progress.epochs))
        return progress.round == 2 and progress.epoch == 2

    pruner, other = (fp.Pruner(one, schedule=[0.3, 0.5, 0.6]) for one in (trainer, twin))
    records = pruner.run(X, Y, 3, callback=look)
    whole = [3, 4, 7, 8, 11, 12]
    assert told == [(1, 3, step, 12, 3) for step in whole] + [(2, 3, step, 12, 3) for step in whole[:4]]
    assert [(r.round, r.epochs, r.failed, r.done, r.events) for r in records] == [
        (1, 3, False, True, ()),
        (2, 2, False, True, (Event("stopped"),)),
    ]
    assert (pruner.round, trainer.network.sparsity) == (2, 0.5)
    assert records[1].after.train == trainer.evaluate(X, Y)
    told.clear()
    assert [record.round for record in pruner.run(X, Y, 3, callback=look)] == [3]
    assert told == [(3, 3, step, 12, 3) for step in whole]
    assert pruner.run(X, Y, 3) == []
    other.run(X, Y, [3, 2, 3])
    same(bits(trainer), bits(twin))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("answer", [True, np.True_])
def test_on_round_ends_the_run_with_its_round(done, answer):
    trainer, twin, told = made(), made(), []

    def look(record):
        told.append((record.round, record.done))
        return answer if (record.round, record.done) == (1, done) else None

    pruner, other = (fp.Pruner(one, schedule=[0.3, 0.5, 0.6]) for one in (trainer, twin))
    (record,) = pruner.run(X, Y, 3, on_round=look)
    assert told == [(1, False), (1, True)]
    assert (record.round, record.epochs, record.failed, record.events) == (1, 3, False, (Event("stopped"),))
    assert (pruner.round, trainer.network.sparsity) == (1, pytest.approx(0.3, abs=0.01))
    assert [(record.round, record.events) for record in pruner.run(X, Y, 3, on_round=look)] == [(2, ()), (3, ())]
    other.run(X, Y, 3)
    same(bits(trainer), bits(twin))  # the round that the run ended with was whole


def test_a_round_that_is_ended_and_comes_to_nothing_is_not_tried_again(monkeypatch):
    """The step after which the callback says so is the one that takes the weights beyond all numbers."""
    span_of(monkeypatch, 1)
    trainer = made()
    trainer.fit(X, Y, 10)
    before, steps = [array.copy() for array in bits(trainer)], []

    def once(progress):
        steps.append(progress.step)
        return len(steps) == 1

    pruner = fp.Pruner(trainer, schedule=[0.3, 0.5])
    with pytest.warns(fp.TrainingWarning, match="round 1 failed and ended the run: retraining diverged"):
        (record,) = pruner.run(X, Y, 3, learning_rate=1e38, callback=once)
    assert [event.kind for event in record.events] == ["diverged", "stopped", "failed"]
    assert (steps, record.failed, pruner.round) == ([1], True, 0)
    same(bits(trainer), before)


def test_exceptions_of_callbacks_leave_a_fit_what_it_learned_and_undo_a_round(monkeypatch):
    span_of(monkeypatch, 1)

    def fail(progress):
        if progress.step == 6 and progress.round in (None, 2):
            raise ZeroDivisionError

    trainer, twin = made(), made()
    with pytest.raises(ZeroDivisionError):
        trainer.fit(X, Y, 5, callback=fail)
    twin.fit(X, Y, 5, callback=at(6))
    same(bits(trainer), bits(twin))
    pruner, other = (fp.Pruner(one, schedule=[0.3, 0.5]) for one in (trainer, twin))
    with pytest.raises(ZeroDivisionError):
        pruner.run(X, Y, 5, callback=fail)
    other.run(X, Y, 5, rounds=1)
    assert pruner.round == other.round == 1
    same(bits(trainer), bits(twin))


# The bar


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=sent, force_terminal=True, width=80))
    return sent


def test_a_bar_shows_what_is_going_on_and_changes_nothing(monkeypatch, terminal):
    span_of(monkeypatch, 3)
    trainer, twin, told = made(), made(), []
    history = trainer.fit(X, Y, 5, validation=HELD_OUT, progress=True, callback=told.append)
    assert [progress.step for progress in told] == [3, 4, 7, 8, 11, 12, 15, 16, 19, 20]
    shown, last = terminal.getvalue(), history.epochs[-1]
    assert "epoch 5/5" in shown
    assert "━━━━━" in shown
    for said in (f"loss {told[-1].loss:.4f}", f"acc {last.accuracy:.3f}", "/s", "0:00:00"):
        assert said in shown
    assert f"val {last.validation.accuracy:.3f}" in shown
    assert "round" not in shown
    twin.fit(X, Y, 5, validation=HELD_OUT)
    same(bits(trainer), bits(twin))
    pruner, other = (fp.Pruner(one, schedule=[0.3, 0.5]) for one in (trainer, twin))
    told.clear()
    records = pruner.run(X, Y, 5, progress=True, callback=lambda progress: told.append(progress.round))
    assert told == [1] * 10 + [2] * 10
    assert "round 2/2 epoch 5/5" in terminal.getvalue()
    assert [record.after for record in records] == [record.after for record in other.run(X, Y, 5)]
    same(bits(trainer), bits(twin))


def test_a_bar_ends_with_its_training(monkeypatch, terminal):
    """Also if that is ended: the cursor is back, and a new bar may begin. Without `progress` there is none."""
    span_of(monkeypatch, 3)
    trainer = made()
    assert trainer.fit(X, Y, 5, progress=True, callback=at(7)).stopped
    assert "epoch 2/5" in terminal.getvalue()  # the one under way
    with pytest.raises(ZeroDivisionError):
        trainer.fit(X, Y, 5, progress=True, callback=lambda _: 1 / 0)
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 2
    size = len(terminal.getvalue())
    trainer.fit(X, Y, 5)
    fp.Pruner(trainer, schedule=[0.3]).run(X, Y, 1)
    assert len(terminal.getvalue()) == size


@pytest.mark.parametrize("bad", [1, 0, None, "yes", np.True_])
def test_what_is_no_answer_to_whether_there_is_a_bar(bad):
    trainer = made()
    pruner, state = fp.Pruner(trainer, schedule=[0.3]), trainer.network.state
    for call in (trainer.fit, pruner.run):
        with pytest.raises(ValueError, match="progress: expected True or False, got"):
            call(X, Y, 1, progress=bad)
    assert (trainer.network.state, trainer.network.loss, pruner.round) == (state, None, 0)


# Records


@pytest.fixture(scope="module")
def seen():
    """A fit and a run with all that records can tell: by layer, held-out and test sets, events."""
    trainer = made()
    history = trainer.fit(X, Y, 3, validation=HELD_OUT)
    pruner = fp.Pruner(trainer, schedule=[{0: 20.0, 1: 0.0}, {-1: 40.0}, {1: 0.0}], rule="percentile")
    return trainer, pruner, history, pruner.run(X, Y, 2, validation=HELD_OUT, test=(X, Y))


def test_what_is_printed_is_short(seen):
    trainer, pruner, history, records = seen
    things = [trainer, pruner, trainer.snapshot(), history, history.train, *history.epochs, *records]
    assert all(len(repr(thing)) < 300 and "\n" not in repr(thing) for thing in things)
    assert [line.strip("[], ") for line in repr(records).splitlines()] == [repr(r).strip("[], ") for r in records]
    assert repr(history).startswith("History(3 epochs in ")
    assert repr(records[2]).startswith("RoundRecord(round 3, sparsity ")
    assert "nothing removed" in repr(records[2])


def test_histories_are_tables_in_a_notebook(seen):
    _, _, history, records = seen
    history = replace(history, epochs=(*history.epochs, replace(history.epochs[0], accuracy="<i>&")))
    records = type(records)([*records, replace(records[0], events=(Event("<b>&"),))])
    for thing, rows, odd in ((history, 4, "<i>&"), (records, 4, "<b>&")):
        table = ET.fromstring(thing._repr_html_())
        names = [cell.text for cell in table.iterfind("thead/tr/th")]
        cells = [[cell.text for cell in row] for row in table.iterfind("tbody/tr")]
        assert table.tag == "table"
        assert [len(row) for row in cells] == [len(names)] * rows
        assert {"loss", "validation_accuracy"} <= {*names} or {"sparsity", "after_test_accuracy", "events"} <= {*names}
        assert odd in cells[-1]
        assert odd not in thing._repr_html_()


def test_histories_are_flat(seen):
    _, _, history, records = seen
    for rows in (history.to_dicts(), records.to_dicts()):
        assert len(rows) == 3
        assert {type(value) for row in rows for value in row.values()} <= {int, float, str, bool, type(None)}
        assert all(isinstance(key, str) for row in rows for key in row)
    row = history.to_dicts()[1]
    assert (row["epoch"], row["validation_accuracy"]) == (2, history.epochs[1].validation.accuracy)
    row = records.to_dicts()[0]
    assert (row["round"], row["requested_0"], row["requested_1"], row["rule"]) == (1, 20.0, 0.0, "percentile")
    assert (row["after_test_loss"], row["thresholds_0"]) == (records[0].after.test.loss, records[0].thresholds[0])
    assert records.to_dicts()[2]["events"] == "nothing removed"
