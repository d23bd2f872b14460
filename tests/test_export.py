"""Networks in other formats, with the libraries themselves: what goes out comes back equal, the rest is refused."""

import importlib.util
import re

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from networks import parts, same

import fastprune as fp
from fastprune.base import ACTIVATIONS
from fastprune.export import (
    from_onnx,
    from_safetensors,
    from_scipy,
    from_torch,
    to_onnx,
    to_safetensors,
    to_scipy,
    to_torch,
)


def needs(*libraries):
    missing = [one for one in libraries if importlib.util.find_spec(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


needs_onnx, needs_torch, needs_safetensors = needs("onnx", "onnxruntime"), needs("torch"), needs("safetensors")
OUT = {
    "onnx": pytest.param(to_onnx, "net.onnx", marks=needs_onnx),
    "safetensors": pytest.param(to_safetensors, "net.safetensors", marks=needs_safetensors),
}


def drawn(sizes, density, activation, dtype, emptied, seed):
    """A network with biases, perhaps with a layer of no weights, and otherwise with a live weight of 0."""
    rng = np.random.default_rng(seed)
    network = fp.MLP(sizes, density=density, activation=activation, dtype=dtype, seed=seed, loss="mean_squared_error")
    masks, weights = network.masks, [w.copy() for w in network.weights]
    layer = seed % network.n_layers
    if emptied:
        masks[layer] = np.zeros_like(masks[layer])
    else:
        weights[layer].reshape(-1)[np.flatnonzero(masks[layer])[:1]] = 0
    network.set_weights(weights, [rng.normal(size=b.shape) for b in network.biases], masks)
    return network


networks = st.builds(
    drawn,
    st.lists(st.integers(1, 40), min_size=2, max_size=4),
    st.floats(0.02, 1.0),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(["float32", "float64"]),
    st.booleans(),
    st.integers(0, 99),
)


def samples(network, count=20):
    return np.random.default_rng(5).normal(size=(count, network.sizes[0])).astype(network.dtype)


def close(ours, theirs, tolerance=1e-12):
    assert ours.dtype == theirs.dtype
    tolerance = 1e-5 if ours.dtype == np.float32 else tolerance
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1, np.abs(theirs).max()))


def pruned(sizes=(8, 20, 10, 3), sparsity=0.6, **settings):
    network = fp.MLP(list(sizes), seed=1, **{"loss": "softmax_cross_entropy"} | settings)
    network.set_weights(network.weights, [np.linspace(-1, 1, b.size) for b in network.biases])
    fp.Pruner(fp.Trainer(network)).step(sparsity=sparsity)
    return network


# All formats


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("torch", to_torch),
        ("scipy", to_scipy),
        ("onnx", lambda network: to_onnx(network, "net")),
        ("safetensors", lambda network: to_safetensors(network, "net")),
    ],
)
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ([np.ones((2, 2))], "network: expected an MLP or a FrozenMLP, got list"),
        (None, "network: only finite weights can be exported, but some are NaN or infinite"),
    ],
)
def test_what_is_no_network_does_not_go_out(library, door, network, message, tmp_path, monkeypatch):
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    if network is None:
        network = pruned()
        network.state.values[-1] = np.inf
    with pytest.raises(ValueError, match=message):
        door(network)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("write", "name"), OUT.values())
def test_files_are_written_whole_or_not_at_all(write, name, tmp_path):
    path = tmp_path / name
    for bad, error, message in (
        (tmp_path / "none" / name, OSError, "No such file"),
        ("", ValueError, "path: expected the name of a file, got ''"),
        (3, ValueError, "path: expected a str or os.PathLike, got int"),
    ):
        with pytest.raises(error, match=message):
            write(pruned(), bad)
    write(pruned(), path)
    write(pruned(sparsity=0.9), str(path))
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("suffix", "advice"),
    [
        (".onnx", "fastprune.export.from_onnx"),
        (".safetensors", "fastprune.export.from_safetensors"),
        (".pt", "fastprune.export.from_torch"),
        (".PTH", "fastprune.export.from_torch"),
        (".h5", "MLP.from_weights takes the kernels"),
        (".keras", "MLP.from_weights takes the kernels"),
        (".pkl", "opens no pickles"),
        (".npz", ""),
    ],
)
def test_load_shows_the_door_for_other_files(suffix, advice, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x04 nothing of ours")
    with pytest.raises(ValueError, match=r"^path: expected a network saved by fastprune, got ") as caught:
        fp.load(path)
    message = str(caught.value)
    assert message.endswith("archive)") if not advice else advice in message
    pruned().save(path)
    assert fp.load(path).live_weights == pruned().live_weights, "it is what is in a file that counts"


# PyTorch


def outputs(module, x):
    import torch

    with torch.no_grad():
        return module(torch.tensor(x)).numpy()


def layered(*modules):
    """A Sequential; numbers are the sizes of a Linear."""
    from torch import nn

    return nn.Sequential(*(nn.Linear(*one) if isinstance(one, tuple) else one for one in modules))


@needs_torch
@given(networks)
def test_pytorch_and_back(network):
    x = samples(network)
    for one in (network, network.freeze()):
        module = to_torch(one)
        close(outputs(module, x), one.logits(x))
        back = from_torch(module, loss="mean_squared_error")
        assert (back.activation, back.loss) == (one.activation if one.n_layers > 1 else "relu", one.loss)
        same(parts(back), parts(one))
        plain = to_torch(one, masks=False)
        assert not any("mask" in name for name in plain.state_dict())
        close(outputs(plain, x), one.logits(x))
        same(from_torch(plain).weights, one.weights)
        assert from_torch(plain).sparsity == 0


@needs_torch
def test_pytorch_keeps_what_is_pruned_and_draws_nothing():
    import torch

    network = pruned()
    state = torch.random.get_rng_state()
    module = to_torch(network)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in module.parameters())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()
    back = from_torch(module)
    same(back.masks, network.masks)
    assert all((w != was).any() for w, was in zip(back.weights, network.weights, strict=True))
    close(outputs(module, samples(network)), back.logits(samples(network)))
    module[0].weight_orig.data.fill_(7)
    same(back.weights, from_torch(to_torch(back)).weights)  # they share no memory


@needs_torch
def test_pytorch_modules_of_every_kind_that_is_supported():
    import torch
    from torch import nn
    from torch.nn.utils import prune

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 3, 4)).astype("float32")
    for activation in (nn.ReLU(inplace=True), nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid()):
        inner = layered((12, 9), nn.Dropout(0.5), activation, nn.Identity())
        module = layered(nn.Flatten(), nn.Dropout(), inner, nn.Linear(9, 7, bias=False), activation, layered((7, 2)))
        module.eval()
        close(from_torch(module).logits(x.reshape(6, 12)), outputs(module, x))
    prune.random_structured(inner[0], "weight", 0.3, dim=1)
    prune.l1_unstructured(inner[0], "weight", 0.5)
    prune.l1_unstructured(inner[0], "bias", 0.5)
    prune.global_unstructured([(module[3], "weight")], prune.L1Unstructured, amount=0.4)
    network = from_torch(module, loss="softmax_cross_entropy")
    close(network.logits(x.reshape(6, 12)), outputs(module, x))
    same(network.masks[:2], [inner[0].weight_mask.numpy() > 0, module[3].weight_mask.numpy() > 0])
    assert network.sparsity > 0.4
    other = from_torch(layered((2, 3)).double())
    assert (other.dtype, other.sizes, other.activation) == (np.float64, [2, 3], "relu")
    # `weight` is what the last call has made of it; parameters that were loaded since then count.
    twin = to_torch(network)
    twin.load_state_dict({name: 2 * one if name.endswith("orig") else one for name, one in twin.state_dict().items()})
    same(from_torch(twin).weights, [2 * w for w in network.weights])


def unruly():
    from torch import nn

    class Doubled(nn.Sequential):
        def forward(self, x):
            return super().forward(super().forward(x))

    return Doubled(nn.Linear(2, 2))


def normed(module):
    from torch import nn

    nn.utils.parametrizations.weight_norm(module[0])
    return module


def spectral(module):
    from torch import nn

    nn.utils.spectral_norm(module[0])
    return module


def masked(module, value):
    import torch
    from torch.nn.utils import prune

    prune.custom_from_mask(module[0], "weight", torch.ones_like(module[0].weight))
    module[0].weight_mask.fill_(value)
    return module


def changed(module, change):
    import torch

    with torch.no_grad():
        change(module)
    return module


BAD_MODULES = [
    (lambda nn: nn.Linear(2, 2), r"module: expected a torch.nn.Sequential, got Linear; put its layers into one"),
    (lambda nn: [nn.Linear(2, 2)], r"module: expected a torch.nn.Sequential, got list"),
    (lambda nn: unruly(), r"module: expected a torch.nn.Sequential, got Doubled"),
    (lambda nn: layered(unruly()), r"module\[0\]: expected one of Linear, ReLU, .*, got Doubled"),
    (lambda nn: layered(), r"module: expected at least one layer, got none"),
    (lambda nn: layered(nn.Flatten()), r"module: expected at least one layer, got none"),
    (
        lambda nn: layered((2, 2), layered(nn.ReLU(), nn.BatchNorm1d(2))),
        r"module\[1\]\[1\]: expected one of Linear, ReLU, LeakyReLU, Tanh, Sigmoid, Flatten, Dropout, Identity, or a "
        "Sequential of these, got BatchNorm1d",
    ),
    (lambda nn: layered((2, 2), nn.GELU(), (2, 2)), r"module\[1\]: expected one of .*, got GELU"),
    (lambda nn: layered((2, 2), (2, 2)), r"module\[1\]: expected an activation between two layers, got Linear"),
    (lambda nn: layered(nn.ReLU(), (2, 2)), r"module\[0\]: expected a layer before an activation, got ReLU"),
    (
        lambda nn: layered((2, 2), nn.ReLU(), nn.ReLU()),
        r"module\[2\]: expected a layer before an activation, got ReLU",
    ),
    (
        lambda nn: layered((2, 2), nn.ReLU(), (2, 2), nn.Tanh(), (2, 2)),
        r"module\[3\]: expected ReLU, one activation for all hidden layers, got Tanh",
    ),
    (
        lambda nn: layered((2, 2), nn.Softmax(1), (2, 2)),
        r"module\[1\]: expected one of relu, .* between layers, got Softmax",
    ),
    (
        lambda nn: layered((2, 2), nn.ReLU(), (2, 2), nn.LogSoftmax(1)),
        r"module\[3\]: expected a layer at the end, whose outputs are logits, got LogSoftmax; leave it out, and pass "
        "loss='softmax_cross_entropy' in its place",
    ),
    (lambda nn: layered((2, 1), nn.Sigmoid()), r"module\[1\]: .*, got Sigmoid; .* loss='sigmoid_cross_entropy'"),
    (lambda nn: layered((2, 2), nn.ReLU()), r"module\[1\]: expected a layer at the end, .*, got ReLU; leave it out$"),
    (
        lambda nn: layered((2, 2), nn.LeakyReLU(0.2), (2, 2)),
        r"module\[1\]: expected LeakyReLU with a slope of 0.01, got 0.2",
    ),
    (lambda nn: layered((4, 2), nn.Flatten()), r"module\[1\]: expected Flatten before the first layer, got one"),
    (
        lambda nn: layered(nn.Flatten(2), (4, 2)),
        r"module\[0\]: expected Flatten of all but the first axis, got Flatten",
    ),
    (
        lambda nn: layered(nn.LazyLinear(3), nn.ReLU(), (3, 2)),
        r"module\[0\]: expected a layer of known size, got LazyLinear; call the module once before",
    ),
    (lambda nn: layered((2, 3), nn.ReLU(), (4, 2)), r"module\[2\]: expected 3 inputs, .*, got 4"),
    (lambda nn: layered((2, 3), nn.ReLU(), nn.Linear(3, 2).double()), r"module\[2\]: expected float32.*, got float64"),
    (
        lambda nn: layered((2, 2)).bfloat16(),
        r"module\[0\]: expected weight of float32 or float64, got bfloat16; module.float\(\) converts it",
    ),
    (lambda nn: layered((2, 2)).half(), r"module\[0\]: expected weight of float32 or float64, got float16"),
    (
        lambda nn: layered((2, 2)).to("meta"),
        r"module\[0\]: expected weight on the CPU, got device meta; .* no numbers",
    ),
    (
        lambda nn: changed(layered((2, 2)), lambda m: m[0].bias.fill_(np.nan)),
        r"module: biases\[0\]: .* NaN or infinity",
    ),
    (lambda nn: masked(layered((2, 2)), 0.5), r"module: masks\[0\]: .*, got numbers other than 0 and 1"),
    (lambda nn: normed(layered((2, 2))), r"module\[0\]: expected one of .*, got ParametrizedLinear"),
]


@needs_torch
@pytest.mark.parametrize(("make", "message"), BAD_MODULES)
def test_pytorch_modules_that_are_refused(make, message):
    from torch import nn

    with pytest.raises(ValueError, match=f"^{message}"):
        from_torch(make(nn))


@needs_torch
@pytest.mark.filterwarnings("ignore:.*spectral_norm:FutureWarning")
def test_a_weight_that_is_computed_is_refused():
    with pytest.raises(
        ValueError, match=r"^module\[0\]: expected a weight that is a parameter, or pruned .* permanent"
    ):
        from_torch(spectral(layered((2, 2))))


@needs_torch
def test_arguments_of_the_doors_to_pytorch():
    with pytest.raises(ValueError, match=r"^loss: expected one of"):
        from_torch(layered((2, 2)), loss="hinge")
    with pytest.raises(ValueError, match=r"^masks: expected True or False, got 1"):
        to_torch(pruned(), masks=1)


# ONNX


def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def float32_slope(network):
    """The tolerance for float64: ONNX has the slope of LeakyRelu in float32."""
    return 1e-7 if network.activation == "leaky_relu" else 1e-12


def written(path, body, constants, ends=("float[N, 4] x", "float[N, 2] y"), opset=17, ir=8):
    """Write an ONNX model, given its nodes as text and its constants as arrays."""
    import onnx
    from onnx import numpy_helper

    head = f'<ir_version: {ir}, opset_import: ["" : {opset}, "my" : 1]>'
    model = onnx.parser.parse_model(f"{head} mlp ({ends[0]}) => ({ends[1]}) {{ {body} }}")
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    path.write_bytes(model.SerializeToString())
    return path


@needs_onnx
@given(networks)
def test_onnx_and_back(tmp_path_factory, network):
    import onnx

    path, x = tmp_path_factory.getbasetemp() / "net.onnx", samples(network)
    for one in (network, network.freeze()):
        to_onnx(one, path)
        onnx.checker.check_model(str(path), full_check=True)
        model = session(path)
        assert [(end.name, end.shape) for end in (*model.get_inputs(), *model.get_outputs())] == [
            ("input", ["samples", network.sizes[0]]),
            ("logits", ["samples", network.sizes[-1]]),
        ]
        for count in (1, len(x)):
            (theirs,) = model.run(["logits"], {"input": x[:count]})
            close(theirs, network.logits(x[:count]), float32_slope(network))
        back, frozen = from_onnx(path, loss="mean_squared_error"), network.freeze()
        assert (back.sizes, back.dtype, back.loss) == (frozen.sizes, frozen.dtype, "mean_squared_error")
        assert back.activation == (frozen.activation if frozen.n_layers > 1 else "relu")
        same(back.weights + back.biases, frozen.weights + frozen.biases)
        same(back.masks, [w != 0 for w in frozen.weights])


RNG = np.random.default_rng(0)
W1, B1, W2, B2 = (RNG.normal(size=size).astype("float32") for size in ((4, 3), (3,), (3, 2), (2,)))
W1[0, 1] = W2[2, 0] = 0
CONSTANTS = {"w": W1, "b": B1, "v": W2, "c": B2, "wt": W1.T.copy(), "vt": W2.T.copy()}
FORMS = {
    "gemm": "h = Gemm(x, w, b) a = Relu(h) y = Gemm(a, v, c)",
    "transposed": "h = Gemm<transB = 1>(x, wt, b) a = Relu(h) y = Gemm<transB = 1, alpha = 1.0, beta = 1.0>(a, vt, c)",
    "product": "h = MatMul(x, w) i = Add(h, b) a = Relu(i) z = MatMul(a, v) y = Add(c, z)",
    "mixed": "h = MatMul(x, w) i = Add(h, b) a = Relu(i) y = Gemm(a, v, c)",
    "passed": "p = Identity(x) h = Gemm(p, w, b) d, m = Dropout(h) a = Relu(d) u = Identity(v) z = Gemm(a, u, c) "
    "y = Identity(z)",
    "flat": "f = Flatten(x) h = Gemm(f, w, b) a = Relu(h) y = Gemm(a, v, c)",
}


@needs_onnx
@pytest.mark.parametrize("opset", [7, 9, 13, 17, 21])
@pytest.mark.parametrize("form", FORMS)
def test_onnx_models_of_every_form_that_is_supported(form, opset, tmp_path):
    ends = ("float[N, 2, 2] x" if form == "flat" else "float[N, 4] x", "float[N, 2] y")
    path = written(tmp_path / "net.onnx", FORMS[form], CONSTANTS, ends, opset)
    network = from_onnx(path)
    same(network.weights + network.biases, [W1.T, W2.T, B1, B2])
    same(network.masks, [W1.T != 0, W2.T != 0])
    x = RNG.normal(size=(5, 4)).astype("float32")
    (theirs,) = session(path).run(None, {"x": x.reshape(5, 2, 2) if form == "flat" else x})
    close(network.logits(x), theirs)


@needs_onnx
@pytest.mark.parametrize(
    ("operator", "name"), [("Relu", "relu"), ("LeakyRelu", "leaky_relu"), ("Tanh", "tanh"), ("Sigmoid", "sigmoid")]
)
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_onnx_models_without_biases(operator, name, dtype, tmp_path):
    constants = {key: one.astype("f8" if dtype == "double" else "f4") for key, one in {"w": W1, "v": W2}.items()}
    body = f"h = MatMul(x, w) a = {operator}(h) y = Gemm(a, v)"
    path = written(tmp_path / "net.onnx", body, constants, (f"{dtype}[N, 4] x", f"{dtype}[N, 2] y"))
    network = from_onnx(path)
    assert network.activation == name
    x = RNG.normal(size=(5, 4)).astype(network.dtype)
    close(network.logits(x), session(path).run(None, {"x": x})[0], float32_slope(network))
    same(network.biases, [np.zeros(3, network.dtype), np.zeros(2, network.dtype)])


@needs_onnx
def test_onnx_models_with_other_constants(tmp_path):
    """Constant nodes, one number as the bias of all units, inputs with a default, weights in another file."""
    import onnx

    one = "c1 = Constant<value = float[1, 3] {0.5, 0.25, -1.0}>() c2 = Constant<value = float {2.0}>()"
    body = f"{one} h = MatMul(x, w) i = Add(h, c1) a = Relu(i) y = Gemm(a, v, c2)"
    path = written(tmp_path / "net.onnx", body, {"w": W1, "v": W2})
    x = RNG.normal(size=(5, 4)).astype("float32")
    (theirs,) = session(path).run(None, {"x": x})
    close(from_onnx(path).logits(x), theirs)
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3]))
    outside = tmp_path / "outside.onnx"
    onnx.save(model, outside, save_as_external_data=True, location="outside.data", size_threshold=0)
    close(from_onnx(outside).logits(x), theirs)
    (tmp_path / "outside.data").unlink()
    with pytest.raises(ValueError, match=r"^path: expected an ONNX model of a chain of layers, got .*outside\.data"):
        from_onnx(outside)


GOOD = FORMS["gemm"]
BAD_GRAPHS = [
    ("y = Conv(x, k)", {}, r"node 'y': expected one of Gemm, MatMul, Add, Relu, .*, Constant, got Conv"),
    ("h = Gemm(x, w, b) a = Elu(h) y = Gemm(a, v, c)", {}, "node 'a': expected one of .*, got Elu"),
    ("h = Gemm(x, w, b) a = my.Relu(h) y = Gemm(a, v, c)", {}, r"node 'a': expected one of .*, got my\.Relu"),
    ("y = Gemm<alpha = 0.5>(x, u, c)", {}, "node 'y': expected Gemm with alpha=1.0, got 0.5"),
    ("y = Gemm<beta = 2.0>(x, u, c)", {}, "node 'y': expected Gemm with beta=1.0, got 2"),
    ("y = Gemm<transA = 1>(x, u, c)", {}, "node 'y': expected Gemm with transA=0, got 1"),
    ("h = Gemm(x, w, b) y = Gemm(h, v, c)", {}, "node 'y': expected an activation between two layers, got Gemm"),
    ("a = Relu(x) y = Gemm(a, u, c)", {}, "node 'a': expected a layer before an activation, got Relu"),
    ("h = Gemm(x, w, b) a = LeakyRelu<alpha = 0.2>(h) y = Gemm(a, v, c)", {}, "node 'a': .*slope of 0.01, got 0.2"),
    ("h = Gemm(x, w, b) a = Relu(h) f = Flatten(a) y = Gemm(f, v, c)", {}, "node 'f': expected Flatten before the"),
    ("f = Flatten<axis = 0>(x) y = Gemm(f, u, c)", {}, "node 'f': expected Flatten of all but .*, got axis 0"),
    (
        "h = Gemm(x, u, c) y = Softmax(h)",
        {},
        r"node 'y': expected a layer at the end, whose outputs are logits, got Softmax; cut it off: "
        r"onnx.utils.extract_model\(path, new_path, \['x'\], \['h'\]\), and pass loss='softmax_cross_entropy' in its",
    ),
    ("h = Gemm(x, u, c) y = Sigmoid(h)", {}, "node 'y': .*, got Sigmoid; .* loss='sigmoid_cross_entropy'"),
    ("h = Gemm(x, u, c) y = Add(h, h)", {}, "node 'y': expected Add after MatMul, .* after Gemm"),
    ("h = MatMul(x, u) y = Add(h, h)", {}, "node 'y': expected 'h', which Add reads, among the .* constants"),
    (
        "h = MatMul(x, u) i = Add(h, c) y = Add(i, c)",
        {},
        "node 'y': expected Add after MatMul, .* after MatMul with Add",
    ),
    ("y = Add(x, x2)", {"x2": np.ones(2, "float32")}, "node 'y': expected Add after MatMul, .* after None"),
    (
        "h = Gemm(x, u, c) a = Relu(h) y = Gemm(a, v2, h)",
        {"v2": np.eye(2, dtype="f4")},
        "node 'y': expected 'h', which",
    ),
    ("h = Gemm(x, w, b) a = Relu(h) s = Relu(h) y = Gemm(a, v, c)", {}, r"node 's': expected Relu of 'a', .*\['h'\]"),
    ("y = MatMul(ut, x)", {"ut": np.ones((2, 4), "float32")}, "node 'y': expected MatMul of 'x'"),
    (
        "y = MatMul(x, n)",
        {"n": np.ones((1, 4, 2), "float32")},
        "node 'y': expected weights 'n' of MatMul with two axes",
    ),
    (
        "h = MatMul(x, u) y = Add(h, r)",
        {"r": np.ones((3, 2), "float32")},
        r"bias 'r' of Add with shape \(2,\), got \(3, 2\)",
    ),
    (f"{GOOD} q = Relu(y)", {}, "graph: expected 'q', which the last node gives, as the output, got 'y'"),
    ("y = Gemm(x, u, c)", {"u": np.full((4, 2), np.nan, "f4")}, r"graph: weights\[0\]: .* NaN or infinity"),
]


@needs_onnx
@pytest.mark.parametrize(("body", "constants", "message"), BAD_GRAPHS)
def test_onnx_graphs_that_are_refused(body, constants, message, tmp_path):
    given_ones = CONSTANTS | {"u": np.ones((4, 2), "float32"), "k": np.ones((2, 4, 1), "float32")} | constants
    used = {name: one for name, one in given_ones.items() if re.search(rf"\b{name}\b", body)}
    path = written(tmp_path / "net.onnx", body, used)
    with pytest.raises(ValueError, match=rf"^path: expected an ONNX model of a chain of layers, got .* \(.*{message}"):
        from_onnx(path)


@needs_onnx
def test_onnx_models_that_are_refused(tmp_path):
    import onnx

    path = tmp_path / "net.onnx"

    def refused(message):
        with pytest.raises(ValueError, match=rf"^path: expected an ONNX model .*{re.escape(str(path))}' \(.*{message}"):
            from_onnx(path)

    refused("No such file")
    newest = onnx.defs.onnx_opset_version()
    for opset in (6, newest + 1):
        written(path, GOOD, CONSTANTS, opset=opset)
        refused(rf"opset {opset}; the package onnx here reads 7 to {newest}\)$")
    halves = {name: one.astype("float16") for name, one in CONSTANTS.items()}
    written(path, GOOD, halves, ("float16[N, 4] x", "float16[N, 2] y"))
    refused("node 'h': expected 'w', which Gemm reads, in float32 or float64, got float16")
    written(path, GOOD, CONSTANTS, ("float[N, 4] x, float[N, 2] x2", "float[N, 2] y"))
    refused(r"graph: expected one input and one output, got \['x', 'x2'\] and \['y'\]")
    written(path, GOOD, CONSTANTS, ("float[N, 4] x", "float[N, 3] a, float[N, 2] y"))
    refused(r"graph: expected one input and one output, got \['x'\] and \['a', 'y'\]")
    written(path, "f = Flatten(x) y = Gemm(f, u, c)", {"u": W2, "c": B2}, ("float[N, 5, 2] x", "float[N, 2] y"))
    refused(r"graph: expected an input of 3 features, as the first layer, got \[5, 2\]")
    model = onnx.load(written(path, "y = Gemm(x, w)", {"w": W1[:, :2].copy()}))
    whole = model.graph.initializer.pop()
    sparse = onnx.helper.make_sparse_tensor(
        onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [8], onnx.numpy_helper.to_array(whole).reshape(-1)),
        onnx.helper.make_tensor("where", onnx.TensorProto.INT64, [8], range(8)),
        [4, 2],
    )
    model.graph.sparse_initializer.append(sparse)
    path.write_bytes(model.SerializeToString())
    refused("node 'y': expected 'w', which Gemm reads, among the graph's dense constants")
    with pytest.raises(ValueError, match=r"^loss: expected one of"):
        from_onnx(path, loss="hinge")
    with pytest.raises(ValueError, match=r"^path: expected a str or os.PathLike, got NoneType"):
        from_onnx(None)


@needs_onnx
def test_a_network_too_large_for_onnx_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fastprune.export.onnx._MOST", 2**10)
    with pytest.raises(ValueError, match=r"^network: expected less than 2 GiB of dense weights, .*, got 1,560 bytes"):
        to_onnx(pruned(sparsity=0.0), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@needs("torch", "onnx", "onnxruntime")
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_writes_as_onnx_comes_in(tmp_path):
    import torch

    network = pruned(activation="tanh")
    module = to_torch(network)
    for layer in module:
        if hasattr(layer, "weight_mask"):
            torch.nn.utils.prune.remove(layer, "weight")
    torch.onnx.export(module.eval(), torch.zeros(1, 8), tmp_path / "net.onnx", dynamo=False)
    same(parts(from_onnx(tmp_path / "net.onnx")), parts(network))


# SciPy


@given(networks)
def test_scipy_and_back(network):
    for one in (network, network.freeze()):
        layers = to_scipy(one)
        x = samples(one).T
        for matrix, bias in layers[:-1]:
            z = matrix @ x + bias[:, np.newaxis]
            x = {
                "relu": lambda z: np.maximum(z, 0),
                "leaky_relu": lambda z: np.maximum(z, z * z.dtype.type(0.01)),
                "tanh": np.tanh,
                "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
            }[one.activation](z)
        close((layers[-1][0] @ x + layers[-1][1][:, np.newaxis]).T, one.logits(samples(one)))
        back = from_scipy(layers, activation=one.activation, loss=one.loss)
        assert repr(back) == repr(one).replace("FrozenMLP", "MLP")
        same(parts(back), parts(one))
        layers[0][0].data[:] = layers[0][1][:] = 7  # they are copies, which can be written to
        same(parts(back), parts(one))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("of", ["array", "matrix"])
def test_scipy_matrices_of_every_kind(kind, of):
    make = getattr(scipy.sparse, f"{kind}_{of}")
    network = from_scipy([(make(W1.T), B1), (make(W2.T), B2.tolist())], activation="tanh")
    same(network.weights + network.biases, [W1.T, W2.T, B1, B2])
    assert network.live_weights <= 18
    assert (network.dtype, network.activation, network.loss) == (np.float32, "tanh", None)


def test_scipy_entries_in_any_order_are_added_up_and_unchanged():
    data, columns, pointers = np.array([1.0, 2.0, 3.0, 4.0, 0.0]), np.array([3, 0, 3, 1, 2]), np.array([0, 3, 5])
    matrix = scipy.sparse.csr_array((data.copy(), columns.copy(), pointers.copy()), shape=(2, 4))
    network = from_scipy([(matrix, [0.0, 0.0])])
    same(network.weights, [np.array([[2.0, 0, 0, 4], [0, 4, 0, 0]])])
    same(network.masks, [np.array([[1, 0, 0, 1], [0, 1, 1, 0]], bool)])  # the stored 0 is live
    same([matrix.data, matrix.indices.astype(int), matrix.indptr.astype(int)], [data, columns, pointers])


def test_scipy_matrices_are_never_made_dense():
    """The dense form would take 40 GB."""
    rng = np.random.default_rng(0)
    n = 100_000
    entries = rng.normal(size=200_000), (rng.integers(n, size=200_000), rng.integers(n, size=200_000))
    matrix = scipy.sparse.coo_array(entries, shape=(n, n))
    network = from_scipy([(matrix, np.zeros(n)), (matrix.T[:3], np.zeros(3))], dtype="float32")
    assert network.sizes == [n, n, 3]
    assert network.dtype == np.float32
    (one, _), (other, _) = to_scipy(network)
    assert abs(one - matrix.tocsr()).max() < 1e-6
    assert one.nnz + other.nnz == network.live_weights


def broken():
    matrix = scipy.sparse.csr_array(np.eye(2))
    matrix.indices[0] = 70
    return matrix


EYE = scipy.sparse.csr_array(np.eye(2))
ZEROS = np.zeros(2)
BAD_LAYERS = [
    ([], {}, r"layers: expected a list of at least one array, got \[\]"),
    (3, {}, "layers: expected a list of at least one array, got 3"),
    ([EYE], {}, r"layers\[0\]: expected a pair of a SciPy sparse matrix and a bias, got csr_array"),
    ([(np.eye(2), ZEROS)], {}, r"layers\[0\]: expected a pair of a SciPy sparse matrix and a bias, got tuple"),
    ([(EYE, ZEROS), (EYE,)], {}, r"layers\[1\]: expected a pair of a SciPy sparse matrix and a bias, got tuple"),
    ([(EYE, ZEROS), (EYE[:, :1], ZEROS)], {}, r"layers\[1\]\[0\]: expected a matrix \(2, 2\), got shape \(2, 1\)"),
    ([(EYE[:0], [])], {}, r"layers\[0\]\[0\]: expected a matrix \(fan_out, fan_in\), got shape \(0, 2\)"),
    ([(scipy.sparse.coo_array([1.0, 2.0]), ZEROS)], {}, r"layers\[0\]\[0\]: expected a matrix .*, got shape \(2,\)"),
    ([(EYE, [0.0])], {}, r"layers\[0\]\[1\]: expected finite float64 of shape \(2,\), got shape \(1,\)"),
    ([(EYE, [0.0, np.inf])], {}, r"layers\[0\]\[1\]: expected finite float64 .*, got NaN or infinity"),
    ([(EYE, ["a", "b"])], {}, r"layers\[0\]\[1\]: expected finite float64 .*, got text"),
    ([(EYE * np.nan, ZEROS)], {}, r"layers\[0\]\[0\]: expected finite float64 .*, got NaN or infinity"),
    (
        [(EYE * 1e300, ZEROS)],
        {"dtype": "float32"},
        r"layers\[0\]\[0\]: expected finite float32 .*, got NaN or infinity",
    ),
    ([(broken(), ZEROS)], {}, r"layers\[0\]\[0\]: expected a valid sparse matrix, got a broken one"),
    ([(EYE.astype(int), ZEROS)], {}, r"dtype: expected 'float32' or 'float64', got dtype\('int64'\)"),
    ([(EYE.astype(complex), ZEROS)], {"dtype": "float32"}, r"layers\[0\]\[0\]: .*, got dtype complex128"),
    ([(EYE, ZEROS)], {"dtype": "float16"}, "dtype: expected 'float32' or 'float64', got 'float16'"),
    ([(EYE, ZEROS)], {"activation": "gelu"}, "activation: expected one of 'relu'"),
    ([(EYE, ZEROS)], {"loss": "hinge"}, "loss: expected one of"),
]


@pytest.mark.parametrize(("layers", "settings", "message"), BAD_LAYERS)
def test_scipy_layers_that_are_refused(layers, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        from_scipy(layers, **settings)


# safetensors


@needs_safetensors
@given(networks)
def test_safetensors_and_back(tmp_path_factory, network):
    path = tmp_path_factory.getbasetemp() / "net.safetensors"
    for one in (network, network.freeze()):
        to_safetensors(one, path)
        back = from_safetensors(path)
        assert repr(back) == repr(one).replace("FrozenMLP", "MLP")
        same(parts(back), parts(one))


@needs_safetensors
def test_what_is_in_a_safetensors_file(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "net.safetensors"
    network = pruned(activation="sigmoid")
    to_safetensors(network, path)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"activation": "sigmoid", "loss": "softmax_cross_entropy"}
        same(
            [file.get_tensor(f"layers.{i}.{part}") for part in ("weight", "bias", "mask") for i in range(3)],
            parts(network),
        )
    assert from_safetensors(path, activation="tanh", loss="mean_squared_error").activation == "tanh"
    network.loss = None
    to_safetensors(network, path)
    assert from_safetensors(path).loss is None


def stored(path, tensors, metadata=None):
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, path, metadata)
    return path


ORDERS = [("0", "2"), ("layers.9", "layers.10"), ("net.0.fc1", "net.0.fc2"), ("a.1.b2", "a.2.b1"), ("fc08", "fc9")]


@needs_safetensors
@pytest.mark.parametrize("names", ORDERS)
def test_safetensors_files_from_elsewhere(names, tmp_path):
    """Layers are in the order of their numbers, not of their names or of the file."""
    first, last = names
    tensors = {f"{last}.weight": W2.T, f"{first}.weight": W1.T, f"{last}.bias": B2}
    path = stored(tmp_path / "net.safetensors", tensors)
    network = from_safetensors(path, activation="tanh", loss="softmax_cross_entropy")
    same(network.weights + network.biases, [W1.T, W2.T, np.zeros(3, "float32"), B2])
    assert (network.sparsity, network.activation, network.loss) == (0, "tanh", "softmax_cross_entropy")
    same([from_safetensors(stored(path, {"weight": W1}), activation="relu").weights[0]], [W1])
    tensors |= {f"{first}.mask": (W1.T > 0).astype("uint8")}
    same(from_safetensors(stored(path, tensors), activation="relu").masks, [W1.T > 0, np.ones((2, 3), bool)])


@needs("safetensors", "torch")
def test_what_pytorch_writes_as_safetensors_comes_in(tmp_path):
    from safetensors.torch import save_file

    network = pruned(sizes=[6, *[8] * 11, 3], activation="tanh")  # of twelve layers, some with a number of two digits
    save_file(to_torch(network, masks=False).state_dict(), tmp_path / "net.safetensors")
    same(from_safetensors(tmp_path / "net.safetensors", activation="tanh").weights, network.weights)


BAD_TENSORS = [
    ({}, None, "expected at least one layer, got none"),
    ({"0.weight": W1.T}, None, r"it does not say the activation; pass one: activation='relu'"),
    ({"0.weight": W1.T}, {"activation": "gelu"}, "activation: expected one of 'relu', .*, got 'gelu'"),
    ({"0.weight": W1.T}, {"activation": "relu", "loss": "hinge"}, "loss: expected one of"),
    ({"0.kernel": W1}, None, r"expected tensors '<layer>.weight', '<layer>.bias' and '<layer>.mask', got '0.kernel'"),
    ({"0.weight": W1.T, "1.bias": B1}, None, r"expected '1.weight' beside '1.bias', got none"),
    (
        {"in.weight": W1.T, "out.weight": W2.T},
        None,
        r"expected names of layers that differ in numbers, which give the order",
    ),
    ({"0.weight": W1.T, "0.a1.weight": W2.T}, None, "expected names of layers that differ in numbers"),
    ({"0.weight": W1.T.astype("float16")}, None, "0.weight: expected F32 or F64, got F16"),
    ({"0.weight": W1.T, "0.mask": W1.T}, None, "0.mask: expected BOOL or U8, got F32"),
    ({"0.weight": B1}, {"activation": "relu"}, r"weights\[0\]: expected .*, got shape \(3,\)"),
    (
        {"0.weight": W1.T, "2.weight": W1.T},
        {"activation": "relu"},
        r"weights\[1\]: expected \(3, 3\), got shape \(3, 4\)",
    ),
    ({"0.weight": np.full((3, 4), np.inf, "f4")}, {"activation": "relu"}, r"weights\[0\]: .* NaN or infinity"),
    (
        {"0.weight": W1.T, "0.mask": np.full((3, 4), 2, "u1")},
        {"activation": "relu"},
        r"masks\[0\]: .* other than 0 and 1",
    ),
]


@needs_safetensors
@pytest.mark.parametrize(("tensors", "metadata", "message"), BAD_TENSORS)
def test_safetensors_files_that_are_refused(tensors, metadata, message, tmp_path):
    path = stored(tmp_path / "net.safetensors", tensors, metadata)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=rf"^path: expected a safetensors file .*\({message}"),
    ):
        from_safetensors(path)


@needs_safetensors
def test_arguments_of_the_doors_to_safetensors(tmp_path):
    path = tmp_path / "net.safetensors"
    for settings, message in (
        ({"activation": "gelu"}, "^activation: expected one of"),
        ({"loss": "hinge"}, "^loss: expected one of"),
        ({}, r"^path: expected a safetensors file of a network, got '.*' \(\[Errno 2\] No such file"),
    ):
        with pytest.raises(ValueError, match=message):
            from_safetensors(path, **settings)
    with pytest.raises(ValueError, match=r"^path: expected a str or os.PathLike, got int"):
        from_safetensors(3)


# Damaged files


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        pytest.param(to_onnx, from_onnx, marks=needs_onnx),
        pytest.param(to_safetensors, from_safetensors, marks=needs_safetensors),
    ],
)
def test_damaged_files_are_refused_or_can_be_used(write, read, count, tmp_path):
    path, rng = tmp_path / "net", np.random.default_rng(0)
    write(pruned(sizes=[4, 5, 3]), path)
    whole = path.read_bytes()
    head = len(whole) if write is to_onnx else 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(count):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(head)] = rng.integers(256)
        path.write_bytes(content if rng.random() < 0.7 else content[: rng.integers(len(content))])
        try:
            network = read(path)
        except ValueError as error:
            assert str(error).startswith("path: expected a")  # noqa: PT017
            refused += 1
            continue
        assert network.logits(np.zeros((2, network.sizes[0]))).shape == (2, network.sizes[-1])
    assert 0.3 * count < refused


# Digits, as in docs/export.md


@needs("torch", "onnx", "onnxruntime", "safetensors")
def test_a_network_of_digits_goes_through_all_doors(tmp_path):
    data = fp.load_dataset("digits")
    trainer = fp.Trainer(from_torch(layered((64, 40), __import__("torch").nn.ReLU(), (40, 10))), learning_rate=0.1)
    trainer.fit(data.x_train, data.y_train, 5)
    fp.Pruner(trainer, schedule=[0.5, 0.8]).run(data.x_train, data.y_train, 3)
    network, x = trainer.network, data.x_test.astype("float32")
    expected = network.logits(x)
    assert (expected.argmax(axis=1) == data.y_test).mean() > 0.9
    to_onnx(network, tmp_path / "net.onnx")
    to_safetensors(network, tmp_path / "net.safetensors")
    for theirs in (
        outputs(to_torch(network), x),
        session(tmp_path / "net.onnx").run(None, {"input": x})[0],
        from_onnx(tmp_path / "net.onnx").logits(x),
        from_safetensors(tmp_path / "net.safetensors").logits(x),
        from_scipy(to_scipy(network)).logits(x),
    ):
        close(theirs, expected)
