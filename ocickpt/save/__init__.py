"""A running container becomes an artifact: asked for, dumped, collected, published; it knows nothing of restoring."""
