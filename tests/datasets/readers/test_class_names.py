"""Names and classes are paired in one way only, or refused; files of names in every form."""

from __future__ import annotations

import contextlib
import json
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.utils import DataError, UserError
from datasets.folder import say_names
from datasets.readers.class_names import alike_in_prompts, class_names
from datasets.readers.class_order import number, ordered_classes, other_order, with_plain_numbers
from tests.datasets.helpers_folder import BIRDS, load, make_classes

NUMBERS = [str(n) for n in range(12)]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS.append("eleven")
NAMES = ["raven", "spodger", "blue jay", "jenny"]  # of BIRDS


def named(tmp_path, content: str, classes, file: str = "names.txt", encoding: str = "") -> list:
    (tmp_path / file).write_text(content, encoding="utf-8")
    return class_names(str(tmp_path / file), list(classes), tmp_path, encoding)


def in_order(names) -> list[str]:
    return ordered_classes("data", {"all": [("a.jpg", name) for name in names]})


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write", [str, "{:02d}".format, "{}.0".format, "+{}".format, "{}e0".format, "{:.3f}".format]
)
def test_classes_that_are_numbers_are_in_the_order_of_numbers(write):
    classes = [write(n) for n in range(12)]
    assert in_order(random.Random(0).sample(classes, 12)) == classes


def test_numbers_need_not_be_without_gaps_in_folders():
    assert in_order(["100", "20", "3"]) == ["3", "20", "100"]


def test_one_number_written_in_two_ways():
    with pytest.raises(DataError, match=r"'1' and '1\.0' are one number"):
        in_order(["1", "1.0", "2"])
    parts = {"train": [("a", "0"), ("b", "0.0"), ("c", "01"), ("d", "1")]}
    plain = with_plain_numbers("labels.csv", parts)
    assert [label for _, label in plain["train"]] == ["0", "0", "1", "1"]


@pytest.mark.parametrize("label", ["1e9", "1000000000", "9007199254740991"])
def test_a_huge_label_is_refused_at_once(label):
    with pytest.raises(DataError, match=r"without 1, 2, 3 and .* more; count"):
        with_plain_numbers("labels.csv", {"train": [("a", "0"), ("b", label)]})


@pytest.mark.parametrize(
    "text", ["9" * 5000, "1e400", "nan", "inf", "1_0", "0x10", "1.5", "", "-", "²", "1 2", "٣٫٥"]
)
def test_what_is_no_whole_number(text):
    assert number(text) is None


@pytest.mark.parametrize(
    ("classes", "other"),
    [
        (["class1", "class10", "class2"], ["class1", "class2", "class10"]),
        (["Apple", "Cherry", "banana"], ["Apple", "banana", "Cherry"]),
        (["Zebra", "ape", "Éclair"], ["ape", "Éclair", "Zebra"]),
        (["blue_jay", "bluebird"], ["bluebird", "blue_jay"]),
        (["1", "10", "2", "other"], ["1", "2", "10", "other"]),
        (list(BIRDS), None),
        (NUMBERS, None),
    ],
)
def test_a_list_is_refused_where_people_may_order_the_classes_otherwise(classes, other, tmp_path):
    assert other_order(classes) == other
    names = [f"name {i}" for i in range(len(classes))]
    if other is None:
        assert class_names(names, classes, tmp_path) == names
        return
    with pytest.raises(DataError, match=r"can be ordered in two ways.*class<tab>name"):
        class_names(names, classes, tmp_path)
    assert class_names(dict(zip(classes, names)), classes, tmp_path) == names
    assert class_names(classes, classes, tmp_path) == classes


@pytest.mark.parametrize("form", ["list", "text", "json", "inline"])
def test_names_of_numbers_in_numeric_order(tmp_path, form):
    (tmp_path / "n.txt").write_text("\n".join(WORDS))
    (tmp_path / "n.json").write_text(json.dumps(WORDS))
    setting = {"list": WORDS, "text": "n.txt", "json": "n.json", "inline": ",".join(WORDS)}[form]
    assert class_names(setting, NUMBERS, tmp_path) == WORDS


# --- what a file may hold -------------------------------------------------------------------------


def pairs(separator: str) -> str:
    return "\n".join(f"{c}{separator}{n}" for c, n in zip(BIRDS, NAMES))


@pytest.mark.parametrize(
    "separator", ["\t", " ", ",", ";", ", ", ": ", " = ", " -> ", " | ", "   "]
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_lines_that_begin_with_classes(tmp_path, separator, shuffled):
    lines = pairs(separator).splitlines()
    if shuffled:
        random.Random(3).shuffle(lines)
    assert named(tmp_path, "\n".join(lines), BIRDS) == NAMES


def test_classes_with_blanks_at_the_start_of_a_line(tmp_path):
    classes = ["house", "house finch", "house sparrow"]
    text = "house sparrow spodger\nhouse finch linnet\nhouse building"
    assert named(tmp_path, text, classes) == ["building", "linnet", "spodger"]


def test_columns_with_a_header_and_quotes(tmp_path):
    text = 'folder,name\ncrow,"raven, black"\nhouse_sparrow,spodger\njay,blue jay\nwren,jenny\n'
    assert named(tmp_path, text, BIRDS, "names.csv") == ["raven, black", *NAMES[1:]]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "content",
    [
        lambda numbered: json.dumps({str(i): name for i, name in numbered}),
        lambda numbered: json.dumps({name: i for i, name in numbered}),
        lambda numbered: json.dumps({"class_to_idx": {name: i for i, name in numbered}}),
        lambda numbered: json.dumps({"nc": 4, "names": [name for _, name in sorted(numbered)]}),
        lambda numbered: "\n".join(f"{i}: {name}" for i, name in numbered),
        lambda numbered: "\n".join(f"{i}. {name}" for i, name in numbered),
        lambda numbered: "\n".join(f"{i}\t{name}" for i, name in numbered),
        lambda numbered: "\n".join(f"{name} {i}" for i, name in numbered),
        lambda numbered: "id,name\n" + "\n".join(f"{i},{name}" for i, name in numbered),
    ],
)
def test_names_with_their_labels(tmp_path, content, first):
    numbered = list(enumerate(NAMES, first))
    random.Random(5).shuffle(numbered)
    assert named(tmp_path, content(numbered), BIRDS) == NAMES


def test_class_to_idx_of_the_classes_themselves(tmp_path):
    """Another tool's numbering of the same classes: they keep their names."""
    text = json.dumps({name: i for i, name in enumerate(reversed(BIRDS))})
    assert named(tmp_path, text, BIRDS) == list(BIRDS)


def test_labels_meet_classes_that_are_numbers(tmp_path):
    for text in (
        json.dumps({name: i for i, name in enumerate(WORDS)}),
        json.dumps({str(i): name for i, name in reversed(list(enumerate(WORDS)))}),
        "\n".join(f"{i} {name}" for i, name in reversed(list(enumerate(WORDS)))),
        "\n".join(f"{i:02d}\t{name}" for i, name in enumerate(WORDS)),
    ):
        assert named(tmp_path, text, NUMBERS) == WORDS


def test_a_list_of_the_classes_in_another_order(tmp_path, capsys):
    given = ["Wren", "jay", "House Sparrow", "crow"]
    assert class_names(given, list(BIRDS), tmp_path) == given[::-1]
    assert "lists the classes in another order; matched by name" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"has 'wren' at place 1, where the class is 'crow'"):
        class_names(["wren", "a", "b", "c"], list(BIRDS), tmp_path)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_in_either_form(tmp_path, form):
    text = unicodedata.normalize(form, "Zaunkönig\twren\nDrossel\tthrush")
    assert named(tmp_path, text, ["Drossel", "Zaunkönig"]) == ["thrush", "wren"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("n.txt", "a\nb\nc", "has 3 names, but the data has 4 classes"),
        ("n.txt", "0 a\n1 b\n2 c", "has 3 names, but the data has 4 classes"),
        ("n.json", '["a", "b", "c", "d", "e"]', "has 5 names, but the data has 4 classes"),
        ("n.json", '{"a": 0, "b": 1, "c": 2}', "has 3 names, but the data has 4 classes"),
        ("n.json", '{"crow": "a", "owl": "b"}', r"\(1\): owl"),
        ("n.json", '{"crow": 7, "jay": 9}', "gives numbers"),
        ("n.json", '{"crow": ["a"], "jay": ["b"]}', r"holds \['a'\] where a name is meant"),
        ("n.json", '["a", null, "c", "d"]', "holds None where a name is meant"),
        ("n.json", '["a", true, "c", "d"]', "holds True where a name is meant"),
        ("n.json", '{"crow": "a", "crow": "b"}', "the key 'crow' is there twice"),
        ("n.json", "[" * 100_000, "is not valid JSON"),
        ("n.json", "9" * 5000, r"is not valid JSON|is \d+"),
        ("n.json", '"text"', "DATASET.CLASSNAMES is 'text'"),
        ("n.txt", "crow\ta\ncrow\tb", "names crow more than once"),
        ("n.txt", "crow a\njay b\nwren c\nall the rest", "but 'all the rest' does not"),
        ("n.txt", "a" * 3000, "more than 500 letters"),
        ("n.txt", "", r"is \[\]"),
        ("n.yaml", "- a\n- b\n- c\n- d", "of a kind that is not read"),
        ("n.json", '["a", "_", "c", "d"]', "the name of class 'house_sparrow' is blank"),
    ],
)
def test_what_does_not_match_is_refused(tmp_path, file, content, message):
    with pytest.raises(DataError, match=message):
        named(tmp_path, content, BIRDS, file)


def test_labels_from_1_do_not_meet_classes_from_0(tmp_path):
    with pytest.raises(DataError, match=r"does not have \(1\): 12"):
        named(tmp_path, json.dumps({name: i for i, name in enumerate(WORDS, 1)}), NUMBERS)


# --- encodings ------------------------------------------------------------------------------------

GERMAN, CHINESE = ["Krähe", "Spatz", "Häher", "Zaunkönig"], ["乌鸦", "麻雀", "松鸦", "鹪鹩"]


@pytest.mark.parametrize("names", [GERMAN, CHINESE])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_the_file_tells(tmp_path, names, ending, encoding):
    (tmp_path / "n.txt").write_bytes(ending.join(names).encode(encoding))
    assert class_names("n.txt", list(BIRDS), tmp_path) == names


@pytest.mark.parametrize(
    ("names", "encoding"), [(GERMAN, "latin-1"), (CHINESE, "gbk"), (CHINESE, "big5")]
)
def test_encodings_that_only_the_user_can_tell(tmp_path, names, encoding):
    (tmp_path / "n.txt").write_bytes("\n".join(names).encode(encoding, "replace"))
    with pytest.raises(DataError, match=r"n\.txt is not UTF-8 text.*DATASET.ENCODING latin-1"):
        class_names("n.txt", list(BIRDS), tmp_path)
    found = class_names("n.txt", list(BIRDS), tmp_path, encoding)
    assert found == [name.encode(encoding, "replace").decode(encoding) for name in names]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(tmp_path, encoding):
    (tmp_path / "n.txt").write_bytes("\n".join(GERMAN).encode(encoding))
    assert class_names("n.txt", list(BIRDS), tmp_path) == GERMAN


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", ""])
def test_an_encoding_that_is_none(tmp_path, encoding):
    (tmp_path / "n.txt").write_bytes(b"\xe4\x00\xf6\x00\xfc")
    with pytest.raises(DataError, match=r"DATASET\.ENCODING"):
        class_names("n.txt", list(BIRDS), tmp_path, encoding)


def test_a_file_that_is_there_twice(tmp_path, monkeypatch):
    """In the folder where one stands, and in the dataset's."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (tmp_path, tmp_path / "here"):
        (place / "n.txt").write_text("a\nb\nc\nd")
    assert class_names("n.txt", list(BIRDS), tmp_path) == ["a", "b", "c", "d"]
    (tmp_path / "n.txt").write_text("d\nc\nb\na")
    with pytest.raises(DataError, match=r"n\.txt is there twice, as .*here/n\.txt and as"):
        class_names("n.txt", list(BIRDS), tmp_path)


def test_quotes_around_every_name(tmp_path):
    assert named(tmp_path, "'a'\n'b b'\n'c'\n'd'", BIRDS) == ["a", "b b", "c", "d"]
    assert named(tmp_path, "'a'\nb\nc\nd", BIRDS) == ["'a'", "b", "c", "d"]


def test_numbers_and_a_word(capsys):
    assert in_order(["0", "1", "NaN"]) == ["0", "1", "NaN"]
    assert "most classes are numbers, but not NaN" in capsys.readouterr().out


# --- prompts --------------------------------------------------------------------------------------


def test_two_classes_with_one_prompt(tmp_path, capsys):
    root = make_classes(tmp_path, 4, ("Three", "my digit", "my_digit", "other", "three"))
    assert load(root).num_classes == 5
    out = capsys.readouterr().out
    assert "classes with one and the same prompt: 'Three' = 'three', 'my digit' = 'my_digit'" in out
    assert out.count("one and the same prompt") == 1
    assert alike_in_prompts(["a  b", "a b", "a &amp; b", "a & b", "A-B"]) == [
        ["a  b", "a b"],
        ["a &amp; b", "a & b"],
    ]


def test_the_pairing_is_logged_and_kept(tmp_path, capsys):
    made = load(make_classes(tmp_path, 4), CLASSNAMES="a,b,c,d")
    assert "crow -> a, house_sparrow -> b, jay -> c, wren -> d" in capsys.readouterr().out
    assert made.provenance["class_names"] == [list(pair) for pair in zip(BIRDS, "abcd")]
    many = make_classes(tmp_path / "many", 3, [f"c{i:02d}" for i in range(40)])
    load(many)
    assert "and 28 more" in capsys.readouterr().out


# --- any input ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=400), st.sampled_from(["n.txt", "n.json", "n.csv"]))
def test_any_bytes(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(content)
    try:
        names = class_names(name, list(BIRDS), folder)
        assert len(names) == 4 and all(text.strip() for text in names)
    except UserError:
        pass
    assert [path.name for path in folder.iterdir()] == [name]


@settings(max_examples=300, deadline=2000)
@given(st.data())
def test_valid_files_with_a_few_changes(tmp_path_factory, data):
    """What comes back has a name a class, or is our own error."""
    folder = tmp_path_factory.mktemp("any")
    valid = data.draw(
        st.sampled_from(
            [
                pairs("\t"),
                "\n".join(NAMES),
                json.dumps(dict(zip(BIRDS, NAMES))),
                json.dumps({name: i for i, name in enumerate(NAMES)}),
                "\n".join(f"{i}: {name}" for i, name in enumerate(NAMES)),
            ]
        )
    )
    content = bytearray(valid.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    (folder / "n.txt").write_bytes(content)
    with contextlib.suppress(UserError):
        assert len(class_names("n.txt", list(BIRDS), folder)) == 4


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=8, unique=True))
def test_any_classes_with_names_by_class(tmp_path_factory, classes):
    """Names that are given by class come back with their classes, whatever these are called."""
    try:
        ordered = in_order(classes)
    except DataError:
        return
    wanted = {name: f"n{i}" for i, name in enumerate(ordered)}
    try:
        assert class_names(wanted, ordered, tmp_path_factory.getbasetemp()) == list(wanted.values())
    except DataError as error:
        assert "more than once" in str(error) or "both" in str(error)


def test_names_with_characters_that_nobody_sees_are_said(capsys):
    say_names(["a", "b", "c"], ["snow\u200bleopard", "caf\u00e9", "cat\u00ad"])
    out = capsys.readouterr().out
    assert "Note: names with characters that nobody sees, and that CLIP reads: " in out
    assert "(ZERO WIDTH SPACE)" in out and "(SOFT HYPHEN)" in out and "caf\u00e9' (" not in out
    say_names(["a"], ["snow leopard"])
    assert "nobody sees" not in capsys.readouterr().out
