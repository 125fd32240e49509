"""Emoji are prepared from two npm packages, here made on the spot of colored squares."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.errors import DataError
from experiments import prepare
from experiments.preparing import emoji
from experiments.scoring import galleries

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0), "black": (0, 0, 0)}
SHAPES = [f"shape {word}" for word in "abcdefghij"]
NAMES = [f"{color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)]


def png(color):
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((*color, 255), (0, 0, 32, 64))  # the right half is transparent
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def svg(color):
    rect = f'<rect width="36" height="72" fill="rgb{color}"/>'
    return f'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">{rect}</svg>'.encode()


def rows():
    found = [
        {"hexcode": f"{0x1F600 + i:X}-FE0F", "annotation": name, "group": "symbols"}
        for i, name in enumerate(NAMES)
    ]
    return [*found, {"hexcode": "E000", "annotation": "a logo", "group": "extras-openmoji"}]


def files_of(package):
    color_of = {
        row["hexcode"]: COLORS.get(row["annotation"].split()[0], (9, 9, 9)) for row in rows()
    }
    if package == "openmoji":
        drawn = {f"color/svg/{code}.svg": svg(color) for code, color in color_of.items()}
        drawn |= {"data/openmoji.json": json.dumps(rows()).encode(), "LICENSE.txt": b"share alike"}
    else:
        twitter = {code.lower(): color for code, color in color_of.items() if code != "1F601-FE0F"}
        drawn = {f"img/twitter/64/{code}.png": png(color) for code, color in twitter.items()}
        drawn["LICENSE"] = b"permissive"
    return {**drawn, "package.json": json.dumps({"name": package}).encode(), "index.js": b"code"}


def write_package(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def prepared(folder, **changed):
    """Run the command on packages of which some files are changed, or left out by None."""
    flags = []
    for package in emoji.PACKAGES:
        files = files_of(package) | changed.get(package.replace("-", "_"), {})
        files = {name: content for name, content in files.items() if content is not None}
        flags += ["--archive", str(write_package(folder / f"{package}.tgz", files))]
    return prepare.main(["prepare", "emoji", "--data_dir", str(folder / "sets"), *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("resvg_py")
    folder = tmp_path_factory.mktemp("emoji")
    assert prepared(folder) == 0
    return folder / "sets"


def test_pictures_have_the_color_of_their_name_on_white_in_both_styles(folder):
    with np.load(folder / "emoji.npz", allow_pickle=False) as arrays:
        for prefix in ("", "test_"):
            image, text = arrays[f"{prefix}image"], arrays[f"{prefix}text"]
            assert image.shape[1:] == (32, 32, 3)
            color = [COLORS[name.split()[0]] for name in text.tolist()]
            np.testing.assert_array_equal(image[:, 16, 8], color)
            np.testing.assert_array_equal(image[:, 16, 24], 255)
        pairs = [*zip(arrays["text"].tolist(), arrays["style"].tolist(), strict=True)]
        assert ("red shape b", "openmoji") in pairs
        assert ("red shape b", "twitter") not in pairs  # that package lacks it
        assert ("red shape c", "twitter") in pairs
        assert "a logo" not in {*arrays["text"].tolist(), *arrays["test_text"].tolist()}


def test_held_out_emoji_are_new_and_all_their_words_taught(folder):
    with np.load(folder / "emoji.npz", allow_pickle=False) as arrays:
        train, test = set(arrays["text"].tolist()), set(arrays["test_text"].tolist())
    assert test
    assert not train & test
    assert train | test < set(NAMES)  # a few have words that too few others have
    for word in {word for name in test for word in name.split()}:
        assert sum(word in name.split() for name in train) >= 3


def test_a_prepared_set_is_searched_by_style(folder):
    loaded = data.load("arrays", batch_size=2, data_dir=folder / "emoji.npz")
    assert loaded.styles == ("openmoji", "twitter")
    found = galleries.galleries(loaded)
    assert [gallery.name for gallery in found] == ["openmoji", "twitter"]
    assert sum(len(gallery.rows) for gallery in found) == len(loaded.test["id"])
    for gallery in found:
        assert (gallery.strict_NM.sum(axis=1) == 1).all()


def test_the_licenses_lie_beside_it_and_it_is_prepared_once(folder, capsys):
    text = (folder / "emoji-LICENSES.txt").read_text()
    assert "share alike" in text
    assert "permissive" in text
    assert "CC BY-SA 4.0" in text
    assert prepare.main(["prepare", "emoji", "--data_dir", str(folder)]) == 0
    assert "already prepared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"openmoji": {"package.json": b'{"name": "left-pad"}'}}, "is the package 'left-pad'"),
        ({"openmoji": {"package.json": None}}, "as an npm package"),
        ({"openmoji": {"data/openmoji.json": b"[]"}}, "names no emoji"),
        (
            {"emoji_datasource_twitter": {"img/twitter/64/1f602-fe0f.png": b"no picture"}},
            "cannot read package/img/twitter/64/1f602-fe0f.png",
        ),
        ({"openmoji": {"color/svg/1F601-FE0F.svg": b"<svg"}}, "cannot read package/color/svg"),
    ],
)
def test_packages_that_are_not_what_they_should_be_are_refused(tmp_path, changed, message):
    pytest.importorskip("resvg_py")
    with pytest.raises(DataError, match=message) as error:
        prepared(tmp_path, **changed)
    assert len(str(error.value).splitlines()) <= 3
    assert not list((tmp_path / "sets").glob("*.npz"))


def test_one_package_alone_and_a_file_that_is_none_are_refused(tmp_path):
    pytest.importorskip("resvg_py")
    one = write_package(tmp_path / "one.tgz", files_of("openmoji"))
    with pytest.raises(DataError, match="emoji-datasource-twitter is not there"):
        emoji.write(tmp_path, [one])
    (tmp_path / "cut.tgz").write_bytes(one.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot read .*cut.tgz"):
        emoji.write(tmp_path, [tmp_path / "cut.tgz", one])
