"""Retrieval by embeddings: the index of vectors, verification of pairs, recall."""
