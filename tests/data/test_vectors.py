"""Word vectors from text files: headers, words with spaces, capitals, compression, and damaged lines."""

import gzip

import numpy as np
import pytest

from limelight.data.vectors import load_vectors
from limelight.exceptions import DataError

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("header", ["", "4 3\n"])
@pytest.mark.parametrize("compressed", [False, True])
def test_vectors_of_the_words(header, compressed, tmp_path):
    text = header + "Film 9 9 9\n. . . 1 2 3\nfilm 0.5 -1 1e-2\nFILM 8 8 8\nPlot 4 5 6\n"
    path = tmp_path / ("v.txt.gz" if compressed else "v.txt")
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    vectors, found = load_vectors(path, ["plot", "film", "none", ". . ."])
    assert found.tolist() == [True, True, False, True]
    np.testing.assert_allclose(vectors, [[4, 5, 6], [0.5, -1, 0.01], [0, 0, 0], [1, 2, 3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\nb 1\n", r"Line 2 of .* must hold a word and 2 numbers\. Received: 1 numbers"),
        ("film 1 2\nb 1 x\n", r"Line 2 of .* must hold a word and 2 numbers"),
        ("", r"must hold a word and its numbers on each line"),
    ],
)
def test_damaged_files(text, message, tmp_path):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_vectors(tmp_path / "v.txt", ["film", "b"])
    with pytest.raises(DataError, match=r"There is none\. Check the path"):
        load_vectors(tmp_path / "none.txt", ["film"])
