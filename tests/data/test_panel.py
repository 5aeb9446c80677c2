"""Tables of series: long and wide, their times, gaps and covariates."""

import contextlib
import gzip
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limelight import data
from limelight.data import DataError, Panel, load_panel
from limelight.data.timesteps import Grid

pytestmark = pytest.mark.backend_free


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="t.csv"):
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return path

    return write_file


def repairs(panel):
    return [str(repair) for repair in panel.repairs]


def values(panel):
    return [series.tolist() for series in panel.values]


LONG = [
    ("north", "2025-01", 5),
    ("south", "2025-02", 9),
    ("north", "2025-03", 7),
    ("north", "2025-02", 6),
    ("south", "2025-01", 8),
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", [("series", "month", "value"), ("unique_id", "ds", "y"), ("id", "Date", "sales")])
def test_a_long_table(write, separator, header):
    text = "\n".join(separator.join(map(str, row)) for row in [header, *LONG])
    panel = load_panel(write(text, "t.tsv" if separator == "\t" else "t.csv.gz"))
    assert panel.ids == ("north", "south")
    assert values(panel) == [[5, 6, 7], [8, 9]]
    assert panel.times[0].tolist() == np.array(["2025-01", "2025-02", "2025-03"], "datetime64[M]").tolist()
    assert (panel.times[1].dtype, panel.values[0].dtype) == ("datetime64[M]", "float32")
    assert (panel.name, panel.season, panel.horizon, panel.test, panel.known, panel.repairs) == (
        "t",
        12,
        None,
        None,
        None,
        (),
    )
    assert repr(panel) == "Panel('t', 2 series of 2 to 3 steps)"
    assert panel.source.startswith("the file '")


def test_named_columns_and_ids_that_look_like_numbers(write):
    path = write("shop,when,sold,price\n007,3,1,10\n7,1,2,20\n007,1,3,30\n7,2,4,40\n007,2,5,50\n")
    panel = load_panel(path, time="when", series="shop", value="price")
    assert panel.ids == ("007", "7")
    assert values(panel) == [[30, 50, 10], [20, 40]]
    assert (panel.times[0].tolist(), panel.times[0].dtype, panel.season) == ([1, 2, 3], "int64", None)
    with pytest.raises(
        DataError, match=r"usual name for the value.*has the columns 'sold', 'price'. Name it: value=..."
    ):
        load_panel(path, time="when", series="shop")
    with pytest.raises(DataError, match=r"usual name for the time.*No column is.*Name it: time="):
        load_panel(path, series="shop")
    with pytest.raises(DataError, match="no column 'sales'"):
        load_panel(path, time="when", value="sales")
    with pytest.raises(DataError, match=r"can have one role. Received: 'sold' for two"):
        load_panel(path, time="when", value="sold", known=["sold"])
    assert load_panel(path, time="when", series="shop", value="sold", known="price").known_names == ("price",)


def test_a_wide_table(write):
    panel = load_panel(
        write(",north,south,note\n2025-01-06,1,5,a\n2025-01-20,3,,b\n2025-01-13,2,6,c\n2025-01-27,,7,d\n")
    )
    assert panel.ids == ("north", "south")
    assert values(panel) == [[1, 2, 3], [5, 6, 6.5, 7]]
    assert [len(times) for times in panel.times] == [3, 4]
    assert panel.season == 52
    assert repairs(panel) == [
        "rows without a value at the ends of a series dropped: 1",
        "missing values filled by interpolation: 1",
    ]


def test_a_wide_table_of_series_called_by_numbers(write):
    for header in ("week,17,4", ",17,4"):
        panel = load_panel(write(f"{header}\n2025-01-06,1,2\n2025-01-13,3,4\n"))
        assert (panel.ids, values(panel)) == (("17", "4"), [[1, 3], [2, 4]])
    with pytest.raises(DataError, match=r"must name the columns. It holds numbers"):
        load_panel(write("2025-01-06,1,2\n2025-01-13,3,4\n"))


def test_one_series_whose_rows_are_numbered(write):
    panel = load_panel(write("index,year,deaths\n0,1901.0,4\n1,1902.0,5\n2,1903.0,9\n"))
    assert (panel.ids, values(panel), panel.season) == (("deaths",), [[4, 5, 9]], 1)
    assert panel.times[0].astype(str).tolist() == ["1901", "1902", "1903"]
    numbered = load_panel(write("id,year,value\n1,1901,4\n2,1902,5\n"))
    assert (numbered.ids, values(numbered)) == (("value",), [[4, 5]])


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_records(write, tmp_path, name):
    records = [{"series": one, "time": time, "value": value / 4, "more": None} for one, time, value in LONG]
    if name == "t.jsonl":
        path = write("\n".join(map(json.dumps, records)), name)
    else:
        path = tmp_path / name
        table = pyarrow.Table.from_pylist(records)
        days = pyarrow.array([np.datetime64(row["time"], "D").astype(object) for row in records])
        pyarrow.parquet.write_table(table.set_column(1, "time", days), path)
    panel = load_panel(path)
    assert values(panel) == [[1.25, 1.5, 1.75], [2, 2.25]]
    assert (panel.ids, panel.season) == (("north", "south"), 12)


def test_times_with_a_zone_in_parquet(tmp_path):
    times = pyarrow.array([0, None, 7200, 3600], pyarrow.timestamp("s", "Europe/Athens"))
    table = pyarrow.table({"time": times, "value": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    panel = load_panel(tmp_path / "t.parquet")
    assert panel.times[0].astype(str).tolist() == [f"1970-01-01T0{hour}:00:00" for hour in range(3)]
    assert (values(panel), panel.season, repairs(panel)) == ([[1, 4, 3]], 24, ["rows without a time dropped: 1"])


def test_times_beyond_the_range_of_nanoseconds(tmp_path):
    days = pyarrow.array(np.array(["1500-01-01", "1501-01-01", "3000-01-01"], "datetime64[D]").tolist())
    pyarrow.parquet.write_table(pyarrow.table({"date": days[:2], "value": [1, 2]}), tmp_path / "t.parquet")
    assert load_panel(tmp_path / "t.parquet").times[0].astype(str).tolist() == ["1500-01", "1501-01"]
    pyarrow.parquet.write_table(pyarrow.table({"date": days, "value": [1, 2, 3]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"is 12 months; of series 'value', 1,498 of 1,501 steps are missing"):
        load_panel(tmp_path / "t.parquet")


def test_missing_steps_are_filled_and_counted(write):
    rows = "2025-01,1\n2025-02,3\n2025-05,9\n2025-06,12\n2025-08,\n2025-09,18\n,7\n"
    panel = load_panel(write("month,value\n" + rows))
    assert values(panel) == [[1, 3, 5, 7, 9, 12, 14, 16, 18]]
    assert panel.times[0].astype(str).tolist() == [f"2025-0{month}" for month in range(1, 10)]
    assert repairs(panel) == [
        "rows without a time dropped: 1",
        "missing steps filled by interpolation: 3",
        "missing values filled by interpolation: 1",
    ]


def test_business_days(write):
    days = np.busday_offset("2025-01-06", np.arange(20))
    rows = "".join(f"{day},{number}\n" for number, day in enumerate(days) if number != 7)
    panel = load_panel(write("date,value\n" + rows))
    assert values(panel) == [list(range(20))]
    assert panel.times[0].tolist() == days.tolist()
    assert (panel.season, repairs(panel)) == (5, ["missing steps filled by interpolation: 1"])


@pytest.mark.parametrize(("days", "grid", "filled"), [
    (["2025-01-09", "2025-01-10", "2025-01-13", "2025-01-14"], Grid("B", 1), 0),
    (["2025-01-09", "2025-01-10", "2025-01-13", "2025-01-14"], None, 2),
    (["2025-01-09", "2025-01-10", "2025-01-11", "2025-01-12"], Grid("B", 1), 0),
    (["2025-01-09", "2025-01-13", "2025-01-17"], Grid("D", 2), 2),
    (["2025-01-09", "2025-01-10", "2025-01-11"], Grid("D", 2), 0),
    (["2025-01-01", "2025-01-08", "2025-01-15"], Grid("D", 1), 0),
    (["2025-01", "2025-02", "2025-03"], Grid("B", 1), 0),
])  # fmt: skip
def test_few_times_are_put_on_the_grid_of_a_training_if_they_fit(write, days, grid, filled):
    panel = load_panel(write("date,value\n" + "".join(f"{day},{day[-2:]}\n" for day in days)), grid=grid)
    assert [repair.count for repair in panel.repairs] == ([filled] if filled else [])
    assert len(panel.times[0]) == len(days) + filled
    assert np.isin(np.array(days, panel.times[0].dtype), panel.times[0]).all()


@pytest.mark.parametrize(
    ("times", "season", "first"),
    [
        (["1990Q1", "1990Q2", "1990Q3"], 4, "1990-01"),
        (["1990-03-31", "1990-06-30", "1990-09-30"], 4, "1990-03"),
        (["1990-01-31", "1990-02-28", "1990-03-31"], 12, "1990-01"),
        (["199001", "199002", "199003"], 12, "1990-01"),
        (["19900101", "19900102", "19900103"], 7, "1990-01-01"),
        (["1990-1-1", "1991-1-1", "1992-1-1"], 1, "1990-01"),
        (["2025-01-01 00:00", "2025-01-01 00:30", "2025-01-01 01:00"], 48, "2025-01-01T00:00:00"),
        (
            ["2025-01-01T00:00:00.25Z", "2025-01-01T00:00:00.5Z", "2025-01-01T00:00:00.75Z"],
            None,
            "2025-01-01T00:00:00.250",
        ),
        (["2025-01-01T01:00+02:00", "2025-01-01T02:00+02:00", "2025-01-01T03:00+02:00"], 24, "2024-12-31T23:00:00"),
        (["-3", "0", "+3"], None, "-3"),
        (["9999", "10000", "10001"], None, "9999"),
    ],
)
def test_forms_of_times(write, times, season, first):
    panel = load_panel(write("time,value\n" + "".join(f"{time},{index}\n" for index, time in enumerate(times))))
    assert (panel.season, str(panel.times[0][0]), values(panel)) == (season, first, [[0, 1, 2]])


def test_covariates(write):
    header = "id,day,value,price,rain,kind\n"
    rows = [
        "a,1,10,1.5,,shop",
        "a,2,11,,3,shop",
        "a,4,13,3,5,shop",
        "a,5,,4,6,shop",
        "a,6,,5,,shop",
        "b,1,20,7,1,web",
        "b,2,21,8,2,web",
    ]
    path = write(header + "\n".join(rows))
    panel = load_panel(path, known=["price"], observed=["rain"], static=["kind"])
    assert values(panel) == [[10, 11, 12, 13], [20, 21]]
    # The price of the two days after the last value is known.
    assert [known[:, 0].tolist() for known in panel.known] == [[1.5, 2, 2.5, 3, 4, 5], [7, 8]]
    assert [observed[:, 0].tolist() for observed in panel.observed] == [[3, 3, 4, 5], [1, 2]]
    assert panel.static.tolist() == [[1, 0], [0, 1]]
    assert (panel.known_names, panel.observed_names, panel.static_names) == (
        ("price",),
        ("rain",),
        ("kind=shop", "kind=web"),
    )
    assert {panel.static.dtype, panel.known[0].dtype, panel.observed[0].dtype} == {np.dtype(np.float32)}
    assert repairs(panel) == [
        "missing steps filled by interpolation: 1",
        "missing values of covariates filled by interpolation: 2",
    ]
    summary = data.describe(panel)
    assert (summary["kind"], summary["examples"], summary["static"]) == ("panel", 2, ["kind=shop", "kind=web"])
    json.dumps(summary)


def test_covariates_of_a_wide_table_are_those_of_all_series(write):
    panel = load_panel(write("day,north,south,holiday\n1,1,5,no\n2,2,6,yes\n3,3,,no\n"), known=["holiday"])
    assert panel.known_names == ("holiday=no", "holiday=yes")
    assert panel.known[1].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert [len(series) for series in panel.values] == [3, 2]


def test_decimal_commas_and_malformed_rows(write):
    rows = "".join(f"2025-01-{day:02};{day},5\n" for day in range(1, 31))
    panel = load_panel(write("date;value\n" + rows + "2025-01-31\n"))
    assert values(panel) == [[day + 0.5 for day in range(1, 31)]]
    assert repairs(panel) == [
        "rows with too few or too many fields dropped (the first at line 32): 1",
        "columns whose decimal commas became points: 1",
    ]


def test_series_without_values_are_dropped(write):
    panel = load_panel(write("time,a,b\n1,3,NA\n2,4,nan\n"))
    assert (panel.ids, repairs(panel)) == (("a",), ["series without a value dropped: 1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("time,value\n", "must hold a header and rows. It has 0 rows"),
        ("1,2\n3,4\n", "first line of .* must name the columns. It holds numbers"),
        ("time,value,value\n1,2,3\n", "must have different names. There are several 'value'"),
        ("time,value\n1,2\n3,x\n", "Column 'value' of .* must hold finite numbers. Row 2 holds 'x'"),
        ("time,value\n1,2\n3,inf\n", "must hold finite numbers. Row 2 holds 'inf'"),
        ("time,value\n1,\n3,\n", "must hold at least one series with values. It has none in 2 rows"),
        ("a,value\nx,2\ny,3\n", "usual name for the time"),
        (
            "date;sold\n2024-01-01;1.000,5\n2024-01-02;900,5\n",
            r"must have a column of numbers beside the times. None of its other columns is: 'sold' has '1.000,5' in row 1\. "
            r"Write numbers as 1234\.5, or name",
        ),
        ("date\n2024-01-01\n2024-01-02\n", r"beside the times\. It has no other columns\. Write"),
        ("date,value\n31/12/1990,2\n01/01/1991,3\n", "times of one form: ISO dates .* Row 1 holds '31/12/1990'"),
        ("date,value\n1990-01-31,2\n,9\n1990-02-30,3\n", "Row 3 holds '1990-02-30'"),
        ("date,value\n1990-01,2\n1991,3\n", "Row 2 holds '1991'"),
        ("time,value\n1,2\n2,3\n1,4\n", r"In row 3 of .*, the time '1' occurs again. Name the column of the series"),
        ("time,id,value\n1,a,2\n1,b,3\n1,b,4\n", "In row 3 of .*, the time '1' of series 'b' occurs again. Keep one"),
        (
            "time,value\n1,2\n3,3\n5,4\n6,5\n",
            "must be whole steps of 2 apart. In row 4, 6 of series 'value' lies between",
        ),
        ("time,value\n1,2\n2,3\n9,4\n", "most frequent step of .* is 1; of series 'value', 6 of 9 steps are missing"),
    ],
)
def test_unusable_tables(write, content, message):
    columns = {"value": "value"} if "x\n" in content or "inf" in content or ",\n3" in content else {}
    with pytest.raises(DataError, match=message) as caught:
        load_panel(write(content), **columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"static": ["price"]}, "'price' of series 'a' in .* has 2 different values. Pass it as `known`"),
        ({"static": ["blank"]}, "has none"),
        ({"known": ["blank"]}, "Covariate 'blank' of series 'a' must have a value. All are missing"),
        ({"known": ["wind"]}, "no column 'wind'"),
        ({"observed": ["words"]}, "at most 50 categories. Column 'words' of .* holds 60 different texts"),
    ],
)
def test_unusable_covariates(write, arguments, message):
    rows = "".join(f"a,{day},{day},{day % 2},,w{day}\n" for day in range(60))
    with pytest.raises(DataError, match=message):
        load_panel(write("id,time,value,price,blank,words\n" + rows), **arguments)


def test_other_files_are_refused(write):
    with pytest.raises(
        DataError, match=r"must be a .csv, .tsv, .jsonl or .parquet file. Received: '.*t.ts'. Convert it; labelled"
    ):
        load_panel(write("", "t.ts"))
    with pytest.raises(DataError, match="must be an intact Parquet file"):
        load_panel(write("PAR1", "t.parquet"))
    with pytest.raises(DataError, match="No such file"):
        load_panel("nowhere.csv")
    with pytest.raises(DataError, match="Static covariates need a long table"):
        load_panel(write("time,a,b,c\n1,2,3,4\n"), static=["c"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": ()}, "`times` must hold one value for each of the 1 series. Received: 0"),
        ({"test": ()}, "`test` must hold one value for each"),
        ({"static": np.zeros((2, 1))}, "`static` must hold one value for each"),
        ({"times": (np.arange(2),)}, r"Received for 'a': times \(2,\), values \(3,\)"),
        ({"known": (np.zeros((2, 1)),)}, r"values \(3,\), known \(2, 1\)"),
        ({"observed": (np.zeros((4, 1)),)}, r"values \(3,\), observed \(4, 1\)"),
        ({"observed": (np.zeros(3),)}, r"observed \(3,\)"),
    ],
)
def test_inconsistent_arguments(arguments, message):
    valid = {"name": "p", "ids": ("a",), "times": (np.arange(3),), "values": (np.zeros(3),)}
    Panel(**valid, known=(np.zeros((5, 2)),), observed=(np.zeros((3, 1)),))
    with pytest.raises(ValueError, match=message):
        Panel(**{**valid, **arguments})


def test_a_panel_has_no_split():
    panel = Panel("p", ("a",), (np.arange(3),), (np.zeros(3),))
    with pytest.raises(TypeError, match=r"Received: Panel. Series are split in time"):
        data.split(panel)


def fill(points):
    """Interpolate points {position: value} at each position from the first to the last, one by one."""
    filled = []
    for position in range(min(points), max(points) + 1):
        before = max(each for each in points if each <= position)
        after = min(each for each in points if each >= position)
        share = (position - before) / (after - before) if after > before else 0
        filled.append(points[before] + share * (points[after] - points[before]))
    return filled


points = st.dictionaries(st.integers(0, 8), st.integers(-99, 99), min_size=1, max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(points, min_size=1, max_size=3), st.randoms())
def test_long_and_wide_tables_agree_with_a_loop(write, series, shuffler):
    series = [*series, dict.fromkeys(range(9), 7)]
    months = np.datetime64("2001-11") + np.arange(9)
    rows = [(index, months[position], value) for index, each in enumerate(series) for position, value in each.items()]
    shuffler.shuffle(rows)
    names = list(dict.fromkeys(index for index, _, _ in rows))
    path = write("".join(f"{one},{two},{three}\n" for one, two, three in [("id", "month", "value"), *rows]))
    sparse = any(len(each) * 2 < max(each) - min(each) + 1 for each in series)
    expected = {index: fill(each) for index, each in enumerate(series)}
    if sparse:
        with pytest.raises(DataError, match="At most half of the steps"):
            load_panel(path)
    else:
        panel = load_panel(path)
        assert panel.ids == tuple(map(str, names))
        for index, times, found in zip(names, panel.times, panel.values, strict=True):
            np.testing.assert_allclose(found, expected[index], rtol=1e-6, atol=1e-6)
            assert times.tolist() == (months[min(series[index])] + np.arange(len(found))).tolist()
    lines = [",".join([str(months[row]), *(str(each.get(row, "")) for each in series)]) + "\n" for row in range(9)]
    shuffler.shuffle(lines)
    panel = load_panel(write("month," + ",".join(f"s{index}" for index in range(len(series))) + "\n" + "".join(lines)))
    for index, found in enumerate(panel.values):
        np.testing.assert_allclose(found, expected[index], rtol=1e-6, atol=1e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.csv.gz"]))
def test_any_bytes_are_a_panel_or_a_data_error(write, content, name):
    path = write(b"time,value\n1,2\n" + content, name)
    with contextlib.suppress(DataError):
        assert len(load_panel(path)) > 0
