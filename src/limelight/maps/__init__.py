"""Captured attention as numpy values, from which weights, statistics and tiles are computed on demand.

Nothing here imports Keras: maps can be loaded, looked at and compared where no model can be run.
"""

from limelight._attention_statistics import AttentionStatistics
from limelight.maps._attention_map import AttentionMap
from limelight.maps._attention_maps import AttentionMaps
from limelight.maps.serialization import ArtifactError
from limelight.maps.sources import QKSource, StatisticsSource, WeightSource
from limelight.maps.statistics import DownsampledWeights
from limelight.maps.stored_mask import StoredMask
from limelight.maps.tokens import Tokens

__all__ = [
    "ArtifactError",
    "AttentionMap",
    "AttentionMaps",
    "AttentionStatistics",
    "DownsampledWeights",
    "QKSource",
    "StatisticsSource",
    "StoredMask",
    "Tokens",
    "WeightSource",
]
