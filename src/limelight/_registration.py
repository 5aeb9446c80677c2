"""Registration of limelight's classes with Keras before they are imported, so that `import limelight` is enough to load a model.

Keras finds a class of a saved model only if it is registered under its name, and a class registers itself when its module is
imported. Until then a placeholder is registered, which imports the class when Keras creates an object of it.
"""

import importlib
import sys
from typing import Any

# Every class that `core.component.register` registers.
_NAMES = """
ALiBi Additive AdditiveAttention And ArrayMask Attention AttentionCell AttentionPooling AttentionRNN BertEncoder Bias BigBird
Bilinear Causal Cosine Coverage Diagonal Dilated Dot EluFeatures Entmax Entropy FavorFeatures GaussianWindow GuidedAlignment
GumbelSoftmax Hardmax HierarchicalPooling L1 LearnedScale LinearAttention LinearScaling LocationSensitive MaskFunction Monotonic
MultiHeadAttention NTKScaling NegativeSquaredDistance Not Or Orthogonal Orthogonality Padding Prefix QKNorm RelativePositionBias
ReluFeatures Rotary Segments SelfAttention Shaw Sigmoid Sink SlidingWindow SoftCap Softmax Sparsemax Sum TopK TransformerXL
YaRNScaling
""".split()  # noqa: SIM905 (one line per name is too long)


def register_placeholders() -> None:
    """Register a placeholder for each class: at once if Keras is imported already, else as soon as it is."""
    keras = sys.modules.get("keras")
    if hasattr(keras, "saving"):
        _fill(keras)
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


class _Placeholder:
    """The place of a class that is not imported yet: Keras asks a registered class for `from_config` only."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def from_config(self, config: dict[str, Any]) -> Any:
        """Import the class, which then registers itself, and return an object of it."""
        import keras

        # The estimators need scikit-learn, which a model of layers does not.
        is_of_estimator = self.__name__ == "BertEncoder"
        for package in ("limelight.models",) if is_of_estimator else ("limelight.layers", "limelight.positions"):
            importlib.import_module(package)
        return keras.saving.get_custom_objects()[f"limelight>{self.__name__}"].from_config(config)


class _KerasFinder:
    """A finder of modules that registers the placeholders after Keras is imported, and that finds Keras as the others do."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _fill(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = exec_module
        return spec


def _fill(keras: Any) -> None:
    registered = keras.saving.get_custom_objects()
    for name in _NAMES:
        registered.setdefault(f"limelight>{name}", _Placeholder(name))
