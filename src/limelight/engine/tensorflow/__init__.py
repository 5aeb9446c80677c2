"""Attention on TensorFlow: implementations of the engine's interface."""
