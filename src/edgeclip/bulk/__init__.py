"""Many files to rows of embeddings: what to read, what was read, and files that grow and survive interruption."""
