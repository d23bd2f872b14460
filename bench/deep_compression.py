"""Write bench/han2016 from the folder of the preset: how small networks get as files and as C, and what C costs.

A Cortex-M3, for which all is compiled with -Os, is emulated by QEMU and predicts the 10,000 test digits; its classes
are compared with `frozen.predict` before anything is counted. emlearn and TensorFlow Lite (if they are installed) get
the same networks with the zeros: emlearn in floats, because its fixed point is not finished; TensorFlow Lite in 8 bits.
Times are of this machine, with gcc -O2, one sample a call, interleaved.

python -m fastprune.sweep --preset han2016 --data-dir bench/mnist
python bench/deep_compression.py runs/han2016      # 10 minutes
python bench/update.py --no-run
"""

import importlib.util
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import boards
import numpy as np
from harness import MNIST
from study import error, name, table

import fastprune as fp
from fastprune.export import to_c
from fastprune.files import write_text
from fastprune.sweep.config import Sweep, read_toml
from fastprune.sweep.results import Results
from fastprune.sweep.store import Store

HERE = Path(__file__).parent / "han2016"
FORMS = ["80x", "100x", "400x"]  # levels whose files are compared with other forms, at MIXED bits
MIXED, FEW = "2-3-4, biases 4", "2, biases 4"
IN_C = [("56x", MIXED), ("68x", MIXED), ("80x", MIXED), ("400x", FEW)]
ROUNDS, SAMPLES = 25, 1000


def files(rows):
    """Error and bytes by level and bits."""
    bits = list(dict.fromkeys(row.bits for row in rows if row.bits))
    head = ["compression", "live weights", "test error, %"]
    head += [text for one in bits for text in (f"in {one.partition(',')[0]} bits", "bytes")]
    levels = {}
    for row in rows:
        levels.setdefault(name(row), {})[row.bits] = row
    body = []
    for level, found in levels.items():
        if bits[0] in found:
            cells = [level, f"{found[''].live:,.0f}", error(found[""].after)]
            for one in bits:
                cells += [error(found[one].after), f"{found[one].coded_bytes:,.0f}"]
            body.append(cells)
    return table("MNIST, 784-300-100-10, biases in 4 bits.", head, body)


def forms(networks):
    """Bytes of the same networks in several forms."""
    sizes = {level: [fp.file_sizes(network) for network in networks(level, MIXED)] for level in FORMS}
    names = {
        "dense": "dense float32", "csr": "CSR", "relative": "relative index and codes", "huffman": "the same, Huffman",
        "npz": "`.npz` of `save`", "gzip": "arrays, gzip", "xz": "arrays, xz", "coded": "**coded file**",
    }  # fmt: skip
    body = []
    for field, text in names.items():
        means = [statistics.fmean(getattr(one, field) for one in sizes[level]) for level in FORMS]
        body.append([text, *(f"{mean:,.0f}" for mean in means)])
    dense = [statistics.fmean(one.dense / one.coded for one in sizes[level]) for level in FORMS]
    body.append(["smaller than dense", *(f"{ratio:.0f}x" for ratio in dense)])
    return table("Bytes at 2-3-4 bits.", ["", *FORMS], body)


def by_emlearn(frozen, folder):
    """A C file by emlearn of the network with its zeros."""
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


def by_tensorflow(frozen, x):
    """The bytes of a TensorFlow Lite model in 8 bits of the network with its zeros, and a function that predicts."""
    import tensorflow as tf

    layers = [tf.keras.Input((frozen.sizes[0],))]
    layers += [tf.keras.layers.Dense(size, activation="relu") for size in frozen.sizes[1:-1]]
    model = tf.keras.Sequential([*layers, tf.keras.layers.Dense(frozen.sizes[-1])])
    model.set_weights([part for w, b in zip(frozen.weights, frozen.biases, strict=True) for part in (w.T, b)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x[:SAMPLES])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = given["quantization"]

    def predict(samples):
        classes = []
        for row in np.clip(np.rint(samples / scale) + zero, -128, 127).astype(np.int8):
            interpreter.set_tensor(given["index"], row[None])
            interpreter.invoke()
            classes.append(interpreter.get_tensor(out["index"])[0].argmax())
        return np.array(classes)

    return len(content), predict


def costs(networks, data):
    """What C costs on a Cortex-M3, by level: means over the seeds."""
    pixels = np.rint(data.x_test * 255).astype(np.uint8)
    body = []
    for level, bits in IN_C:
        for arithmetic in ("float", "int8"):
            found = []
            for network in networks(level, bits):
                frozen = network.freeze()
                expected = frozen.predict(data.x_test)
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder, "net.c")
                    settings = {"calibration": data.x_train[:2000]} if arithmetic == "int8" else {}
                    to_c(frozen, file, arithmetic=arithmetic, byte_scale=1 / 255, **settings)
                    classes, instructions = boards.on_cortex_m3(file, pixels)
                    np.testing.assert_array_equal(classes, boards.Library(file)("predict", pixels))
                    agree, wrong = (classes == expected).mean(), (classes != data.y_test).mean()
                    assert agree == 1 if arithmetic == "float" else agree >= 0.995, (level, arithmetic)
                    found.append((wrong, agree, boards.flash_of(file), boards.ram_of(file), instructions))
            wrong, agree, flash, ram, instructions = np.mean(found, axis=0)
            shares = f"{100 * wrong:.2f}", f"{100 * agree:.2f}"
            sizes = (f"{number:,.0f}" for number in (flash, ram, instructions))
            body.append([level, bits.partition(",")[0], arithmetic, *shares, *sizes])
            print(*body[-1], flush=True)
    head = ["compression", "bits", "arithmetic", "test error, %", "same classes, %", "flash, bytes", "RAM, bytes"]
    return table(f"{len(found)} seeds, bytes in.", [*head, "instructions a sample"], body)


def by_hand(frozen, x, folder):
    """Plain loops over all weights in 8 bits, the zeros among them: the least that a dense network takes."""
    lines, unit = ['#include "dense.h"'], 1 / 255
    source, body = "x", []
    for index, (weights, biases) in enumerate(zip(frozen.weights, frozen.biases, strict=True)):
        outputs, inputs = weights.shape
        each = abs(weights).max() / 127
        x = np.maximum(x @ weights.T + biases, 0)
        above = x.max() / 255
        shift = max(0, int(np.log2(above / (unit * each))))
        each = max(each, above / (unit * 2.0**shift))
        w, b = np.rint(weights / each).astype(int), np.rint(biases / (unit * each)).astype(int)
        rows = ",".join(f"{{{','.join(map(str, row))}}}" for row in w.tolist())
        lines.append(f"static const int8_t w{index}[{outputs}][{inputs}] = {{{rows}}};")
        lines.append(f"static const int32_t b{index}[{outputs}] = {{{','.join(map(str, b.tolist()))}}};")
        last = index == frozen.n_layers - 1
        body.append(f"{'int32_t' if last else 'uint8_t'} y{index}[{outputs}];")
        body.append(f"for (o = 0; o < {outputs}; ++o) {{ int32_t sum = b{index}[o]; for (i = 0; i < {inputs}; ++i)")
        body.append(f"sum += w{index}[o][i] * {source}[i];")
        clamped = f"sum = sum > 0 ? sum >> {shift} : 0; y{index}[o] = (uint8_t)(sum < 255 ? sum : 255);"
        body.append(f"y{index}[o] = sum; }}" if last else f"{clamped} }}")
        source, unit = f"y{index}", unit * each * 2.0**shift
    lines += ["int dense_predict(const uint8_t x[784])", "{", "int i, o, best = 0;", *body]
    lines += [f"for (o = 1; o < {outputs}; ++o) if ({source}[o] > {source}[best]) best = o;", "return best;", "}"]
    file = folder / "dense.c"
    macros = f"#define DENSE_INPUTS {frozen.sizes[0]}\n#define DENSE_OUTPUTS {frozen.sizes[-1]}"
    file.with_suffix(".h").write_text(f"#include <stdint.h>\n{macros}\nint dense_predict(const uint8_t x[784]);\n")
    file.write_text("\n".join(lines) + "\n")
    return file


def timed(predict, x):
    """Seconds of a sample."""
    start = time.perf_counter()
    predict(x)
    return (time.perf_counter() - start) / len(x)


def peers(network, data):
    """Flash, RAM, and time on this machine, beside others, for one network."""
    frozen, x, pixels = network.freeze(), data.x_test, np.rint(data.x_test * 255).astype(np.uint8)
    expected, rows, timers = frozen.predict(x), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        files = {"C, float": Path(folder, "floats.c"), "C, int8": Path(folder, "int8.c")}
        to_c(frozen, files["C, float"], byte_scale=1 / 255)
        to_c(frozen, files["C, int8"], byte_scale=1 / 255, arithmetic="int8", calibration=data.x_train[:2000])
        files["dense loops, int8"] = by_hand(frozen, data.x_train[:2000], Path(folder))
        options = []
        if importlib.util.find_spec("emlearn"):
            import emlearn

            files["emlearn, float, with the zeros"] = by_emlearn(frozen, Path(folder))
            options = ["-I", Path(emlearn.__file__).parent]
        for what, file in files.items():
            library = boards.Library(file, options=["-O2", "-std=c99", *options])
            given = x if "emlearn" in what else pixels
            agree = (library("predict", given) == expected).mean()
            assert agree >= 0.99 if "int8" in what else agree == 1, (what, agree)
            rows[what] = [f"{boards.flash_of(file, *options):,}", f"{boards.ram_of(file, *options):,}"]
            _, instructions = boards.on_cortex_m3(file, given[:200], *options)
            rows[what].append(f"{instructions:,}")
            timers[what] = library.timer(given[:SAMPLES], *options)
        if importlib.util.find_spec("tensorflow"):
            size, predict = by_tensorflow(frozen, data.x_train)
            assert (predict(x) == expected).mean() >= 0.99
            rows["TensorFlow Lite, int8, with the zeros"] = [f"{size:,} and its library", "", ""]
            timers["TensorFlow Lite, int8, with the zeros"] = partial(timed, predict, x[:SAMPLES])
        rows["`frozen.predict`"] = ["", "", ""]
        timers["`frozen.predict`"] = partial(
            timed, lambda some: [frozen.predict(row[None]) for row in some], x[:SAMPLES]
        )
        seconds = {what: [] for what in timers}
        for _ in range(ROUNDS):
            for what, timer in timers.items():
                seconds[what].append(timer())
    times = {what: statistics.median(theirs) for what, theirs in seconds.items()}
    best = times["C, int8"]
    body = [[what, *row, f"{times[what] * 1e6:.2f}", f"{times[what] / best:.1f}x"] for what, row in rows.items()]
    head = ["", "flash, bytes", "RAM, bytes", "instructions a sample", "µs a sample here", "to C, int8"]
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    machine = cpu.partition(": ")[2]
    title = f"68x in 2-3-4 bits, seed 0; times: {machine}, gcc -O2, medians of {ROUNDS} interleaved runs."
    return table(title, head, body)


def main(folder):
    sweep = replace(Sweep.of(read_toml(folder / "sweep.toml")), out=str(folder))
    store = Store(folder)
    (group,) = Results(sweep, store.load(sweep.cells)).groups
    ends = {(name(row), row.bits): row for row in group.ends}

    def networks(level, bits):
        return [fp.load(store.network(cell.settings, ends[level, bits].round)) for cell in group.cells]

    data = fp.load_dataset("mnist", data_dir=MNIST)
    parts = [files(group.ends), forms(networks), costs(networks, data), peers(networks("68x", MIXED)[0], data)]
    HERE.mkdir(exist_ok=True)
    write_text(HERE / "tables.md", "\n".join(parts))
    print(*parts, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
