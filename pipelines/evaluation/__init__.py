"""Evaluation of embeddings and of what protects them: protocol, blocks, counts, report."""
