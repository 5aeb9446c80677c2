"""Heatmaps, grids of heads and alignments: the contents of the artists."""

import numpy as np
import pytest

from limelight import AttentionMap, plot

pytestmark = pytest.mark.backend_free


def weights(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Return rows that sum to one."""
    return random.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def labels(ax, axis: str) -> list[str]:
    return [label.get_text() for label in (ax.get_xticklabels() if axis == "x" else ax.get_yticklabels())]


def test_heatmap_shows_every_weight(random):
    matrix = weights(random, 3, 5)
    ax = plot.heatmap(matrix, ["a", "b", "c"], list("vwxyz"), title="head 0")
    image = ax.images[0]
    assert np.array_equal(image.get_array(), matrix)
    assert image.get_extent() == [-0.5, 4.5, 2.5, -0.5]
    assert image.get_cmap().name == "viridis"
    assert image.get_clim() == (0.0, matrix.max())
    assert labels(ax, "x") == list("vwxyz")
    assert labels(ax, "y") == ["a", "b", "c"]
    assert list(ax.get_yticks()) == [0, 1, 2]
    assert ax.get_title(loc="left") == "head 0"
    assert image.colorbar.ax.get_ylabel() == "attention weight"


def test_heads_are_averaged_or_chosen(random):
    stack = weights(random, 2, 7, 3, 5)
    assert np.allclose(plot.heatmap(stack, example=1).images[0].get_array(), stack[1].mean(0))
    assert np.array_equal(plot.heatmap(stack, heads=4, example=1).images[0].get_array(), stack[1, 4])
    assert np.allclose(plot.heatmap(stack[0], heads=[0, -1]).images[0].get_array(), stack[0, [0, 6]].mean(0))


def test_map_provides_tokens_and_padding_is_left_out(random):
    stack = weights(random, 2, 3, 7, 7).astype(np.float32)
    attention_map = AttentionMap.from_weights(stack, tokens=[["a", "b", "c"], ["d", "e", "f", "g", "h"]])
    ax = plot.heatmap(attention_map, heads=2, example=1)
    assert labels(ax, "x") == labels(ax, "y") == ["d", "e", "f", "g", "h"]
    assert np.array_equal(ax.images[0].get_array(), stack[1, 2, :5, :5])


def test_tokens_of_queries_are_none_of_the_keys(random):
    """Cross-attention over as many keys as queries."""
    stack = weights(random, 1, 2, 3, 3)
    attention_map = AttentionMap.from_weights(stack, query_tokens=[["a", "b", "c"]])
    ax = plot.heatmap(attention_map)
    assert labels(ax, "x") == labels(plot.heatmap(stack), "x")
    assert labels(ax, "y") == ["a", "b", "c"]
    assert labels(plot.heatmap(attention_map, ["d", "e", "f"]), "x") == ["d", "e", "f"]
    ax = plot.heatmap(attention_map.with_tokens(["d", "e", "f"], ["a", "b", "c"]))
    assert (labels(ax, "x"), labels(ax, "y")) == (["d", "e", "f"], ["a", "b", "c"])


def test_long_map_shows_the_largest_weight_of_each_block(random):
    matrix = np.zeros((2, 2053, 3))
    matrix[1, 1031, 2] = 1.0
    matrix[:, 2052, 0] = 0.5
    ax = plot.heatmap(matrix)
    image = ax.images[0]
    shown = image.get_array()
    assert shown.shape == (685, 3)
    assert shown[1031 // 3, 2] == 0.5  # the mean of the heads 0 and 1
    assert shown[684, 0] == 0.5
    assert shown.sum() == 1.0
    assert image.get_extent() == [-0.5, 2.5, 2054.5, -0.5]
    assert ax.get_ylim() == (2052.5, -0.5)
    assert image.colorbar.ax.get_ylabel() == "attention weight, largest of 3 × 1"


def test_long_map_is_read_in_parts(random, monkeypatch):
    attention_map = AttentionMap.from_weights(np.full((1, 2, 4099, 1031), 0.25, np.float32))
    parts = []
    original = AttentionMap.weights
    monkeypatch.setattr(AttentionMap, "weights", lambda self, *given: parts.append(original(self, *given)) or parts[-1])
    assert np.unique(plot.heatmap(attention_map).images[0].get_array()).tolist() == [0.25]
    assert max(part.size for part in parts) <= 1 << 22
    assert sum(part.size for part in parts) == 2 * 4099 * 1031


def test_labels_of_a_long_axis_are_thinned():
    ax = plot.heatmap(np.eye(211), [f"w{place}" for place in range(211)])
    ticks = ax.get_yticks()
    assert 20 < len(ticks) < 70
    assert len(set(np.diff(ticks))) == 1
    assert labels(ax, "y") == [f"w{place}" for place in ticks]


def test_long_token_is_cut():
    ax = plot.heatmap(np.eye(2), ["a" * 100, "b"])
    assert labels(ax, "y") == ["a" * 19 + "…", "b"]


def test_square_root_scale():
    norm = plot.heatmap([[0.0, 1.0], [0.25, 0.75]], scale="root").images[0].norm
    assert float(norm(0.25)) == pytest.approx(0.5)


def test_zero_weights_have_a_scale():
    assert plot.heatmap(np.zeros((2, 3))).images[0].get_clim() == (0.0, 1.0)


def test_data_is_never_markup():
    tokens = ["$x^2$", "_a_", "\\frac", "</text>"]
    ax = plot.heatmap(np.eye(4), tokens, title="$y$")
    assert labels(ax, "x") == tokens
    drawn = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title, ax._left_title, ax.xaxis.label]
    assert not any(text.get_parse_math() or text.get_usetex() for text in drawn if text.get_text())
    # As mathematics "$x^2$" would be as narrow as "x2"; as text it is wider than "xxx".
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.draw_without_rendering()
    text = ax.get_xticklabels()[0]
    text.set_rotation(0)
    wide = text.get_window_extent(renderer).width
    text.set_text("xxx")
    assert wide > text.get_window_extent(renderer).width


def test_draws_on_the_given_axes(random):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot.heatmap(weights(random, 2, 3), ax=right) is right
    assert right.images
    assert not left.images


def test_heads_share_one_scale(random):
    stack = weights(random, 5, 3, 3)
    grid = plot.heads(stack, ["a", "b", "c"], title="$all$", columns=3)
    assert grid.shape == (2, 3)
    for place, ax in enumerate(grid.ravel()[:5]):
        assert np.array_equal(ax.images[0].get_array(), stack[place])
        assert ax.images[0].get_clim() == (0.0, stack.max())
        assert ax.get_title(loc="left") == f"head {place}"
    assert not grid[1, 2].axison
    assert labels(grid[0, 0], "y") == ["a", "b", "c"]
    assert labels(grid[0, 1], "y") == []
    assert labels(grid[0, 2], "x") == labels(grid[1, 0], "x") == ["a", "b", "c"]
    assert grid[0, 0].figure.get_suptitle() == "$all$"


def test_chosen_heads_keep_their_indices(random):
    stack = weights(random, 1, 5, 2, 2)
    grid = plot.heads(stack, heads=[3, -1])
    assert [ax.get_title(loc="left") for ax in grid.ravel()] == ["head 3", "head 4"]
    assert np.array_equal(grid[0, 1].images[0].get_array(), stack[0, 4])


def test_alignment_has_the_source_on_top():
    ax = plot.alignment(np.ones((3, 2)) / 2, source=["le", "chat"], target=["the", "black", "cat"])
    assert labels(ax, "x") == ["le", "chat"]
    assert labels(ax, "y") == ["the", "black", "cat"]
    assert ax.xaxis.get_ticks_position() == "top"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("source", "target")


@pytest.mark.parametrize(
    ("given", "keywords", "message"),
    [
        (np.eye(3), {"tokens": ["a", "b"]}, "one query token for each of 3 weights.*Received: 2 tokens"),
        (
            np.ones((2, 3)),
            {"tokens": ["a", "b"], "key_tokens": ["c"]},
            "one key token for each of 3.*Received: 1 tokens",
        ),
        (np.ones(3), {}, r"weights of shape \(T, S\).*Received: ndarray of shape \(3,\)"),
        (np.ones((0, 3)), {}, r"Received: ndarray of shape \(0, 3\)"),
        ("text", {}, r"Received: str of shape \(\)"),
        (np.array([[np.nan, 1.0]]), {}, "must be finite. Received: 1 NaN"),
        (np.ones((5, 2, 2)), {"heads": 5}, "`heads` must be from 0 to 4. Received: 5"),
        (np.ones((5, 2, 2)), {"heads": []}, r"`heads` must be from 0 to 4. Received: \[\]"),
        (np.ones((3, 5, 2, 2)), {"example": 3}, "`example` must be from 0 to 2. Received: 3"),
        (np.eye(2), {"scale": "log"}, 'must be "linear" or "root". Received: \'log\''),
    ],
)
def test_invalid_arguments_raise(given, keywords, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmap(given, **keywords)


def test_invalid_maps_raise():
    with pytest.raises(ValueError, match=r"at most one query token for each of 3 positions.*Received: 4"):
        plot.heatmap(AttentionMap.from_weights(np.eye(3)), list("abcd"))
    stepped = AttentionMap.from_weights(np.ones((1, 2, 3, 5, 5)))
    with pytest.raises(ValueError, match="once per step"):
        plot.heatmap(stepped)
