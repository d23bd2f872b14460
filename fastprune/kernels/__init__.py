"""All compiled functions of fastprune, and nothing else: loops over numbers, in place, without allocation.

Letters used in all files:

    N  samples          T  lanes of a tile        L  layers of weights
    I  fan-in           O  fan-out                W  stored weights
    F  input features   K  outputs of the network P  parameters: W weights, then the biases

A tile holds up to 64 samples feature-major, shape (features, T): each feature is a contiguous row of lanes. The last
tile of a batch may hold fewer samples than lanes; the spare lanes hold zeros and get a zero gradient.

Signatures list written arrays first, then the upstream gradient, then read arrays, then scalars.
"""
