"""Measures by learned image encoders: embeddings, aesthetic heads, consistency, and questions put to them in words."""
