"""Labels from tables: found, matched to images, or refused with what to do."""

import io
import json
import zipfile

import pytest
from PIL import Image

from ganvas.data.layout import Layout
from ganvas.data.pack import build_pack
from ganvas.data.source_base import UnreadableError
from ganvas.data.sources import open_source
from ganvas.errors import ConfigError, DataError


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()


IMAGES = ("a.png", "b.png", "deep/c.png")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`set`, a folder of IMAGES below the current one; gives a function that writes a table (text or bytes) into it."""
    monkeypatch.chdir(tmp_path)
    for name in IMAGES:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(png())

    def write(name, content):
        (tmp_path / "set" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return write


def labels_of(source):
    assert source.labels is not None
    names = [source.item_name(index).split("/", 1)[-1] for index in range(len(source))]
    return {name: source.class_names[label] for name, label in zip(names, source.labels, strict=True)}


def refused(labels, *words, where="set"):
    with pytest.raises(DataError) as caught:
        open_source(where, labels)
    for word in words:
        assert word in str(caught.value)
    return True


EXPECTED = {"a.png": "cat", "b.png": "dog", "deep/c.png": "cat"}
CSV = "file_name,label\na.png,cat\nb.png,dog\ndeep/c.png,cat\n"
RECORDS = [{"file_name": name, "label": label, "more": {"x": [1]}} for name, label in EXPECTED.items()]


@pytest.mark.parametrize(("name", "content"), [
    ("metadata.csv", CSV),
    ("metadata.csv", "\ufeff" + CSV),
    ("metadata.csv", CSV.encode("utf-16")),
    ("metadata.csv", CSV.replace(",", ";").replace("\n", "\r\n\r\n")),
    ("metadata.csv", 'image,note,Category\n"a.png","one, two",cat\nb.png,,dog\n./deep\\c.png,"x\ny",cat\n'),
    ("metadata.csv", "ID,breed\na,cat\nb,dog\nc,cat\n"),                  # no endings, base names, the only other column
    ("metadata.csv", "picture,label\na.png,cat\nb.png,dog\nother/place/c.png,cat\n"),
    ("metadata.csv", "a.png,cat\nb.png,dog\ndeep/c.png,cat\n"),           # no heading
    ("metadata.tsv", CSV.replace(",", "\t")),
    ("metadata.jsonl", "\n".join(map(json.dumps, RECORDS)) + "\n\n"),
    ("list.json", json.dumps(RECORDS)),
    ("dataset.json", json.dumps({"labels": [*map(list, EXPECTED.items())]})),
    ("dataset.json", json.dumps(EXPECTED)),
    ("labels.txt", "a.png cat\nb.png dog\n\ndeep/c.png cat\n"),
])
def test_a_table_in_any_usual_form_gives_the_labels(folder, name, content):
    folder(name, content)
    source = open_source("set", name)
    assert labels_of(source) == EXPECTED
    assert source.class_names == ("cat", "dog")
    assert source.ignored == []                                            # the table is used, not left out
    assert any(f"of {name}: 2 classes" in note for note in source.notes)
    hint = open_source("set")
    assert hint.labels is None
    assert f"labels found in {name} (2 classes): pass --labels {name} to keep them" in hint.notes
    assert hint.ignored == [(f"set/{name}", f".{name.split('.')[-1]}")]
    assert hint.stamp == source.stamp                                      # labels are no part of it: the pack's key has them


def test_a_table_is_found_by_its_name_in_the_source_by_its_base_name_or_on_disk(folder, tmp_path):
    (tmp_path / "elsewhere.csv").write_text(CSV)
    folder("deep/inner.csv", "file,class\nc.png,cat\n/tmp/b.png,dog\na.png,cat\n")
    assert labels_of(open_source("set", "elsewhere.csv")) == EXPECTED
    assert labels_of(open_source("set", str(tmp_path / "elsewhere.csv"))) == EXPECTED
    assert labels_of(open_source("set", "inner.csv")) == EXPECTED          # names relative to the table's folder
    assert labels_of(open_source("set", "deep/inner.csv:class")) == EXPECTED
    assert labels_of(open_source("set", "set/deep/inner.csv")) == EXPECTED
    (tmp_path / "set" / "other").mkdir()
    folder("deep/z.csv", CSV)
    folder("other/z.csv", CSV)
    assert refused("z.csv", "--labels z.csv: there are 2 of them: ", "deep/z.csv", "Name one with its folder")
    assert refused("none.csv", "--labels none.csv: there is no such file, neither in set nor on disk", "deep/inner.csv")


def test_a_table_in_an_archive_is_found_and_preferred_to_one_of_that_name_on_disk(folder, tmp_path):
    with zipfile.ZipFile("set.zip", "w") as archive:
        for name in IMAGES:
            archive.writestr(f"wrap/{name}", png())
        archive.writestr("wrap/metadata.csv", CSV)
    source = open_source("set.zip", "metadata.csv")
    assert [*labels_of(source).values()] == [*EXPECTED.values()]
    assert any("pass --labels wrap/metadata.csv" in note for note in open_source("set.zip").notes)
    (tmp_path / "wrap").mkdir()
    (tmp_path / "wrap" / "metadata.csv").write_text("file_name,label\n")
    source = open_source("set.zip", "wrap/metadata.csv")
    assert "--labels wrap/metadata.csv is the one in set.zip: write ./wrap/metadata.csv for the file here" in source.notes
    assert refused("./wrap/metadata.csv", "none of its columns names an image", where="set.zip")


def test_stylegans_dataset_json_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"{number // 10:05}/img{number:08}.png", png())
        archive.writestr("dataset.json", json.dumps({"labels": [[f"{n // 10:05}/img{n:08}.png", n] for n in range(12)]}))
    source = open_source(tmp_path / "x.zip", "dataset.json")
    assert source.class_names == tuple(map(str, range(12)))                # by number, not by text
    assert source.labels.tolist() == list(range(12))


def test_a_dataset_json_without_labels_gives_no_hint_and_is_refused(folder):
    folder("dataset.json", '{"labels": null}')
    assert open_source("set").notes == ["1 file ignored: 1 .json"]
    assert refused("dataset.json", "dataset.json: its \"labels\" are null", "--labels none")
    folder("dataset.json", json.dumps({"labels": [[name, [0.5, 1]] for name in IMAGES]}))
    assert refused("dataset.json", "holds lists or objects, but a label is one number or word")


CELEBA = "3\nBald  Smiling Young\na.png -1  1  1\nb.png  1 -1  1\nc.png -1  1 -1\n"


def test_celebas_attributes_are_hinted_at_and_give_labels_one_at_a_time(folder, tmp_path):
    folder("list_attr_celeba.txt", CELEBA)
    note = "3 attributes found in list_attr_celeba.txt: pass --labels list_attr_celeba.txt:Smiling, or another of them"
    assert any(note in line for line in open_source("set").notes)
    source = open_source("set", "list_attr_celeba.txt:Smiling")
    assert [*labels_of(source).values()] == ["Smiling", "not Smiling", "Smiling"]
    assert refused("list_attr_celeba.txt", "several columns may be the labels: Bald, Smiling, Young",
                   "--labels list_attr_celeba.txt:Bald")
    assert refused("list_attr_celeba.txt:Happy", "there is no column 'Happy'", "Bald, Smiling, Young")
    folder("list_attr_celeba.csv", "image_id,Bald,Smiling\na.png,-1,1\nb.png,1,-1\nc.png,-1,1\n")
    assert [*labels_of(open_source("set", "list_attr_celeba.csv:smiling")).values()] == ["Smiling", "not Smiling", "Smiling"]


def test_celebas_pictures_alone_tell_where_their_attributes_are(folder, tmp_path):
    bare = (tmp_path / "set").rename(tmp_path / "img_align_celeba")
    assert any("CelebA's 40 attributes are not here" in note for note in open_source(bare).notes)
    (tmp_path / "list_attr_celeba.txt").write_text(CELEBA)
    wanted = "list_attr_celeba.txt:Smiling"
    assert any(f"pass --labels {tmp_path / wanted}" in note for note in open_source(bare).notes)
    assert [*labels_of(open_source(bare, wanted)).values()] == ["Smiling", "not Smiling", "Smiling"]


def test_several_columns_are_named_with_the_way_to_choose(folder):
    folder("metadata.csv", "file,kind,colour\na.png,x,red\nb.png,y,red\nc.png,x,blue\n")
    assert refused("metadata.csv", "several columns may be the labels: kind, colour", "--labels metadata.csv:kind")
    assert [*labels_of(open_source("set", "metadata.csv:Colour")).values()] == ["red", "red", "blue"]
    assert ("labels found in metadata.csv (columns kind, colour): pass --labels metadata.csv:kind to keep them"
            in open_source("set").notes)
    folder("metadata.csv", "file,label,class\na.png,0,x\nb.png,1,y\nc.png,0,x\n")
    assert refused("metadata.csv", "several columns may be the labels: label, class")
    folder("metadata.csv", "file\na.png\nb.png\nc.png\n")
    assert refused("metadata.csv", "'file' is its only column")


@pytest.mark.parametrize(("content", "words"), [
    ("file,label\na.png,cat\n",
     ["2 of 3 images have no label in its column 'label': b.png, deep/c.png.", "--labels none"]),
    ("file,label\na.png,cat\nb.png,dog\nc.png,dog\n./a,dog\n",
     ["a.png is 'cat' in line 2, but 'dog' in line 5", "one label only"]),
    ("file,label\nx.png,cat\n",
     ["none of its columns names an image here", "file: x.png, label: cat", "the first image is a.png"]),
    ("file,label\na.png,cat,3\n", ["line 2 has 3 fields, but the first row has 2"]),
    ("file,label,label\na.png,1,2\n", ["two of its columns are called 'label'"]),
    ("", ["there is no row in it"]),
    ("file,label\na.png,cat\nb.png,ratón\n".encode("latin-1"), ["line 3 is not UTF-8 text (byte 0xf3)", "UTF-8"]),
    (b"file,label\na.png,\0\n", ["zero bytes"]),
    ("file,label\na.png,0.25\nb.png,1.5\nc.png,3\n", ["'label' holds measurements such as 0.25, not classes"]),
    ("file,label\na.png,cat\nb.png,cat\nc.png,cat\n", ["holds only one value, 'cat'"]),
    ('file,label\n"a.png', ["metadata.csv"]),
])
def test_a_table_that_cannot_give_labels_is_refused_with_the_place(folder, content, words):
    folder("metadata.csv", content)
    assert refused("metadata.csv", "metadata.csv", *words)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.jsonl", '{"file": "a.png", "label": 1}\n{', ["line 2 is no valid JSON"]),
    ("a.jsonl", '[1]', ["line 1 is no record such as"]),
    ("a.jsonl", "\n", ["there is no row in it"]),
    ("a.json", "{", ["is no valid JSON"]),
    ("a.json", "3", ["holds no list of labels"]),
    ("a.json", "[" * 100_000, ["is no valid JSON"]),
    ("a.json", "[[1, 2, 3]]", ["entry 1 is no record"]),
    ("a.txt", "one two three\n", ["neither CelebA's list of attributes nor two columns"]),
])
def test_a_table_that_is_not_of_its_kind_is_refused(folder, name, content, words):
    folder(name, content)
    assert refused(name, name, *words)
    assert open_source("set").labels is None                               # and disturbs nobody who does not ask for it


def test_names_ids_and_captions_are_no_classes(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1100):
        (folder / f"{number}.png").write_bytes(b"")
    rows = [f"{number}.png,{number // 21},person {number % 1050},{number}" for number in range(1100)]
    (folder / "t.csv").write_text("file,group,who,caption\n" + "\n".join(rows))
    assert len(open_source(folder, "t.csv:group").class_names) == 53
    assert refused("t.csv:who", "'who' holds 1,050 different values", "at most 1,000", where=folder)
    (folder / "t.csv").write_text("file,text\n" + "\n".join(f"{number}.png,a picture of {number}" for number in range(1100)))
    assert open_source(folder).notes == ["1 file ignored: 1 .csv"]         # captions are no labels: nothing to hint at
    for number in range(30, 1100):
        (folder / f"{number}.png").unlink()
    assert refused("t.csv", "holds another value for each of 30 images: names or captions", where=folder)


def test_parts_of_a_set_and_coordinates_are_not_hinted_at_as_labels(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.png").write_bytes(b"")
    rows = "".join(f"{number}.png {number // 2} {number % 150}\n" for number in range(300))
    (folder / "list_bbox.txt").write_text(f"300\nx_1 y_1\n{rows}")
    (folder / "list_eval_partition.txt").write_text("".join(f"{number}.png {number % 3}\n" for number in range(300)))
    (folder / "metadata.csv").write_text("file,split\n" + "".join(f"{number}.png,{number % 3}\n" for number in range(300)))
    assert [note for note in open_source(folder).notes if "labels" in note and "split" not in note] == []
    assert refused("metadata.csv", "split says which part of the set", "--labels metadata.csv:split", where=folder)
    assert len(open_source(folder, "metadata.csv:split").class_names) == 3
    assert len(open_source(folder, "list_bbox.txt:x_1").class_names) == 150      # who asks for it gets it


def test_whole_numbers_written_as_floats_are_classes(folder):
    folder("metadata.csv", "file,label\na.png,10.0\nb.png,9.0\nc.png,10\n")
    assert [*labels_of(open_source("set", "metadata.csv")).values()] == ["10", "9", "10"]
    assert open_source("set", "metadata.csv").class_names == ("9", "10")


def test_rows_without_an_image_are_told(folder):
    folder("metadata.csv", CSV + "gone.png,cat\n")
    assert any(note == "1 row of metadata.csv names no image here" for note in open_source("set", "metadata.csv").notes)
    folder("metadata.csv", CSV + "gone.png,cat\nother/a.png,dog\n")        # nor is the other folder's a.png the one here
    source = open_source("set", "metadata.csv")
    assert labels_of(source) == EXPECTED
    assert any(note == "2 rows of metadata.csv name no image here" for note in source.notes)


def test_a_few_images_without_a_label_are_left_out_like_those_that_cannot_be_read(folder):
    folder("metadata.csv", "file,label\na.png,cat\nb.png,\nc.png,dog\n")
    source = open_source("set", "metadata.csv")
    with pytest.raises(UnreadableError, match=r"set/b\.png.*it has no label in the column 'label' of metadata\.csv"):
        source.load(1)
    pack = build_pack(source, Layout(4, 4), skip_bad=True)
    assert pack.skipped == [("set/b.png", "it has no label in the column 'label' of metadata.csv")]
    assert [pack.class_names[label] for label in pack.labels] == ["cat", "dog"]
    before = source.stamp
    folder("metadata.csv", "file,label\na.png,cat\nb.png,cat\nc.png,dog\n")
    assert open_source("set", "metadata.csv").stamp != before


def test_a_base_name_that_two_images_share_needs_the_folder(folder, tmp_path):
    (tmp_path / "set" / "a2").mkdir()
    (tmp_path / "set" / "a2" / "b.png").write_bytes(png())
    folder("metadata.csv", "file,label\na.png,x\nb.png,y\nc.png,x\na2/b.png,x\n")
    assert labels_of(open_source("set", "metadata.csv")) == {"a.png": "x", "a2/b.png": "x", "b.png": "y", "deep/c.png": "x"}
    folder("metadata.csv", "file,label\na.png,x\nelse/b.png,y\nc.png,x\n")
    assert refused("metadata.csv", "2 of 4 images have no label")


@pytest.mark.parametrize("labels", ["folders", "FILE", "metadata.xlsx", "", "a.csvx"])
def test_an_option_that_names_no_table_is_refused_with_the_forms(labels):
    with pytest.raises(ConfigError, match=rf"labels '{labels}': must be none or folder, or a table .*FILE:COLUMN.*\.csv"):
        open_source("digits", labels)


def test_images_without_names_cannot_be_looked_up_in_a_table():
    assert refused("metadata.csv", "digits: --labels metadata.csv needs image files", where="digits")


def test_a_list_of_files_takes_labels_from_a_table_too(folder, tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    source = open_source([f"set/{name}" for name in reversed(IMAGES)], "t.csv")
    assert [source.class_names[label] for label in source.labels] == ["cat", "dog", "cat"]


def test_a_bomb_of_a_table_is_refused_and_not_read_for_a_hint(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        archive.writestr("metadata.csv", bytes(20_000_000))
    assert len(open_source(tmp_path / "x.zip")) == 1
    assert refused("metadata.csv", "its member 'metadata.csv' unpacks from", where=tmp_path / "x.zip")
