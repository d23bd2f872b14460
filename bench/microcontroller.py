"""What does a network pruned 80 times take on a microcontroller? MNIST, 784-300-100-10, beside emlearn's dense C.

The weights left in each layer get 16 values by k-means. A Cortex-M3, for which all is compiled with -Os, is emulated by
QEMU and predicts the 10,000 test digits; the classes are compared with `frozen.predict` before anything is measured.
emlearn gets the same frozen network, with its zeros. Times are of this machine, with gcc -O2.

    python bench/microcontroller.py FILE     # writes a Markdown table, 5 minutes on one core
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import boards
import numpy as np
from harness import MNIST

import fastprune as fp
from fastprune.export import to_c

SIZES, SPARSITY, VALUES, ROUNDS = [784, 300, 100, 10], 0.9875, 16, 15


def shared(weights, live):
    """The live weights of a layer, moved to few values: Lloyd's algorithm, from evenly spaced ones."""
    found, values = weights.copy(), weights[live]
    centers = np.linspace(values.min(), values.max(), VALUES)
    for _ in range(100):
        nearest = abs(values[:, np.newaxis] - centers).argmin(axis=1)
        centers = np.array([values[nearest == i].mean() if (nearest == i).any() else c for i, c in enumerate(centers)])
    found[live] = centers[abs(values[:, np.newaxis] - centers).argmin(axis=1)]
    return found


def small_network(data, epochs=8, rounds=20, last=6):
    """Train, prune in rounds of one epoch, train on for `last` epochs, share the weights, freeze."""
    network = fp.MLP(SIZES, seed=0)
    trainer = fp.Trainer(network, learning_rate_schedule="cosine", input_dropout=0.1, restore_best=False)
    trainer.fit(data.x_train, data.y_train, epochs)
    schedule = fp.schedules.PolynomialDecay(0.0, SPARSITY, rounds=rounds)
    pruner = fp.Pruner(trainer, schedule=schedule, layer_rates="lamp")
    pruner.run(data.x_train, data.y_train, [1] * (rounds - 1) + [last], restarts=False)
    network.set_weights([shared(w, mask) for w, mask in zip(network.weights, network.masks, strict=True)])
    return network.freeze()


def by_emlearn(frozen, folder):
    """A C file by emlearn of the network with its zeros, in floats: its fixed point is not finished."""
    from emlearn.net import c_generate_net_loadable

    activations = ["relu"] * (frozen.n_layers - 1) + ["softmax"]
    code = c_generate_net_loadable(activations, [w.T for w in frozen.weights], frozen.biases, prefix="dense")
    file = folder / "emlearn.c"
    declaration = "int emlearn_predict(const float x[784])"
    macros = f"#define EMLEARN_INPUTS {frozen.sizes[0]}\n#define EMLEARN_OUTPUTS {frozen.sizes[-1]}"
    file.with_suffix(".h").write_text(f"#include <stdint.h>\n{macros}\n{declaration};\n")
    file.write_text(
        f'#include "emlearn.h"\n{code}\n{declaration} {{ return eml_net_predict(&dense, x, {frozen.sizes[0]}); }}\n'
    )
    return file


def medians(calls, samples):
    """Seconds a sample of each call, timed in turn."""
    seconds = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - start) / samples)
    return {name: statistics.median(theirs) for name, theirs in seconds.items()}


def main(path):
    data = fp.load_dataset("mnist", data_dir=MNIST)
    frozen = small_network(data)
    expected, pixels = frozen.predict(data.x_test), np.rint(data.x_test * 255).astype(np.uint8)
    accuracy = 100 * (expected == data.y_test).mean()
    print(f"{frozen}, {accuracy:.2f} % right", flush=True)
    integers = {"arithmetic": "int8", "calibration": data.x_train[:1000]}
    cases = {
        "float": {},
        "float, bytes in": {"byte_scale": 1 / 255},
        "int8": integers,
        "int8, bytes in": {"byte_scale": 1 / 255} | integers,
    }
    lines = [
        "| | same classes | flash | RAM | instructions | x86 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows, calls = {}, {"frozen.predict": lambda: [frozen.predict(data.x_test[i : i + 1]) for i in range(1000)]}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"net{index}.c") for index, name in enumerate(cases)}
        for name, file in files.items():
            to_c(frozen, file, **cases[name])
        options = ["-O2", "-std=c99"]
        if importlib.util.find_spec("emlearn"):
            import emlearn

            files["emlearn, dense float"] = by_emlearn(frozen, Path(folder))
            options += ["-I", Path(emlearn.__file__).parent]
        for name, file in files.items():
            library, x = boards.Library(file, options=options), pixels if "bytes" in name else data.x_test
            # emlearn takes 0.1 s a digit there; classes of as many digits, of both, are compared.
            classes, instructions = boards.on_cortex_m3(file, x if name in cases else x[:200], *options[2:])
            here = library("predict", x)
            np.testing.assert_array_equal(classes, here[: len(classes)])
            agree = (here == expected).mean()
            assert agree == 1 if "float" in name else agree >= 0.995, name
            sizes = boards.flash_of(file, *options[2:]), boards.ram_of(file, *options[2:])
            rows[name] = f"{100 * agree:.2f} % | {sizes[0]:,} B | {sizes[1]:,} B | {instructions:,}"
            calls[name] = partial(library, "predict", library.samples(x[:1000]))
        times = medians(calls, 1000)
    lines += [f"| {name} | {row} | {times[name] * 1e6:.2f} µs |" for name, row in rows.items()]
    lines += [f"| `frozen.predict`, one sample a call | | | | | {times['frozen.predict'] * 1e6:.2f} µs |"]
    Path(path).write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
