"""How large is a pruned network in each format, and how fast is it there? LeNet-300-100, 92 % pruned, one thread.

ONNX has the weights twice: with zeros, as `to_onnx` writes them, and as sparse initializers, which it can also hold.

    python bench/formats.py     # prints the table of docs/export.md, a minute
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from harness import mnist, pruned, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread
from fastprune.export import to_onnx

SIZES, DENSITY, SAMPLES, ROUNDS = [784, 300, 100, 10], 0.08, 1024, 30


def with_sparse_initializers(source, target):
    """Write the same ONNX model with its weights as sparse tensors: values, and their positions."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    for dense in [one for one in model.graph.initializer if len(one.dims) == 2]:
        array = numpy_helper.to_array(dense).reshape(-1)
        (where,) = array.nonzero()
        values = numpy_helper.from_array(array[where], dense.name)
        positions = helper.make_tensor("", TensorProto.INT64, where.shape, where)
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, positions, dense.dims))
        model.graph.initializer.remove(dense)
    onnx.save(model, target)


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: made.run(None, {"input": x})[0]


def logits(path):
    return fp.load(path).logits


def medians(calls):
    """Median processor seconds of each call, made in turn; all run in this thread."""
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(of_call) for name, of_call in times.items()}


def main():
    x, y = mnist(12_800)
    trainer = trainer_of(fp.MLP(SIZES))
    trainer.fit(x, y, 1)
    network = pruned(trainer, DENSITY).network
    x = x[:SAMPLES].copy()
    samples = np.split(x, SAMPLES)
    with tempfile.TemporaryDirectory() as folder, one_blas_thread():
        npz, dense, sparse = (Path(folder, name) for name in ("net.npz", "dense.onnx", "sparse.onnx"))
        network.freeze().save(npz)
        to_onnx(network, dense)
        with_sparse_initializers(dense, sparse)
        loads = {
            "fastprune's own file, of the frozen network": partial(logits, npz),
            "ONNX, as `to_onnx` writes it, in onnxruntime": partial(session, dense),
            "ONNX, with sparse initializers, in onnxruntime": partial(session, sparse),
        }
        sizes = [f"{path.stat().st_size / 1000:,.0f} kB" for path in (npz, dense, sparse)]
        predictors = {name: load() for name, load in loads.items()}
        for predict in predictors.values():
            np.testing.assert_allclose(predict(x), network.logits(x), rtol=1e-3, atol=1e-4)
        loading = medians(loads)
        one = medians({name: lambda p=predict: [p(row) for row in samples] for name, predict in predictors.items()})
        many = medians({name: partial(predict, x) for name, predict in predictors.items()})
    print(f"| | file | to load | one sample | {SAMPLES:,} samples |\n| --- | --- | --- | --- | --- |")
    for name, size in zip(loads, sizes, strict=True):
        times = f"{1e3 * loading[name]:.1f} ms | {1e6 * one[name] / SAMPLES:.1f} µs | {1e3 * many[name]:.2f} ms"
        print(f"| {name} | {size} | {times} |")


if __name__ == "__main__":
    main()
