"""Every compiled function of fastprune, and nothing but: loops over numbers, in place, without allocation.

Letters, the same in all files:

    N  samples          T  lanes of a tile        L  layers of weights
    I  fan-in           O  fan-out                W  stored weights
    F  input features   K  outputs of the network P  parameters: W weights, then the biases

A tile holds up to 64 samples feature-major, shape (features, T): a feature is one contiguous row of lanes. The last
tile of a batch may hold fewer samples than lanes; such lanes carry zeros and receive a zero gradient.

Signatures name what is written first, then the upstream gradient, then what is read, then scalars.
"""
