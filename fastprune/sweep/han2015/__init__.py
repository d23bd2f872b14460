"""The preset `han2015`: the paper's network on MNIST, its tables and figures, and how far later methods are passed."""
