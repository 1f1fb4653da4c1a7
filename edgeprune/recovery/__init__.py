"""Recovery: distil what pruning lost back from the dense model, on unlabelled batches."""
