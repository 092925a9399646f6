"""Tables of samples: which column is what, what labels are, and the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from torchgraft.data import DataSet, parse_data
from torchgraft.data.folder import FileSamples
from torchgraft.errors import DataError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a folder with img/0.png to img/19.png, each of its own red."""
    (tmp_path / "img").mkdir()
    for number in range(20):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / "img" / f"{number}.png")
    return tmp_path


def table(home: Path, *rows: str, query: str = "", name: str = "labels.csv", **options: object) -> DataSet:
    """Write a table and open it."""
    (home / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return parse_data(f"csv:{home / name}{query}").open(**options)  # type: ignore[arg-type]


def rows(line: str, count: int = 20) -> list[str]:
    """Repeat a line with {n} as the number of the image and {odd} as whether it is odd."""
    return [line.format(n=n, odd=n % 2, three=n % 3, word=("cat", "dog")[n % 2]) for n in range(count)]


def test_paths_and_words_are_images_and_classes(home: Path) -> None:
    data = table(home, "path,label", *rows("img/{n}.png,{word}"))
    assert (data.kind, data.task, data.classes) == ("image", "classes", ("cat", "dog"))
    assert (data.channels, data.size, data.skipped, data.notes) == (3, (4, 6), (), ())
    assert (len(data.train), len(data.val), data.split) == (16, 4, "made: 20 % of each class, seed 0")
    for half in (data.train, data.val):
        for place in range(len(half)):
            image, label = half[place]
            assert image.getpixel((0, 0))[0] % 2 == label == half.labels[place]


def test_a_path_that_ends_in_csv_needs_no_scheme(home: Path) -> None:
    table(home, "path,label", *rows("img/{n}.png,{word}"))
    assert str(parse_data(str(home / "labels.csv"))) == f"csv:{home / 'labels.csv'}"


@pytest.mark.parametrize(
    ("name", "header", "line", "query"),
    [
        ("a.csv", ["Filename,Category"], "img/{n}.png,{word}", ""),
        ("a.csv", ["a,b,c"], "7,img/{n}.png,{word}", "?label=c"),
        ("a.csv", ["img,kind,more"], "img/{n}.png,{word},x", "?path=IMG&label=Kind"),
        ("a.csv", [], "img/{n}.png,{word}", ""),
        ("a.csv", ["", ";path;label"][1:], "{n};img/{n}.png;{word}", ""),
        ("a.csv", ["path/label"], "img_{n}.png/{word}", "?sep=/&root={home}/flat"),
        ("a.tsv", ["path\tlabel"], "img/{n}.png\t{word}", ""),
        ("a.csv", ["image_id,label"], "{n},{word}", "?root={home}/img"),
        ("a.csv", ["path,label"], "img\\{n}.png,{word}", ""),
    ],
)
def test_columns_are_found_by_name_or_content_or_are_said(
    home: Path, name: str, header: list[str], line: str, query: str
) -> None:
    (home / "flat").mkdir()
    for number in range(20):
        (home / "flat" / f"img_{number}.png").write_bytes((home / "img" / f"{number}.png").read_bytes())
    data = table(home, *header, *rows(line), name=name, query=query.format(home=home))
    assert (data.classes, len(data.train) + len(data.val), data.kind) == (("cat", "dog"), 20, "image")
    assert isinstance(data.train.samples if hasattr(data.train, "samples") else data.train, FileSamples)


def test_quoted_cells_marks_of_order_and_blank_lines_are_read(home: Path) -> None:
    data = table(home, "\ufeffpath,label", "", *rows('"img/{n}.png","a, {word}"'), "")
    assert data.classes == ("a, cat", "a, dog")


def test_a_column_of_joined_words_is_several_labels(home: Path) -> None:
    lines = [f"img/{n}.png,{('red', 'red|round', '', 'wet | red')[n % 4]}" for n in range(20)]
    data = table(home, "path,labels", *lines)
    assert (data.task, data.classes) == ("labels", ("red", "round", "wet"))
    assert set(data.train.labels) == {(1, 0, 0), (1, 1, 0), (0, 0, 0), (1, 0, 1)}
    assert data.notes == ("5 samples have none of the labels",)
    assert data.split == "made: 20 % of the samples, seed 0"


def test_columns_of_nought_and_one_are_several_labels(home: Path) -> None:
    data = table(home, "path,red,round", *rows("img/{n}.png,{odd},1"))
    assert (data.task, data.classes) == ("labels", ("red", "round"))
    assert set(data.train.labels) == {(0, 1), (1, 1)}


def test_columns_with_one_1_a_row_are_classes_if_that_is_said(home: Path) -> None:
    lines = [f"img/{n}.png,{n % 2},{1 - n % 2}" for n in range(20)]
    assert table(home, "path,odd,even", *lines).notes == (
        "each row has exactly one of its labels: task=classes makes classes of them",
    )
    data = table(home, "path,odd,even", *lines, query="?task=classes")
    assert (data.task, data.classes, set(data.train.labels)) == ("classes", ("odd", "even"), {0, 1})


def test_whole_numbers_that_come_up_again_are_classes_and_fractions_are_quantities(home: Path) -> None:
    assert table(home, "path,label", *rows("img/{n}.png,{three}")).classes == ("0", "1", "2")
    data = table(home, "path,grams", *rows("img/{n}.png,{n}.5"))
    assert (data.task, data.classes, data.train.labels[0]) == ("regression", ("grams",), (0.5,))


def test_what_whole_numbers_were_taken_for_is_said(home: Path) -> None:
    classes = table(home, "path,age", *rows("img/{n}.png,{odd}7"))
    assert classes.classes == ("07", "17")
    assert classes.notes == (
        "the 2 whole numbers of column 'age' are taken as classes: task=regression takes them as quantities",
    )
    quantities = table(home, "path,price", *rows("img/{n}.png,{n}00"))
    assert quantities.task == "regression"
    assert "hardly come up twice" in quantities.notes[0]
    assert table(home, "path,age", *rows("img/{n}.png,{odd}7"), query="?task=regression").task == "regression"


def test_several_quantities_are_several_numbers(home: Path) -> None:
    data = table(home, "path,x,y2", *rows("img/{n}.png,{n}.5,-{n}"), query="?task=regression")
    assert (data.task, data.classes) == ("regression", ("x", "y2"))
    assert data.train.labels[1] == (1.5, -1.0)


def test_whole_numbers_that_went_through_a_table_with_gaps_are_classes(home: Path) -> None:
    assert table(home, "path,label", *rows("img/{n}.png,{three}.0")).classes == ("0", "1", "2")


def test_a_split_column_is_taken_as_it_stands_and_test_stays_unseen(home: Path) -> None:
    lines = [f"img/{n}.png,{'ab'[n % 2]},{('train', 'train', 'Valid', 'test')[n // 2 % 4]}" for n in range(20)]
    data = table(home, "path,label,split", *lines)
    assert (len(data.train), len(data.val)) == (12, 4)
    assert data.split == "stated: column 'split'; 4 rows of test are left unseen"


def test_a_test_part_judges_where_there_is_no_other(home: Path) -> None:
    lines = [f"img/{n}.png,{'ab'[n % 2]},{'train' if n < 14 else 'test'}" for n in range(20)]
    assert len(table(home, "path,label,set", *lines).val) == 6


def test_a_column_that_says_which_rows_validate_is_a_split(home: Path) -> None:
    lines = [f"img/{n}.png,{'ab'[n % 2]},{n >= 14}" for n in range(20)]
    assert len(table(home, "path,label,is_valid", *lines).val) == 6


def test_a_class_that_never_trains_is_refused_and_one_never_judged_is_said(home: Path) -> None:
    lines = rows("img/{n}.png,{word},train", 10)
    with pytest.raises(DataError, match=r"classes that no training row has \(1\): cow"):
        table(home, "path,label,split", *lines, "img/11.png,cow,val")
    data = table(home, "path,label,split", *lines, "img/11.png,cat,val")
    assert data.split.endswith("never validated (1): dog")


def test_texts_and_labels_are_found(home: Path) -> None:
    data = table(home, "id,review,sentiment", *rows('{n},"well, {n}\nyes",{word}'))
    assert (data.kind, data.task, data.channels, data.size) == ("text", "classes", 0, (0, 0))
    assert data.train[0] == ("well, 0\nyes", 0)
    assert len(data.train) == 16


def test_sentences_are_texts_whatever_their_column_is_called(home: Path) -> None:
    data = table(home, "what,how", *rows("this is number {n},{word}"))
    assert (data.kind, data.classes) == ("text", ("cat", "dog"))


def test_rows_that_are_no_samples_are_skipped_with_their_lines(home: Path) -> None:
    (home / "img" / "3.png").write_bytes(b"words")
    lines = rows("img/{n}.png,{word}")
    lines[5] = "img/5.png,"
    data = table(home, "path,label", *lines, "img/99.png,cat", ",cat")
    assert data.skipped == (
        "line 5: img/3.png: no image of a kind that can be read, whatever '.png' says",
        "line 7: no label",
        "line 22: img/99.png: No such file or directory",
        "line 23: no path",
    )
    assert len(data.train) + len(data.val) == 18
    with pytest.raises(DataError, match=r"rows that are no samples \(4\): line 5"):
        table(home, "path,label", *lines, "img/99.png,cat", ",cat", strict=True)


def test_a_number_that_is_missing_is_skipped(home: Path) -> None:
    data = table(
        home,
        "path,grams",
        "img/0.png,nan",
        "img/1.png,1.5",
        "img/2.png,NA",
        "img/3.png,2.5",
        query="?task=regression",
    )
    assert (len(data.train) + len(data.val), data.skipped) == (2, ("line 2: no label", "line 4: no label"))


def test_a_file_that_comes_up_again_is_said(home: Path) -> None:
    data = table(home, "path,label", *rows("img/{n}.png,{word}"), "img/0.png,dog")
    assert data.notes[-1].startswith("a row names a file that an earlier one names")


def test_the_split_depends_neither_on_the_order_of_the_rows_nor_on_the_folder(home: Path) -> None:
    lines = rows("img/{n}.png,{word}")
    one = table(home, "path,label", *lines)
    two = table(home, "path,label", *reversed(lines))
    assert {half[n][0].getpixel((0, 0)) for half in [one.val] for n in range(4)} == {
        half[n][0].getpixel((0, 0)) for half in [two.val] for n in range(4)
    }


@pytest.mark.parametrize(
    ("text", "query", "said"),
    [
        (["path,label", "img/0.png,a", "img/1.png,a,b"], "", r"line 3 of labels.csv has 3 columns, the first one 2"),
        (["path,label", 'img/0.png,"a'], "", r"line 2 of labels.csv can't be read"),
        (["path,label"], "", "has a header and no rows"),
        ([""], "", "is empty"),
        (["path,path,label", "img/0.png,b,a"], "", "line 1 of labels.csv names 'path' twice"),
        (["path,label", "img/x.png,a", "img/y.png,b"], "", r"no row of labels.csv is a sample \(2\): line 2: img/x.png: No such file(.|\n)*root=FOLDER"),
        (["path,label", "img/0.png,a", "img/1.png,a"], "", "there is one class only, 'a'"),
        (["path,label", "img/0.png,a", "img/1.png,b"], "?label=lable", r"no column 'lable'(.|\n)*mean label"),
        (["path,label", "img/0.png,a", "img/1.png,b"], "?lable=label", r"no setting 'lable'(.|\n)*mean label"),
        (["path,label", "img/0.png,a", "img/1.png,b"], "?task=clases", r"no task 'clases'(.|\n)*mean classes"),
        (["path,label", "img/0.png,a", "img/1.png,b"], "?path=path&label=path", r"'path' is asked for twice"),
        (["path,label", "img/0.png,1.5", "img/1.png,many"], "?task=regression", r"line 3 of labels.csv has 'many', which is no quantity"),
        (["path,a,b", "img/0.png,1,0", "img/1.png,1,2"], "?label=a,b&task=labels", r"line 3 of labels.csv has '2' for 'b', not 0 or 1"),
        (["path,a,b", "img/0.png,1,0", "img/1.png,1,1"], "?label=a,b&task=classes", r"line 3 of labels.csv has 2 classes, not one"),
        (["path,colour,shape", "img/0.png,x,y", "img/1.png,z,w"], "", r"columns colour, shape may be the label(.|\n)*label=A,B"),
        (["path,label,part", "img/0.png,x,train", "img/1.png,z,tset"], "?split=part", r"line 3 of labels.csv is in 'tset'"),
        (["path,label,split", "img/0.png,x,val", "img/1.png,z,val"], "", r"no row to train on"),
        (["one,two", "1,2", "3,4"], "", r"names images that are there, or holds texts(.|\n)*path=COLUMN"),
        (["path,label", "img/0.png,a"], "?text=path&path=path", "both path= and text="),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(home: Path, text: list[str], query: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        table(home, *text, query=query)


def test_a_file_that_is_not_there_or_no_text_is_refused(home: Path) -> None:
    (home / "labels.csv").write_bytes(b"path,label\nimg/0.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"not in UTF-8: line 2"):
        parse_data(f"csv:{home / 'labels.csv'}").open()
    with pytest.raises(DataError, match=r"there is no file(.|\n)*mean labels.csv"):
        parse_data(f"csv:{home / 'lables.csv'}").open()
    with pytest.raises(DataError, match=r"is a folder, not a table"):
        parse_data(f"csv:{home}").open()


def test_a_copy_of_a_training_image_never_validates_where_the_split_is_drawn(home: Path) -> None:
    for number in range(10, 20):
        (home / "img" / f"{number}.png").write_bytes((home / "img" / f"{number - 10}.png").read_bytes())
    data = table(home, "path,label", *rows("img/{n}.png,{word}"), seed=3)
    trained = {data.train[place][0].getpixel((0, 0)) for place in range(len(data.train))}
    judged = {data.val[place][0].getpixel((0, 0)) for place in range(len(data.val))}
    assert not trained & judged
    assert judged
    assert data.shared == 0


def test_copies_in_a_stated_split_are_counted(home: Path) -> None:
    (home / "img" / "15.png").write_bytes((home / "img" / "3.png").read_bytes())
    lines = [f"img/{n}.png,{'ab'[n % 2]},{'train' if n < 14 else 'val'}" for n in range(20)]
    assert table(home, "path,label,split", *lines).shared == 1
    texts = [f"text {n % 18},{'ab'[n % 2]},{'train' if n < 14 else 'val'}" for n in range(20)]
    assert table(home, "text,label,split", *texts).shared == 2


def test_the_line_of_excel_that_names_the_delimiter_is_no_row(home: Path) -> None:
    data = table(home, "sep=;", "path;label", *(f"img/{n}.png;{'cat' if n % 2 else 'dog'}" for n in range(20)))
    assert (data.classes, len(data.train) + len(data.val), data.skipped) == (("cat", "dog"), 20, ())


def test_quantities_that_are_missing_are_skipped_whatever_stands_there(home: Path) -> None:
    cells = {3: "NA", 4: "nan", 5: ""}
    data = table(home, "path,grams", *(f"img/{n}.png,{cells.get(n, n * 1.5)}" for n in range(20)))
    assert (data.task, len(data.train) + len(data.val)) == ("regression", 17)
    assert data.skipped[0] == "line 5: no label"


@pytest.mark.parametrize(
    ("cell", "said"), [("inf", "'inf', which is no"), ("1,5", "with a point"), ("x", "line 6")]
)
def test_a_cell_among_numbers_that_is_none_is_an_error_and_no_class(home: Path, cell: str, said: str) -> None:
    lines = ["path;grams", *(f"img/{n}.png;{cell if n == 4 else n * 1.5}" for n in range(20))]
    with pytest.raises(DataError) as caught:
        table(home, *lines)
    assert said in str(caught.value)


def test_labels_may_be_parted_by_commas_where_several_are_asked_for(home: Path) -> None:
    lines = ["path,tags", *(f'img/{n}.png,"{("red", "red, round", "round")[n % 3]}"' for n in range(18))]
    asked = table(home, *lines, query="?task=labels")
    assert (asked.task, asked.classes, asked.notes) == (
        "labels",
        ("red", "round"),
        ("the labels of a cell are parted by ','",),
    )
    (doubt,) = table(home, *lines).notes
    assert doubt == "'red, round' is taken as one class: task=labels takes its parts as several labels"


def test_names_that_may_not_be_meant_as_classes_are_told(home: Path) -> None:
    names = ("Cat", "cat", "NA")
    notes = table(home, "path,label", *(f"img/{n}.png,{names[n % 3]}" for n in range(18))).notes
    assert [note.split(" ")[0] for note in notes] == ["'NA'", "'Cat'"]


def test_columns_that_are_not_read_are_told(home: Path) -> None:
    lines = ["path,label,weight", *(f"img/{n}.png,{'cat' if n % 2 else 'dog'},{n}" for n in range(20))]
    said = "column 'path' is taken as path, 'label' as label, weight is not read: path= and label= say others"
    assert table(home, *lines).notes == (said,)
    assert table(home, *lines, query="?label=label").notes == ()


@pytest.mark.parametrize("text", ["./x.csv", "./x.csv?label=kind", "folder/x.TSV?label=kind&split=part"])
def test_a_bare_table_is_one_with_options_as_without(text):
    assert str(parse_data(text)) == f"csv:{text}"
