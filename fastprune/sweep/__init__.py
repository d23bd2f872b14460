"""`python -m fastprune.sweep`: train, prune and retrain over several seeds, and report."""
