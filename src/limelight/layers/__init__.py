"""Attention layers for Keras models."""

from limelight.layers.multi_head import MultiHeadAttention
from limelight.layers.pooling import AttentionPooling
from limelight.layers.self_attention import SelfAttention

__all__ = ["AttentionPooling", "MultiHeadAttention", "SelfAttention"]
