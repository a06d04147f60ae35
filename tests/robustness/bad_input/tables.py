# ruff: noqa: E501 - each message is on one line
"""Tables of tags."""

from tests.robustness.bad_input.case import Case, encoded, text

TAGS = "train --data tags:my.csv --out new"


def table(name: str, what: str, content: str | bytes, message: str, options: str = "") -> Case:
    """A CSV to train on."""
    return Case(name, what, text("my.csv", content), f"train --data tags:my.csv{options} --out new", message)


TABLES = [
    Case(
        "no-csv",
        "a CSV that is not there",
        text("mine.csv", ""),
        TAGS,
        "my.csv: not found; give a CSV file with an image column and a tags column, or one 0/1 column per class; did you mean mine.csv?",
    ),
    Case(
        "folder-csv",
        "a folder for a CSV",
        lambda folder: (folder / "my.csv").mkdir(),
        TAGS,
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "empty-csv",
        "an empty CSV",
        "",
        "my.csv: the first line must name at least two columns, separated by comma, tab or semicolon: image,tags",
    ),
    table("header-csv", "a header and no rows", "image,tags\n", "my.csv: no row has a tag"),
    table(
        "one-column",
        "one column",
        "image\ncat.png\n",
        "my.csv: the first line must name at least two columns, separated by comma, tab or semicolon: image,tags",
    ),
    table(
        "short-row",
        "a row with too few cells",
        "image,tags\ncat.png,cat\ncat.png\n",
        "my.csv: line 3 has 1 columns, the first line 2",
    ),
    table(
        "same-columns",
        "two columns of one name",
        "image,cat,cat\ncat.png,1,0\n",
        "my.csv: the column 'cat' occurs twice",
    ),
    table(
        "nameless-class",
        "a class without a name",
        "image,,cat\ncat.png,1,0\n",
        "my.csv: column 2 has no name in the first line; it is the name of a class",
    ),
    table(
        "spaces",
        "cells separated by spaces",
        "image tags\ncat.png cat\n",
        "my.csv: the first line must name at least two columns, separated by comma, tab or semicolon: image,tags",
    ),
    table(
        "commas",
        "tags separated by commas",
        "image,tags\ncat.png,cat,dog\n",
        "my.csv: line 2 has 3 columns, the first line 2; several tags of an image are separated by ;",
    ),
    table(
        "no-header",
        "a CSV whose first line is an image",
        "cat.png,cat\ncat.png,dog\n",
        "my.csv: the first line must name the columns, as in image,tags; it holds cat.png, cat",
    ),
    table(
        "utf-16",
        "a CSV in UTF-16 without a byte order mark",
        "image,tags\ncat.png,Bär\n".encode("utf-16-le"),
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "latin-1",
        "a CSV in Latin-1",
        "image,tags\ncat.png,Bär\n".encode("latin-1"),
        "my.csv: cannot be read as a CSV in UTF-8: ... (line 2); if it comes from Excel, save it as CSV UTF-8",
    ),
    table(
        "workbook",
        "an Excel workbook for a CSV",
        b"PK\x03\x04\x14\x00\xff\xfe",
        "my.csv: cannot be read as a CSV in UTF-8: ...; it is an Excel workbook or another archive: save the table as CSV UTF-8",
    ),
    table("binary-csv", "an image for a CSV", encoded("PNG"), "my.csv: cannot be read as a CSV in UTF-8: ..."),
    table(
        "open-quote",
        "a quotation mark that is never closed",
        'image,tags\n"cat.png,cat\n' + "a.png,b\n" * 20_000,
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "not-0-1",
        "a 0/1 column that holds something else",
        "image,cat,dog\ncat.png,1,2\n",
        "my.csv: cat.png: column 'dog' holds '2'; allowed are 0 and 1, or a column named tags with tags separated by ; (the first line names the columns). Other columns are left out with label_column=NAME, or label_column=NAME+NAME for several 0/1 columns: tags:my.csv,label_column=cat",
    ),
    table(
        "no-column",
        "an option that names no column",
        "image,breed,owner\ncat.png,siam,me\n",
        "my.csv: label_column 'bred' is unknown; allowed: image, breed, owner; did you mean breed?",
        ",label_column=bred",
    ),
    table(
        "which-column",
        "several columns that may be the tags",
        "image,breed,owner\ncat.png,siam,me\n",
        "my.csv: cat.png: column 'breed' holds 'siam'; allowed are 0 and 1, or a column named tags with tags separated by ; (the first line names the columns). Other columns are left out with label_column=NAME, or label_column=NAME+NAME for several 0/1 columns: tags:my.csv,label_column=owner",
    ),
    table(
        "no-images-folder",
        "a folder of images that is not there",
        "image,tags\ncat.png,cat\n",
        "my.csv: images=photos: no such folder, neither here nor beside the CSV",
        ",images=photos",
    ),
    table("no-tag", "no row with a tag", "image,tags\ncat.png,\n", "my.csv: no row has a tag"),
    table(
        "nameless-image",
        "a row without an image",
        "image,tags,split\n,cat,train\ncat.png,cat,test\n",
        "my.csv: a row has no image: , cat, train",
    ),
    table(
        "two-tags",
        "two tags where one is promised",
        "image,tags\ncat.png,cat;dog\n",
        "my.csv: cat.png has 2 tags; exclusive=yes allows exactly one",
        ",exclusive=yes",
    ),
    table(
        "wrong-share",
        "a share of 2 to hold out",
        "image,tags\ncat.png,cat\n",
        "tags:my.csv,test=2: test must be a fraction between 0 and 1; got 2",
        ",test=2",
    ),
    table(
        "wrong-split",
        "no such split",
        "image,tags,split\ncat.png,cat,trian\ncat.png,cat,test\n",
        "data 'tags:my.csv' has the splits test, trian: name those to train on and to score",
    ),
    table(
        "gone-images",
        "images that are not there",
        "image,tags\na.png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 image checked\n  1 file is missing: b.png\n  2 classes have no positive image: cat, dog\n  no image can be used; names are relative to the folder of the CSV, or to images=DIR behind its name",
    ),
    table(
        "doubled-image",
        "an image in two splits",
        "image,tags,split\ncat.png,cat,train\ncat.png,dog,test\n",
        "my.csv: cat.png is in two splits, 'train' and 'test'",
    ),
    table(
        "nul-name",
        "a NUL in an image's name",
        "image,tags\na\0b.png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 image checked\n  1 file is missing: 'a\\x00b.png'\n  2 classes have no positive image: cat, dog\n  no image can be used; names are relative to the folder of the CSV, or to images=DIR behind its name",
    ),
    table(
        "long-name",
        "an image's name of 5000 characters",
        "image,tags\n" + "a" * 5000 + ".png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 image checked\n  1 image cannot be read: ...\n  2 classes have no positive image: cat, dog\n  no image can be used",
    ),
]
