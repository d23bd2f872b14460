"""ONNX: a chain of `Gemm` and activations, which onnxruntime and others run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastprune import check
from fastprune.base import Network
from fastprune.export.chain import FLATTEN, SOFTMAX, Linear, Link, chained, optional_loss, outgoing
from fastprune.files import atomic_write, regular
from fastprune.frozen import FrozenMLP, freeze
from fastprune.kernels.constants import SLOPE
from fastprune.kernels.layout import Floats
from fastprune.network import MLP

if TYPE_CHECKING:
    import onnx

_OPSET, _IR = 17, 8  # of what is written: of 2022
_OLDEST = 7  # of what is read: since then, Add and Gemm broadcast as NumPy does
_MOST = 2**31 - 2**20  # bytes of weights; Protocol Buffers allow 2 GiB for all
_ACTIVATIONS = {"Relu": "relu", "LeakyRelu": "leaky_relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_LINKS = {**_ACTIVATIONS, "Flatten": FLATTEN, "Softmax": SOFTMAX, "LogSoftmax": SOFTMAX}
_SUPPORTED = ("Gemm", "MatMul", "Add", *_ACTIVATIONS, "Flatten", "Dropout", "Identity", "Constant")


def to_onnx(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network as an ONNX model.

    The frozen form is written (see `MLP.freeze`), so units that do not matter take no space; the others' weights are
    dense, zeros included. The graph has opset 17 and one input, `input` (samples, features), of the network's dtype,
    for any number of samples. Its output, `logits` (samples, outputs), equals `network.logits`. The softmax or sigmoid
    that the loss implies is not part of it: the class is the `argmax` of the logits, as of the probabilities.

    Parameters
    ----------
    network : MLP or FrozenMLP
        The network, which is unchanged.
    path : str or path
        Name of the file, used without change. An existing file is replaced; the write is atomic.

    Raises
    ------
    ValueError
        If an argument is not as described, weights or biases are not finite, or the dense weights take 2 GiB or more,
        which an ONNX file cannot hold.
    OSError
        If the file cannot be written.
    ImportError
        If the package onnx is not installed: `pip install "fastprune[onnx]"`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import fastprune as fp
    >>> from fastprune.export import from_onnx, to_onnx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "net.onnx")
    ...     to_onnx(fp.MLP([64, 30, 10]), path)
    ...     from_onnx(path)
    MLP([64, 30, 10], activation='relu', dtype='float32', loss=None, live=2220/2220)
    """
    from onnx import helper, numpy_helper

    network, path = outgoing(network), check.file_name("path", path)
    frozen = network if isinstance(network, FrozenMLP) else freeze(network)
    size = sum(frozen.layer_total_weights) * frozen.dtype.itemsize
    if size > _MOST:
        raise ValueError(f"network: expected less than 2 GiB of dense weights, which ONNX can hold, got {size:,} bytes")
    (activation,) = (there for there, here in _ACTIVATIONS.items() if here == frozen.activation)
    nodes, constants, value = [], [], "input"
    for index in range(frozen.n_layers):
        layer, name = frozen.layer(index), f"layers.{index}"
        last = index == frozen.n_layers - 1
        constants += [
            numpy_helper.from_array(layer.weights, f"{name}.weight"),
            numpy_helper.from_array(layer.bias, f"{name}.bias"),
        ]
        outputs = "logits" if last else f"{name}.outputs"
        inputs = [value, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [outputs], name, transB=1))
        value = outputs
        if not last:
            value, slope = f"{name}.activations", {"alpha": SLOPE} if activation == "LeakyRelu" else {}
            nodes.append(helper.make_node(activation, [outputs], [value], f"{name}.activation", **slope))
    kind = helper.np_dtype_to_tensor_dtype(frozen.dtype)
    ends = [
        helper.make_tensor_value_info(name, kind, ["samples", units])
        for name, units in (("input", frozen.sizes[0]), ("logits", frozen.sizes[-1]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="fastprune",
    )
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def from_onnx(path: str | os.PathLike[str], *, loss: str | None = None) -> MLP:
    """Make a network from an ONNX model.

    The format has no masks: weights that are exactly 0 are pruned, all others live.

    Parameters
    ----------
    path : str or path
        Name of the file. Weights that the model keeps in files beside it are read, too.
    loss : {"softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"}, optional
        Loss, which says what the outputs mean; see `MLP`. The format does not keep it.

    Returns
    -------
    MLP
        Its `logits` equal the model's output up to rounding. It has the model's dtype.

    Raises
    ------
    ValueError
        If the file does not exist or is no valid ONNX model, its opset is older than 7 or newer than the package onnx
        knows, or its graph is not a chain of layers (`Gemm` with alpha and beta 1, or `MatMul` and `Add`) with one kind
        of activation between them (`Relu`, `LeakyRelu` with a slope of 0.01, `Tanh` or `Sigmoid`). `Dropout` and
        `Identity` may stand anywhere, `Flatten` before the first layer. Weights are float32 or float64. The error names
        the node and its operator.
    ImportError
        If the package onnx is not installed: `pip install "fastprune[onnx]"`.

    Examples
    --------
    See `to_onnx`.
    """
    import onnx

    path = check.path("path", path)
    optional_loss(loss)
    try:
        regular(path)
        model = onnx.load(path, format="protobuf")
        versions = {opset.domain: opset.version for opset in model.opset_import}
        version, newest = versions.get("", versions.get("ai.onnx")), onnx.defs.onnx_opset_version()
        if version is None or not _OLDEST <= version <= newest:
            raise ValueError(f"opset {version}; the package onnx here reads {_OLDEST} to {newest}")
        onnx.checker.check_model(model)
        return _network(model.graph, loss)
    except Exception as error:  # a damaged file can raise almost anything
        fault = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"path: expected an ONNX model of a chain of layers, got {path!r} ({fault})") from error


def _network(graph: onnx.GraphProto, loss: str | None) -> MLP:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inputs, outputs = [one for one in graph.input if one.name not in constants], [one.name for one in graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        names = [one.name for one in inputs]
        raise ValueError(f"graph: expected one input and one output, got {names} and {outputs}")
    network = chained("graph", _links(graph.node, inputs[0].name, outputs[0], constants), loss)
    shape = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim[1:]]
    if all(shape) and math.prod(shape) != network.sizes[0]:
        raise ValueError(f"graph: expected an input of {network.sizes[0]} features, as the first layer, got {shape}")
    return network


def _links(nodes: Iterable[onnx.NodeProto], start: str, end: str, constants: dict[str, Any]) -> list[Link]:
    """Return what the nodes mean, which must be a chain from the value `start` to `end`, beside constants."""
    from onnx import helper

    value, links = start, []
    for node in nodes:
        where = f"node {node.name or node.output[0]!r}"
        what = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if what not in _SUPPORTED and what not in _LINKS:
            raise ValueError(f"{where}: expected one of {', '.join(_SUPPORTED)}, got {what}")
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if what == "Constant":
            constants[node.output[0]] = attributes.get("value")  # others than tensors are no weights
            continue
        if what == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
            continue
        others = list(node.input)
        if value not in (others if what == "Add" else others[:1]):
            raise ValueError(f"{where}: expected {what} of {value!r}, which the node before it gives, got {others}")
        others.remove(value)
        if what == "Gemm":
            links.append(Link(where, what, _gemm(where, others, attributes, constants)))
        elif what == "MatMul":
            links.append(Link(where, what, _linear(where, what, others[0], "", constants, transposed=False)))
        elif what == "Add":
            links.append(_with_bias(where, links.pop() if links else None, others[0], constants))
        elif what == "LeakyRelu" and np.float32(attributes.get("alpha", SLOPE)) != np.float32(SLOPE):
            raise ValueError(f"{where}: expected LeakyRelu with a slope of {SLOPE}, got {attributes['alpha']:.6g}")
        elif what == "Flatten" and attributes.get("axis", 1) != 1:
            raise ValueError(f"{where}: expected Flatten of all but the first axis, got axis {attributes['axis']}")
        elif what in _LINKS:
            cut = f"cut it off: onnx.utils.extract_model(path, new_path, [{start!r}], [{value!r}])"
            links.append(Link(where, what, _LINKS[what], cut))
        value = node.output[0]
    if value != end:
        raise ValueError(f"graph: expected {value!r}, which the last node gives, as the output, got {end!r}")
    return links


def _gemm(where: str, names: list[str], attributes: Mapping[str, Any], constants: Mapping[str, Any]) -> Linear:
    for name, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        if attributes.get(name, plain) != plain:
            raise ValueError(f"{where}: expected Gemm with {name}={plain}, got {attributes[name]:.6g}")
    weights, bias = [*names, ""][:2]
    return _linear(where, "Gemm", weights, bias, constants, transposed=bool(attributes.get("transB", 0)))


def _with_bias(where: str, link: Link | None, name: str, constants: Mapping[str, Any]) -> Link:
    """Return a MatMul with the bias that Add brings."""
    if link is None or link.what != "MatMul":
        raise ValueError(f"{where}: expected Add after MatMul, whose bias it is, got one after {link and link.what}")
    assert isinstance(link.does, Linear)
    bias = _bias(where, "Add", name, constants, link.does.bias)
    return link._replace(what="MatMul with Add", does=link.does._replace(bias=bias))


def _linear(
    where: str, what: str, weights: str, bias: str, constants: Mapping[str, Any], *, transposed: bool
) -> Linear:
    """Return a layer of constants with these names; `transposed`: the weights are (fan_out, fan_in), as ours."""
    array = _array(where, what, weights, constants)
    if array.ndim != 2:
        raise ValueError(f"{where}: expected weights {weights!r} of {what} with two axes, got shape {array.shape}")
    matrix = array if transposed else array.T
    zeros = np.zeros(len(matrix), matrix.dtype)
    return Linear(matrix, _bias(where, what, bias, constants, zeros) if bias else zeros, matrix != 0)


def _bias(where: str, what: str, name: str, constants: Mapping[str, Any], like: Floats) -> Floats:
    """Return the constant of this name as a bias; ONNX repeats a single number for all units."""
    array = _array(where, what, name, constants)
    try:
        bias: Floats = np.broadcast_to(array, (1, like.size))[0]
    except ValueError:
        shape = like.shape, array.shape
        raise ValueError(f"{where}: expected bias {name!r} of {what} with shape {shape[0]}, got {shape[1]}") from None
    return bias


def _array(where: str, what: str, name: str, constants: Mapping[str, Any]) -> Floats:
    from onnx import TensorProto, numpy_helper

    tensor = constants.get(name)
    if tensor is None:
        raise ValueError(f"{where}: expected {name!r}, which {what} reads, among the graph's dense constants")
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        raise ValueError(f"{where}: expected {name!r}, which {what} reads, in float32 or float64, got {kind}")
    array: Floats = numpy_helper.to_array(tensor)
    return array
