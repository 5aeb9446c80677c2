"""Attention on PyTorch: implementations of the engine's interface."""
