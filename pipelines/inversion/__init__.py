"""Template inversion: the face behind an embedding, and what protection does to that."""
