"""TMX files: languages, inline codes, and declarations that are refused."""

import gzip

import pytest

from limelight.data import DataError, load_pairs

pytestmark = pytest.mark.backend_free


@pytest.fixture
def write(tmp_path):
    def write_file(units, head='<?xml version="1.0" encoding="UTF-8"?>', srclang="en", name="t.tmx", encoding="utf-8"):
        body = "".join(
            "<tu>" + "".join(f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>' for lang, text in unit) + "</tu>"
            for unit in units
        )
        text = f'{head}<tmx version="1.4"><header srclang="{srclang}"/><body>{body}</body></tmx>'
        content = text.encode(encoding)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return path

    return write_file


UNITS = [[("el", "ένα"), ("en", "one")], [("el", "δύο"), ("en", "two")]]


@pytest.mark.parametrize("name", ["t.tmx", "T.TMX.gz"])
def test_the_two_languages_of_a_file(write, name):
    pairs = load_pairs(write(UNITS, name=name))
    assert (pairs.sources, pairs.targets, pairs.repairs) == (("one", "two"), (("ένα",), ("δύο",)), ())
    assert load_pairs(write(UNITS, srclang="el")).sources == ("ένα", "δύο")
    assert load_pairs(write(UNITS, srclang="*all*")).sources == ("ένα", "δύο")
    assert load_pairs(write(UNITS), source="el").targets == (("one",), ("two",))
    assert load_pairs(write(UNITS), target="en").sources == ("ένα", "δύο")


def test_regions_several_languages_and_missing_ones(write):
    units = [
        [("en-US", "one"), ("FR", "un"), ("de", "eins")],
        [("en-US", "two"), ("de", "zwei")],
        [("EN_us", "3"), ("fr", "trois")],
    ]
    path = write(units)
    pairs = load_pairs(path, source="en", target="fr")
    assert (pairs.sources, pairs.targets) == (("one", "3"), (("un",), ("trois",)))
    assert [str(repair) for repair in pairs.repairs] == ["units without 'en-us' or 'fr' left out: 1"]
    with pytest.raises(
        DataError, match=r"two languages, or both must be named. .* holds the languages 'en-us', 'fr', 'de'"
    ):
        load_pairs(path)
    with pytest.raises(DataError, match=r"A named language must be one of the file's. .*Received: 'it'"):
        load_pairs(path, source="it", target="en")
    with pytest.raises(DataError, match=r"must be two languages. Received: 'fr' for both"):
        load_pairs(path, source="fr", target="FR")


def test_codes_of_the_original_format_are_left_out_and_escapes_read(write):
    text = 'a <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1">&lt;/b&gt;</ept> &amp; <hi>high</hi> <ph>{1}</ph>&#233;'
    assert load_pairs(write([[("en", text), ("fr", "x")]])).sources == ("a bold & high é",)


def test_utf_16_and_a_document_type_by_reference_are_read(write):
    head = '<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd">'
    assert load_pairs(write(UNITS, head, encoding="utf-16")).sources == ("one", "two")


@pytest.mark.parametrize(
    "declarations",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        "<!ELEMENT tmx ANY>",
        '<!ENTITY % p SYSTEM "http://localhost/x"> %p;',
    ],
)
def test_declarations_are_refused(write, declarations):
    path = write([[("en", "&a;"), ("fr", "x")]], f"<!DOCTYPE tmx [{declarations}]>")
    with pytest.raises(DataError, match="must not declare entities or a document type of its own, which are unsafe"):
        load_pairs(path)


def test_entities_that_an_unread_document_type_declares_are_refused(write):
    path = write([[("en", "a&nbsp;b"), ("fr", "x")]], '<!DOCTYPE tmx SYSTEM "tmx14.dtd">')
    with pytest.raises(DataError, match=r"no entities but XML's own five. It uses &nbsp;"):
        load_pairs(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be an intact TMX file. It cannot be read: no element found"),
        (b"<tmx><body><tu>", "must be an intact TMX file"),
        (b"<tmx>\xff</tmx>", "must be an intact TMX file"),
        (b"<tmx/>", "holds the languages of no unit"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "t.tmx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_pairs(tmp_path / "t.tmx")
    with pytest.raises(DataError, match="No such file"):
        load_pairs(tmp_path / "u.tmx")


def test_a_tmx_file_has_no_groups(write):
    with pytest.raises(DataError, match=r"A .tmx file has no groups. Received: group='g'"):
        load_pairs(write(UNITS), group="g")
