"""Coded files: what is saved comes back bit for bit, and a damaged file is one ValueError."""

import resource
import zlib
from pathlib import Path

import coded_reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import prune_at

import fastprune as fp
from fastprune.coded import MAGIC, VERSION, decode, encode

GOLDEN = Path(__file__).parent / "golden"
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "sigmoid"]
LOSSES = [None, "softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"]
HEAD = len(MAGIC) + 1 + 4


def shared(sizes, density=0.3, values=8, seed=0, **settings):
    """A frozen network of at most so many values a layer; 0 leaves the values as they are."""
    made = fp.MLP(sizes, density=density, seed=seed, **settings)
    rng = np.random.default_rng(seed)
    table = rng.normal(size=max(values, 1))
    weights = [np.where(mask, rng.choice(table, mask.shape), 0) for mask in made.masks]
    biases = [rng.choice(table, bias.shape) for bias in made.biases]
    if values:
        made.set_weights(weights, biases)
    return made.freeze()


def same_bits(one, other):
    assert one.state.values.dtype == other.state.values.dtype
    assert one.state.values.tobytes() == other.state.values.tobytes()
    assert one.state.storage.same_live(other.state.storage)
    assert (one.sizes, one.activation, one.loss) == (other.sizes, other.activation, other.loss)
    x = np.random.default_rng(0).normal(size=(12, one.sizes[0]))
    for samples in (x[:1], x):
        np.testing.assert_array_equal(one.logits(samples), other.logits(samples))


def checked(payload):
    return MAGIC + bytes([VERSION]) + zlib.crc32(payload).to_bytes(4, "little") + payload


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    density=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
    values=st.sampled_from([0, 1, 2, 3, 8, 100]),
    activation=st.sampled_from(ACTIVATIONS),
    loss=st.sampled_from(LOSSES),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_what_is_saved_comes_back(sizes, density, values, activation, loss, dtype, seed):
    network = shared(sizes, density, values, seed, activation=activation, loss=loss, dtype=dtype)
    content = encode(network.state, network.loss)
    same_bits(fp.FrozenMLP(*decode(content)), network)
    assert encode(network.state, network.loss) == content


@pytest.mark.parametrize("form", ["network", "frozen"])
def test_a_file_of_both_forms(tmp_path, form):
    network = fp.MLP([50, 30, 20, 5], density=0.1, loss="softmax_cross_entropy")
    frozen = network.freeze()
    (network if form == "network" else frozen).save(tmp_path / "net", coded=True)
    loaded = fp.load(tmp_path / "net")
    assert isinstance(loaded, fp.FrozenMLP)
    same_bits(loaded, frozen)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_values(count, dtype):
    weights = np.resize(np.random.default_rng(0).normal(size=count), (60, 50))
    network = fp.MLP.from_weights([weights], dtype=dtype).freeze()
    content = encode(network.state, None)
    same_bits(fp.FrozenMLP(*decode(content)), network)
    if count <= 256:
        assert len(content) < 3000 * (np.log2(count) / 8 + 0.01) + 8 * count + 60


def test_values_keep_their_bits():
    """Zeros of both signs, live zeros, the smallest and the largest floats."""
    for dtype in ("float32", "float64"):
        info = np.finfo(dtype)
        values = [0.0, -0.0, info.max, -info.max, info.tiny, info.smallest_subnormal, 1 / 3]
        for weights in ([values], [values * 9]):
            network = fp.MLP.from_weights([weights], [[-0.0]], dtype=dtype).freeze()
            loaded = fp.FrozenMLP(*decode(encode(network.state, None)))
            assert loaded.state.values.tobytes() == network.state.values.tobytes()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_an_emptied_layer(layer):
    made = fp.MLP([20, 10, 8, 3], density=0.5)
    masks = [np.zeros_like(mask) if index == layer else mask for index, mask in enumerate(made.masks)]
    made.set_weights(made.weights, masks=masks)
    for network in (made.freeze(), fp.FrozenMLP(made.state, None)):
        same_bits(fp.FrozenMLP(*decode(encode(network.state, None))), network)


def test_units_in_any_order_without_weights_or_of_any_number():
    """Not as `freeze` leaves them."""
    made = fp.MLP([30, 40, 20, 3], density=0.2)
    prune_at(made, np.arange(300))
    network = fp.FrozenMLP(made.state, "mean_squared_error")
    same_bits(fp.FrozenMLP(*decode(encode(network.state, network.loss))), network)


def test_layers_too_sparse_to_look_at_every_place():
    network = fp.FrozenMLP(fp.MLP([4000, 3000, 4], density=1e-4).state, None)
    rows, columns = (np.count_nonzero(network.masks[0].any(axis)) for axis in (1, 0))
    assert rows * columns > 256 * network.layer_live_weights[0]
    content = encode(network.state, None)
    same_bits(fp.FrozenMLP(*decode(content)), network)
    assert len(content) < 7.5 * network.live_weights


def test_little_pays_for_much():
    """Positions and one value of full layers take nothing, but their file is not empty, so that no file is a bomb."""
    network = fp.MLP.from_weights([np.ones((200, 200))] * 2).freeze()
    content = encode(network.state, None)
    assert len(content) == HEAD + 2 + -(-(80_000 + 600) // 128)
    same_bits(fp.FrozenMLP(*decode(content)), network)
    for length in (len(content) - HEAD - 1, 400, 100):  # too short for the second layer, and for the first
        with pytest.raises(ValueError, match="more weights than the file"):
            decode(checked(content[HEAD:][:length]))


def test_an_image_needs_no_saying():
    """Weights near each other in two dimensions take less than the same ones with the rows of pixels shuffled."""
    rng = np.random.default_rng(0)
    masks = np.zeros((60, 20, 20), bool)
    for mask in masks:
        row, column = rng.integers(16, size=2)
        mask[row : row + 4, column : column + 4] = rng.random((4, 4)) < 0.7

    def length(masks):
        mask = masks.reshape(60, 400)
        network = fp.MLP.from_weights([np.ones((60, 400))], masks=[mask]).freeze()
        content = encode(network.state, None)
        same_bits(fp.FrozenMLP(*decode(content)), network)
        return len(content)

    assert length(masks) < 0.9 * length(masks[:, rng.permutation(20)])


def test_pruned_networks_are_small():
    """Below distances and codes, with Huffman codes or without, and what compressors make of the arrays."""
    network = shared([300, 120, 60, 10], 0.03, 8)
    sizes = fp.file_sizes(network)
    assert sizes.coded < 0.75 * min(sizes[2:-1])
    assert max(sizes.relative, sizes.huffman) < sizes.csr
    assert sizes.csr < sizes.dense == 4 * (network.total_weights + sum(network.sizes[1:]))


def test_sizes_in_the_papers_terms():
    """One layer of 4 weights: distances 0, 40 and 0 again; two values."""
    weights = np.zeros((1, 64))
    weights[0, [0, 41, 42, 50]] = [1, 2, 1, 2]
    network = fp.MLP.from_weights([weights], masks=[weights != 0])
    sizes = fp.file_sizes(network)
    assert sizes.dense == 4 * 65
    assert sizes.csr == 4 * (4 + 4 + 2) + 4
    assert sizes.relative == 4 * 2 + -(-4 * (8 + 1) // 8) + 4  # 5 bits would need a filler, and a third value
    assert sizes.huffman == 4 * 3 + 3 + 32 + -(-(9 + 8) // 8) + 4


def test_a_file_of_version_1_is_read_and_written_again():
    """The coder counts in whole numbers, so every machine reads the same network and writes the same bytes."""
    content = (GOLDEN / "coded-1.fpc").read_bytes()
    state, loss = decode(content)
    assert (state.storage.sizes, loss) == ([64, 39, 20, 5], "softmax_cross_entropy")
    with np.load(GOLDEN / "coded-1.npz") as file:
        np.testing.assert_array_equal(state.values, file["values"])
        for layer in range(3):
            np.testing.assert_array_equal(state.storage.positions(layer), file[f"positions_{layer}"])
    assert encode(state, loss) == content


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ([64, 40, 20, 5], {"density": 0.1, "values": 5, "loss": "softmax_cross_entropy"}),
        ([30, 12, 4], {"density": 0.4, "values": 0, "activation": "sigmoid"}),
        ([30, 12, 4], {"density": 0.4, "values": 33, "activation": "tanh", "dtype": "float64"}),
        ([6, 5, 3], {"density": 1.0, "values": 1, "loss": "mean_squared_error"}),
        ([900, 700, 2], {"density": 8e-4, "values": 0}),
        ([900, 700, 2], {"density": 8e-4, "values": 2}),
    ],
)
def test_the_description_of_the_format_is_enough_to_read_it(sizes, settings):
    network = shared(sizes, **settings)
    found, activation, loss, dtype, layers = coded_reference.read(encode(network.state, network.loss))
    assert (found, activation, loss, dtype) == (network.sizes, network.activation, network.loss, network.dtype.name)
    for index, (weights, biases) in enumerate(layers):
        csr = network.layer(index).csr
        rows = np.repeat(np.arange(csr.indptr.size - 1), np.diff(csr.indptr))
        assert list(weights) == list(zip(rows.tolist(), csr.indices.tolist(), strict=True))
        assert list(weights.values()) == csr.data.tolist()
        assert biases == network.layer(index).bias.tolist()


# Damage


def test_damage_is_told(tmp_path):
    path = tmp_path / "net"
    shared([20, 10, 5]).save(path, coded=True)
    content = path.read_bytes()
    for damaged, why in [
        (content[:3], "version"),
        (content[:3] + b"\x02" + content[4:], "version 02"),
        (content[:6], "checksum"),
        (content[:-1], "checksum"),
        (content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        (content + b"\0", "checksum"),
        (checked(content[HEAD:] + b"more"), "behind its end"),
        (checked(b"\xff" * 300), "it goes on|settings|more|a table"),
        (checked(b""), "settings"),
        (content[:2], "not a complete .npz archive"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^path: expected a network saved by fastprune, got '.*' \(.*({why})"):
            fp.load(path)


def test_arguments_and_values_are_checked(tmp_path):
    network = fp.MLP([4, 3])
    with pytest.raises(ValueError, match="coded: expected True or False, got 1"):
        network.save(tmp_path / "net", coded=1)
    network.state.values[0] = np.nan
    with pytest.raises(ValueError, match="only finite weights"):
        network.save(tmp_path / "net", coded=True)
    assert not list(tmp_path.iterdir())


NETWORKS = [
    shared([12, 9, 5]),
    shared([60, 30, 20, 4], 0.1, 4, loss="softmax_cross_entropy"),
    shared([30, 20, 5], 0.3, 0, dtype="float64"),
    shared([400, 300, 3], 2e-3, 2, activation="tanh"),
]


@pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=pytest.mark.long)])
def test_damaged_files_with_right_checksums(count):
    """Nothing but ValueError, and little memory, when the decoder itself is fed with nonsense."""
    rng = np.random.default_rng(count)
    payloads = [encode(network.state, network.loss)[HEAD:] for network in NETWORKS]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = 0
    for number in range(count):
        damaged = mutant(rng, bytearray(payloads[number % len(payloads)]))
        try:
            state, loss = decode(checked(damaged))
        except ValueError:
            continue
        used += 1
        assert sum(state.storage.sizes) + sum(state.storage.layer_live_weights) <= 128 * len(damaged)
        network = fp.FrozenMLP(state, loss)
        try:
            assert network.logits(np.zeros((1, network.sizes[0]))).shape == (1, network.sizes[-1])
        except ValueError as error:  # of biases that are finite, but huge
            assert "the outputs overflow" in str(error)  # noqa: PT017
    assert 0 < used < count / 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB


def mutant(rng, payload):
    way = rng.integers(5)
    at = rng.integers(len(payload))
    if way == 0:
        for _ in range(rng.integers(1, 4)):
            payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
    elif way == 1:
        del payload[at:]
    elif way == 2:
        payload[:] = rng.bytes(rng.integers(1, 300))
    elif way == 3:
        payload[at:] = rng.bytes(rng.integers(1, 100))
    else:
        payload[at : at + rng.integers(1, 40)] = bytes([rng.choice([0, 255])]) * rng.integers(1, 60)
    return bytes(payload)
