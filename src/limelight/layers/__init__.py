"""Attention layers for Keras models."""

from limelight.layers.pooling import AttentionPooling

__all__ = ["AttentionPooling"]
