"""Attention layers for Keras models, and what belongs to them."""

from limelight.layers.additive import AdditiveAttention
from limelight.layers.attention import Attention
from limelight.layers.cache import KVCache
from limelight.layers.features import EluFeatures, FavorFeatures, Features, ReluFeatures
from limelight.layers.hierarchical import HierarchicalPooling
from limelight.layers.linear import LinearAttention
from limelight.layers.multi_head import MultiHeadAttention
from limelight.layers.pooling import AttentionPooling
from limelight.layers.recurrent import AttentionCell, AttentionRNN
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
