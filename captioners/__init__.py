"""How a clip becomes words."""
