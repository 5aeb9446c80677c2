"""Files, fonts and global state."""

import logging
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, image

from limelight import plot
from limelight.plot import fonts

pytestmark = pytest.mark.backend_free

TOKENS = ["$x^2$", "_a_", "</svg><script>alert(1)</script>", "--> &amp;", "\ud800\x00\n"]


@pytest.fixture
def empty_font_caches():
    """Clear the caches of fonts before and after a test."""

    def clear():
        fonts._advised_fonts.clear()
        fonts._installed.cache_clear()
        fonts._find_family.cache_clear()

    clear()
    yield
    clear()


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_files_have_their_format_and_are_reproducible(tmp_path, suffix, start):
    contents = []
    for name in ("one", "two"):
        path = plot.save(tmp_path / f"{name}.{suffix.upper()}", plot.heatmap(np.eye(5), TOKENS))
        contents.append(path.read_bytes())
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]
    assert len(list(tmp_path.iterdir())) == 2


def test_svg_with_hostile_tokens_has_no_script(tmp_path):
    path = plot.save(tmp_path / "text.svg", plot.text(TOKENS, [0.1] * 5))
    tree = ElementTree.parse(path)
    assert {element.tag.split("}")[1] for element in tree.iter() if isinstance(element.tag, str)} <= {
        "svg", "metadata", "RDF", "Work", "type", "format", "creator", "Agent", "title", "defs", "style", "g", "path", "use",
        "clipPath", "rect", "image",
    }  # fmt: skip


def test_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    ax = plot.heatmap(np.eye(2))
    ax.set_title("$\\frac$")  # a title that mathtext cannot parse
    with pytest.raises(ValueError, match="frac"):
        plot.save(path, ax)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_figures_axes_and_grids_can_be_saved(tmp_path):
    grid = plot.heads(np.ones((3, 2, 2)))
    for drawing in (grid, grid[0, 0], grid[0, 0].figure, list(grid.ravel())):
        assert plot.save(tmp_path / "new folder" / "a.png", drawing).stat().st_size > 1000


def test_invalid_arguments_of_save_raise(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .png, .svg or .pdf. Received: 'a.gif'"):
        plot.save("a.gif", plot.heatmap(np.eye(2)))
    for invalid in ("text", None, []):
        with pytest.raises(TypeError, match=r"must be a figure or axes\. Received"):
            plot.save(tmp_path / "a.png", invalid)


@pytest.mark.subprocess
def test_no_global_state_is_changed(tmp_path):
    code = (
        "import sys, numpy as np, matplotlib; before = dict(matplotlib.rcParams);"
        "from limelight import plot; plot.save(sys.argv[1], plot.heads(np.ones((3, 2, 2))));"
        "plot.text(['a'], [1.0]); plot.curves({'a': [[1.0]]});"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'keras' not in sys.modules;"
        "assert dict(matplotlib.rcParams) == before"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.svg")], check=True)


def test_font_to_install_is_logged_once_and_missing_characters_are_boxes(
    caplog, monkeypatch, tmp_path, empty_font_caches
):
    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if "DejaVu" in entry.name or entry.name == fonts._LAST_RESORT
    ]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    with caplog.at_level(logging.WARNING, logger="limelight.plot"):
        for name in ("one", "two"):
            ax = plot.heatmap(np.eye(3), ["电影", "日本語", "한국어"])
            plot.save(tmp_path / f"{name}.png", ax)  # a glyph warning would be an error here
        # Three scripts, and symbols of which each has a name of its own.
        plot.text(["สวัสดี", "नमस्ते", "🎬", "🧿", "🤌"], [1.0] * 5)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "fonts-noto-cjk" in messages[0]
    assert messages[1].startswith("No installed font has U+0924, U+0928, U+092E and ")
    assert messages[1].endswith(
        " more: such characters are drawn as boxes. Install the Noto fonts (Debian: fonts-noto)."
    )
    assert [label.get_text() for label in ax.get_xticklabels()] == ["电影", "日本語", "한국어"]


def test_installed_font_is_used(tmp_path, monkeypatch, empty_font_caches, caplog):
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 1000)), pen.lineTo((900, 1000)), pen.lineTo((900, 0)), pen.closePath()
    block = pen.glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "film"])
    builder.setupCharacterMap({ord("影"): "film"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "film": block})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "film": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Film", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "film.ttf")
    entries = [entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    font_manager.fontManager.addfont(tmp_path / "film.ttf")
    assert fonts.families(["影"]) == ["DejaVu Sans", "Film"]
    plot.save(tmp_path / "a.png", plot.text(["影" * 7], [0.0]))
    pixels = image.imread(tmp_path / "a.png")[:, :, 0]
    assert (pixels < 0.3).mean() > 0.03  # seven solid blocks, where boxes would be mostly white
    assert not caplog.records


def test_right_to_left_letters_are_reordered(tmp_path):
    """A word drawn in logical order looks like its letters drawn one by one from right to left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def draw(text: str) -> np.ndarray:
        figure = Figure(figsize=(2, 0.5))
        canvas = FigureCanvasAgg(figure)
        figure.text(0.1, 0.3, text, fontsize=20, family=fonts.families([text]), parse_math=False)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    override = "\N{LEFT-TO-RIGHT OVERRIDE}"
    assert np.array_equal(draw("שלום"), draw(override + "םולש"))
    assert not np.array_equal(draw("שלום"), draw(override + "שלום"))


def test_control_characters_become_visible():
    assert fonts.visible("a\nb\tc\x00\ud800\u202e!") == "a↵b→c���!"
    assert fonts.visible(3) == "3"
