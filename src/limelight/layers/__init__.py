"""Attention layers for Keras models."""

from limelight.layers.attention import Attention
from limelight.layers.cache import KVCache
from limelight.layers.multi_head import MultiHeadAttention
from limelight.layers.pooling import AttentionPooling
from limelight.layers.self_attention import SelfAttention

__all__ = ["Attention", "AttentionPooling", "KVCache", "MultiHeadAttention", "SelfAttention"]
