"""What was captured: numpy values from which weights, surveys and tiles are computed when they are wanted.

Nothing here imports Keras: maps can be loaded, looked at and compared where no model can be run.
"""

from limelight.maps.allowed import Allowed
from limelight.maps.attention_map import AttentionMap
from limelight.maps.attention_maps import AttentionMaps
from limelight.maps.sources import Asked, Kept, Surveyed
from limelight.maps.storing import ArtifactError
from limelight.maps.tiles import Tile
from limelight.maps.tokens import Tokens
from limelight.surveying import Survey

__all__ = [
    "Allowed",
    "ArtifactError",
    "Asked",
    "AttentionMap",
    "AttentionMaps",
    "Kept",
    "Survey",
    "Surveyed",
    "Tile",
    "Tokens",
]
