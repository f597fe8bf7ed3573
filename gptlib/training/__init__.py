"""From data to weights: the loop, optimizers, evaluation, whole runs."""
