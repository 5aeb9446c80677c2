"""Pairs of texts from tables, from two files of lines, and their cleaning."""

import contextlib
import gzip
import hashlib
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limelight import data
from limelight.data import DataError, Pairs, load_pairs

pytestmark = pytest.mark.backend_free


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="t.tsv"):
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write_file


def repairs(pairs):
    return [str(repair) for repair in pairs.repairs]


ROWS = [("one", "un"), ("two", "deux"), ("three", "trois")]


def table_of(header, separator="\t", rows=ROWS):
    return "\n".join(separator.join(row) for row in ([header] if header else []) + rows) + "\n"


@pytest.mark.parametrize(
    ("header", "reversed_"),
    [
        (("source", "target"), False),
        (("tgt", "src"), True),
        (("Word", "Phones"), False),
        (("en", "fr"), False),
        (("English", "French"), False),
        (("en-US", "fr_CA"), False),
    ],
)
@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz"])
def test_two_columns_with_a_header(write, header, reversed_, name):
    pairs = load_pairs(write(table_of(header, "," if "csv" in name else "\t"), name))
    expected = [row[::-1] if reversed_ else row for row in ROWS]
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == [(one, (other,)) for one, other in expected]
    assert (pairs.name, pairs.repairs, pairs.test, pairs.groups) == ("t", (), None, None)
    assert pairs.source == f"the file {str(write('', name))!r}"


def test_two_columns_without_a_header(write):
    pairs = load_pairs(write(table_of(None)))
    assert pairs.sources == ("one", "two", "three")
    assert repairs(pairs) == ["first line read as data, since it is no header: 1"]


def test_a_column_of_mostly_numbers_is_no_text(write):
    ratings = [(f"film {index}", "-" if index == 3 else str(index)) for index in range(9)]
    with pytest.raises(DataError, match="usual name for the source"):
        load_pairs(write(table_of(("notes", "points"), rows=ratings)))


def test_the_only_two_columns_of_texts(write):
    rows = [(str(number), *row) for number, row in enumerate(ROWS)]
    for header in (("id", "en", "fr"), ("id", "left", "right")):
        pairs = load_pairs(write(table_of(header, rows=rows)))
        assert (pairs.sources, pairs.repairs) == (("one", "two", "three"), ())
    assert load_pairs(write(table_of(None, rows=rows))).sources == ("one", "two", "three")
    grouped = [(*row, f"book {row[1][0]}") for row in rows]
    pairs = load_pairs(write(table_of(("id", "en", "fr", "book"), rows=grouped)), group="book")
    assert (pairs.sources, pairs.groups) == (("one", "two", "three"), ("book o", "book t", "book t"))


def test_named_columns(write):
    rows = [(*row, f"by {row[0]}") for row in ROWS]
    path = write(table_of(("english", "french", "author"), rows=rows))
    pairs = load_pairs(path, source="french", target="english")
    assert (pairs.sources, pairs.targets[0]) == (("un", "deux", "trois"), ("one",))
    headerless = write(table_of(None, rows=rows), "headerless.tsv")
    pairs = load_pairs(headerless, source="1", target="2", group="3")
    assert (pairs.sources, pairs.groups) == (("one", "two", "three"), ("by one", "by two", "by three"))
    with pytest.raises(
        DataError, match=r"'source' must name a column of .* no column 'englsh'. Did you mean 'english'"
    ):
        load_pairs(path, source="englsh", target="french")
    with pytest.raises(DataError, match=r"The source and the target must be two columns of .* 'french' for both"):
        load_pairs(path, source="french", target="french")
    with pytest.raises(
        DataError, match=r"usual name for the source, .* has the columns 'one', 'un', 'by one'. Name it: source="
    ):
        load_pairs(headerless)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet", "t.parquet.gz"])
def test_records(write, tmp_path, name):
    records = [{"id": number, "en": one, "fr": other} for number, (one, other) in enumerate(ROWS)]
    if "jsonl" in name:
        path = write("\n".join(map(json.dumps, records)), name)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "plain")
        path = write((tmp_path / "plain").read_bytes(), name)
    assert load_pairs(path).targets == (("un",), ("deux",), ("trois",))
    assert load_pairs(path, source="fr", target="en").sources == ("un", "deux", "trois")


def test_a_value_that_is_no_text(write):
    path = write('{"source": "a", "target": "b"}\n{"source": "c", "target": 7}\n', "t.jsonl")
    with pytest.raises(DataError, match=r"'target' must be a string on every line of .* On line 2 it is a number"):
        load_pairs(path)


def test_two_files_of_lines(write):
    source, target = write("one\r\ntwo\n\nfour\u2028five", "t.en"), write("un\ndeux\ntrois\n \n", "t.fr.gz")
    pairs = load_pairs((source, target))
    assert (pairs.name, pairs.sources, pairs.targets) == ("t", ("one", "two"), (("un",), ("deux",)))
    assert repairs(pairs) == ["pairs with an empty side dropped: 2"]
    assert pairs.source == f"the files {str(source)!r} and {str(target)!r}"
    assert load_pairs([write("a b\u2028c\n", "t.a"), write("d\re", "t.b")]).sources == ("a b\u2028c",)


def test_blank_lines_at_the_end_and_marks_of_two_files_are_counted(write):
    paths = (write(b"\xef\xbb\xbfone\ntwo\n", "t.en"), write(b"\xef\xbb\xbfun\ndeux\n\n \n", "t.fr"))
    pairs = load_pairs(paths)
    assert (pairs.sources, pairs.targets) == (("one", "two"), (("un",), ("deux",)))
    assert repairs(pairs) == ["byte order mark removed: 2", "blank lines at the end of one file left out: 2"]


def test_two_files_that_do_not_belong_together(write):
    with pytest.raises(DataError, match=r"must be two files. Received: '.*t.a' for both"):
        load_pairs((write("a\nb", "t.a"), write("a\nb", "t.a")))
    with pytest.raises(DataError, match=r"'.*t.csv.gz' is a table, which holds both sides. Give it alone"):
        load_pairs((write("a\nb", "t.a"), write("a\nb", "t.csv.gz")))
    with pytest.raises(DataError, match=r"'.*t.a' has 2 lines, '.*t.b' 3. Give two files that belong together"):
        load_pairs((write("a\nb", "t.a"), write("a\nb\nc\n", "t.b")))
    with pytest.raises(DataError, match=r"line by line. Received: 3 paths"):
        load_pairs(("a", "b", "c"))
    with pytest.raises(DataError, match=r"Two files of lines have no columns. Received: source='x'. Leave"):
        load_pairs(("a", "b"), source="x")
    with pytest.raises(DataError, match=r"t.b' must be UTF-8. The byte 0xe9 at byte offset 3 \(line 2\)"):
        load_pairs((write("a\nb", "t.a"), write(b"a\nc\xe9\n", "t.b")))


def test_repeated_pairs_are_dropped_and_further_targets_are_references(write):
    rows = [
        ("a", "x"),
        ("b", "y"),
        ("a", "z"),
        (" a", "x "),
        ("c", ""),
        ("cafe\u0301", "q"),
        ("caf\u00e9", "x"),
        ("A", "x"),
    ]
    pairs = load_pairs(write(table_of(("source", "target"), rows=rows)))
    assert pairs.sources == ("a", "b", "caf\u00e9", "A")
    assert pairs.targets == (("x", "z"), ("y",), ("q", "x"), ("x",))
    assert repairs(pairs) == [
        "texts converted to Unicode form NFC: 1",
        "pairs with an empty side dropped: 1",
        "duplicate pairs dropped: 1",
        "targets that became further references of an equal source: 2",
    ]
    assert repr(pairs) == "Pairs('t', 4 sources, 6 targets)"
    assert pairs.take([2, 0]) == (["caf\u00e9", "a"], ["q", "x"])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("source\ttarget\n", "t.tsv", "must hold pairs of texts. None is left of 0 rows"),
        ("source\ttarget\na\t\n", "t.tsv", "None is left of 1 rows; pairs with an empty side dropped: 1. Check"),
        ("source\ttarget\n1\ta\n2\tb\n", "t.tsv", "All 2 sources are numbers. Check"),
        (
            "x",
            "t.txt",
            r"Pairs must be a .csv, .tsv, .jsonl, .parquet or .tmx file, or two files of lines. Received: '.*t.txt'",
        ),
    ],
)
def test_unusable_files(write, content, name, message):
    with pytest.raises(DataError, match=message) as caught:
        load_pairs(write(content, name))
    assert "\n" not in str(caught.value)


def test_damaged_gzip_files(write, tmp_path):
    (tmp_path / "t.csv.gz").write_text("source,target\na,b\n")
    with pytest.raises(DataError, match=r"t.csv.gz' must be a file that can be read. Not a gzipped file"):
        load_pairs(tmp_path / "t.csv.gz")
    path = write(table_of(("source", "target"), rows=[(f"{i}a", f"{i * i}b") for i in range(3000)]), "t.tsv.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"must be a file that can be read. Compressed file ended before"):
        load_pairs(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": (("x",),)}, "`targets` must hold one value for each of the 2 sources. Received: 1"),
        ({"groups": ("g",)}, "`groups` must hold one value for each of the 2 sources. Received: 1"),
        ({"alignments": ()}, "`alignments` must hold one value for each"),
        ({"test": np.array([True])}, "`test` must hold one value for each"),
        ({"targets": (("x",), ())}, "at least one reference for each source. Received: none for 'b'"),
        ({"targets": (("x",), "y")}, "at least one reference for each source. Received: a string"),
    ],
)
def test_inconsistent_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pairs(**{"name": "p", "sources": ("a", "b"), "targets": (("x",), ("y",)), **arguments})


def pairs_of(count, **keywords):
    sources = tuple(f"sentence number {index}" for index in range(count))
    return Pairs("p", sources, tuple((f"target {index}",) for index in range(count)), **keywords)


def test_the_split_of_pairs_has_the_shares_and_does_not_depend_on_the_order():
    pairs = pairs_of(1000)
    parts = data.split(pairs, validation=0.13, test=0.29)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [580, 130, 290]
    backwards = Pairs("p", pairs.sources[::-1], pairs.targets[::-1])
    other = data.split(backwards, validation=0.13, test=0.29)
    assert (999 - other.test)[::-1].tolist() == parts.test.tolist()
    assert other.fingerprint == parts.fingerprint != data.split(pairs).fingerprint
    assert other.order != parts.order
    changed = Pairs("p", pairs.sources, (("another",), *pairs.targets[1:]))
    assert data.split(changed, validation=0.13, test=0.29).fingerprint != parts.fingerprint


def hash_of(text, person):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16, person=person).digest()[:8], "big") / 2**64


def test_the_rank_of_the_hash_of_its_source_decides_the_part_of_a_pair():
    pairs = pairs_of(83)
    offset = hash_of("pairs", b"limelight-class")
    ranked = sorted(range(83), key=lambda index: hash_of(pairs.sources[index], b"limelight-split"))
    parts = data.split(pairs, validation=0.17, test=0.31)
    position = {index: (rank + offset) / 83 for rank, index in enumerate(ranked)}
    assert parts.test.tolist() == [index for index in range(83) if position[index] < 0.31]
    assert parts.validation.tolist() == [index for index in range(83) if 0.31 <= position[index] < 0.48]


def test_the_split_of_pairs_never_changes():
    """Fixed values: a change of the hash would silently change every split that was ever reported."""
    assert data.split(pairs_of(50)).fingerprint == "e68a2baf70d9957890355334e2233402"


def test_sources_that_differ_only_in_case_and_punctuation_stay_together():
    sources = [text for index in range(200) for text in (f"sentence {index}", f"Sentence {index}!")]
    parts = data.split(Pairs("p", tuple(sources), (("x",),) * 400))
    of = np.zeros(400, int)
    of[parts.validation], of[parts.test] = 1, 2
    assert (of[::2] == of[1::2]).all()
    assert set(of) == {0, 1, 2}


def test_groups_and_published_tests_of_pairs():
    groups = tuple(f"group {index // 10}" for index in range(300))
    parts = data.split(pairs_of(300, groups=groups))
    assert not {groups[index] for index in parts.train} & {groups[index] for index in parts.test}
    test = np.arange(300) % 3 == 0
    parts = data.split(pairs_of(300, test=test), validation=0.25)
    assert parts.test.tolist() == np.flatnonzero(test).tolist()
    assert len(parts.validation) == 50
    with pytest.raises(DataError, match="The train part must hold at least one example"):
        data.split(pairs_of(3, test=np.ones(3, bool)), validation=0)


def test_describe_pairs():
    pairs = Pairs("p", ("a b c", "d"), (("x", "y z"), ("w",)), (data.Repair("r", 2),), "here")
    summary = data.describe(pairs)
    assert (summary["kind"], summary["examples"], summary["references"], summary["published_test"]) == (
        "pairs",
        2,
        3,
        None,
    )
    assert (summary["lengths"]["median"], summary["lengths"]["maximum"]) == (2, 3)
    assert (summary["target_lengths"]["maximum"], summary["repairs"]) == (2, [{"what": "r", "count": 2}])
    json.dumps(summary)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.tmx", "t.tsv.gz"]))
def test_any_bytes_are_pairs_or_a_data_error(write, content, name):
    path = write(b"one,un\n" + content, name)
    with contextlib.suppress(DataError):
        assert len(load_pairs(path)) > 0
