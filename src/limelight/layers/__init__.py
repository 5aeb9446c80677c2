"""Attention layers for Keras models, their key/value cache, feature maps and regularizers."""

from limelight.layers.attention import AdditiveAttention, Attention
from limelight.layers.attention_cell import AttentionCell
from limelight.layers.kv_cache import KVCache
from limelight.layers.linear import EluFeatures, FavorFeatures, Features, LinearAttention, ReluFeatures
from limelight.layers.multi_head import MultiHeadAttention
from limelight.layers.pooling import AttentionPooling, HierarchicalPooling
from limelight.layers.recurrent import AttentionRNN
from limelight.layers.regularizers import Coverage, Diagonal, Entropy, GuidedAlignment, Orthogonality
from limelight.layers.self_attention import SelfAttention

__all__ = [
    "AdditiveAttention",
    "Attention",
    "AttentionCell",
    "AttentionPooling",
    "AttentionRNN",
    "Coverage",
    "Diagonal",
    "EluFeatures",
    "Entropy",
    "FavorFeatures",
    "Features",
    "GuidedAlignment",
    "HierarchicalPooling",
    "KVCache",
    "LinearAttention",
    "MultiHeadAttention",
    "Orthogonality",
    "ReluFeatures",
    "SelfAttention",
]
