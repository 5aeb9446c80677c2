"""Attention on JAX: implementations of the engine's interface."""
