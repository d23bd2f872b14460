"""Numbers that kernels share with their callers; without Numba, which callers import only to run a kernel."""

LANES = 64  # lanes of a full tile; fewer samples get the next multiple of STEP
STEP = 16

# With no more outputs, "auto" layers are always sparse, because BLAS is slow there, and lines share what they read.
FEW_OUTPUTS = 32

BYTES = 64  # of a vector held in registers
WIDE = 4  # times BYTES

# Forms in which `single.forward_one` reads a layer.
COLUMNS, PANELS = range(2)

ACTIVATIONS = range(4)
RELU, LEAKY_RELU, TANH, SIGMOID = ACTIVATIONS
SLOPE = 0.01  # of leaky ReLU below zero (PyTorch's default)
SOFTMAX_CROSS_ENTROPY, SIGMOID_CROSS_ENTROPY, MEAN_SQUARED_ERROR = range(3)
SGD, ADAM = range(2)

# Purposes of random numbers. WATCH: the samples of a large set by which states are compared.
SHUFFLE, DROPOUT, WATCH = 1, 2, 3

# Elements of a team's barrier, which starts as zeros; two cache lines apart, because processors may fetch lines in
# pairs.
ARRIVED, PASSED, ABANDONED, LENGTH = 0, 16, 32, 48

# Elements of the state of an arithmetic coder: bounds of the interval, the number read, place in the bytes, whether it
# writes.
LOW, HIGH, WORD, PLACE, WRITES = range(5)

NUMBER = 129  # slots of numbers: how long they are, the bits below the leading one, whether a count rises
PLACES = 1184  # slots of the positions of a layer

# A layer of a coded file with more places than this for each weight, in rows and columns that have any, is written as
# distances.
CODED_FAR = 256
