"""Translate commands to actions with and without attention, and draw which words of a command each action attends to.

SCAN (Lake and Baroni 2018): "jump twice and walk" means I_JUMP I_JUMP I_WALK. Here the actions of a command are at most 15.

    python examples/09_translation.py
"""

import limelight as ll
import math
from pathlib import Path

LENGTH = 16  # with the end


def main(count: int = 2000, epochs: int = 20, picture: Path | None = None) -> dict:
    """Train both models, compare the shares of commands whose actions are all right, and draw an alignment."""
    pairs = ll.data.load_pairs("scan-simple")
    parts = ll.data.split(pairs)
    short = [
        [index for index in part if len(pairs.targets[index][0].split()) < LENGTH] for part in (parts.train, parts.test)
    ]
    train, (commands, actions) = pairs.take(short[0][:count]), pairs.take(short[1][:500])
    settings = {"units": 64, "embedding_dim": 32, "dropout": 0.1, "learning_rate": 5e-3, "epochs": epochs, "beam": 1}
    settings |= {
        "max_length": LENGTH,
        "training": {"epoch_steps": 1, "patience": 3},
        "random_state": 0,
        "verbose": picture is not None,
    }
    models = {}
    for name, mechanism in (("attention", "bahdanau"), ("last state", None)):
        models[name] = ll.models.Translator(mechanism=mechanism, **settings).fit(*train)
        metrics = models[name].evaluate(commands, actions)
        print(f"{name:10} exact match {metrics['exact_match']}  error rate {metrics['error_rate']}")
    first, second = (model.predict(commands) for model in models.values())
    comparison = ll.evaluate.paired(actions, first, second, metric="exact_match", names=tuple(models))
    print(f"difference {comparison.difference}, p = {comparison.p_value:.2g}")
    command = "turn left and jump thrice"
    translation = models["attention"].predict_n_best([command], n=1)[0][0]
    print(f"{command} -> {translation.text} (probability {math.exp(translation.log_probability):.2f})")
    if picture is not None:
        (alignment,) = models["attention"].attention([command]).values()
        source, target = alignment.tokens[0].pieces, alignment.query_tokens[0].pieces
        weights = alignment.weights()[0, 0, : len(target), : len(source)]
        ll.plot.save(picture, ll.plot.alignment(weights, source, target, title="Where each action looks"))
    return {"difference": comparison.difference, "translation": translation}


if __name__ == "__main__":
    main(picture=Path("alignment.png"))
