"""How long does a prediction take: one sample, 64, 1024? LeNet-300-100, 92 % pruned, one thread.

Peers run the same network densely, which is all they can do, with its zeros; SciPy runs it in CSR.
"""

import numpy as np
import peers
import pytest
import scipy.sparse
from harness import compare, layer_densities, mnist, pruned, trainer_of

import fastprune as fp
from fastprune.blas import one_blas_thread

SIZES, DENSITY = [784, 300, 100, 10], 0.08


def layers(network):
    return list(zip(network.weights, network.biases, strict=True))


def numpy_logits(network):
    parameters = [(w.T.copy(), b) for w, b in layers(network)]

    def predict(x):
        for w, b in parameters[:-1]:
            x = np.maximum(x @ w + b, 0)
        return x @ parameters[-1][0] + parameters[-1][1]

    return predict


def scipy_logits(network):
    parameters = [(scipy.sparse.csr_array(w), b[:, np.newaxis]) for w, b in layers(network)]

    def predict(x):
        a = np.ascontiguousarray(x.T)
        for w, b in parameters[:-1]:
            a = np.maximum(w @ a + b, 0)
        return (parameters[-1][0] @ a + parameters[-1][1]).T

    return predict


def torch_logits(network):
    import torch

    model = peers.Torch(network, prune=False).model.eval()

    def predict(x):
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return predict


def onnx_logits(network):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, last = [], [], "x"
    for i, (w, b) in enumerate(layers(network)):
        constants += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        last = f"z{i}"
        if i < network.n_layers - 1:
            nodes.append(helper.make_node("Relu", [last], [f"a{i}"]))
            last = f"a{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["samples", size])
        for name, size in (("x", network.sizes[0]), (last, network.sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def against(benchmark, samples, quick=False):
    x, y = mnist(12800)
    trainer = trainer_of(fp.MLP(SIZES))
    trainer.fit(x, y, 1)
    network = pruned(trainer, DENSITY).network
    frozen = network.freeze()
    rivals = {"NumPy": numpy_logits(network), "SciPy CSR": scipy_logits(network)}
    found = [] if quick else peers.installed("torch", "onnx", "onnxruntime")
    rivals |= {"PyTorch": torch_logits(network)} if "torch" in found else {}
    rivals |= {"onnxruntime": onnx_logits(network)} if {"onnx", "onnxruntime"} <= set(found) else {}
    rivals["fastprune, not frozen"] = network.logits
    x = x[:samples].copy()
    for rival in rivals.values():
        np.testing.assert_allclose(frozen.logits(x), rival(x), rtol=1e-3, atol=1e-4)

    repeats = max(5, 4096 // samples)

    def many(predict):
        # Other samples each time, as a service would get them.
        batches = np.split(mnist(repeats * samples)[0].copy(), repeats) if samples < 64 else [x] * repeats

        def call():
            for batch in batches:
                predict(batch)

        return call

    with one_blas_thread():
        return compare(
            benchmark,
            "inference",
            f"784-300-100-10, density {DENSITY}, {samples} samples",
            many(frozen.logits),
            {name: many(rival) for name, rival in rivals.items()},
            repeats=repeats,
            densities=layer_densities(network),
        )


@pytest.mark.parametrize("samples", [1, 64, 1024])
def test_inference(benchmark, samples):
    against(benchmark, samples)


@pytest.mark.quick
# 0.6 of the least that a processor showed: 2.15 and 2.56, 3.13 and 2.38, AMD Zen 3 with AVX2, not quiet.
@pytest.mark.parametrize(("samples", "numpy_floor", "scipy_floor"), [(1, 1.3, 1.5), (1024, 1.9, 1.4)])
def test_quick_inference(benchmark, samples, numpy_floor, scipy_floor):
    ratios = against(benchmark, samples, quick=True)
    assert ratios["NumPy"] >= numpy_floor
    assert ratios["SciPy CSR"] >= scipy_floor
