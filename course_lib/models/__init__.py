"""Ordinary models. They know nothing of ranks; `parallel` wraps them."""
