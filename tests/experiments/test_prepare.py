import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.errors import DataError
from experiments import prepare

NAMES = {
    "cifar10": {"batches.meta.txt": [f"class_{i}" for i in range(10)]},
    "cifar100": {
        "coarse_label_names.txt": [f"coarse_{i}" for i in range(20)],
        "fine_label_names.txt": [f"fine_{i}" for i in range(100)],
    },
}


def cifar_files(name, per_file=6):
    """Random records in the published layout, and what they mean: (labels, images) by split."""
    archive, rng = prepare.ARCHIVES[name], np.random.default_rng(0)
    files = {file: "\n".join([*names, ""]).encode() for file, names in NAMES[name].items()}
    meaning = {}
    for split, of_split in archive.files.items():
        n = per_file * len(of_split)
        image = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        labels = [rng.integers(0, classes, n) for _, classes in archive.class_names.values()]
        planes = [image[..., c].reshape(n, -1) for c in range(3)]
        records = np.concatenate([np.stack(labels, 1), *planes], axis=1).astype(np.uint8)
        files |= {
            f: r.tobytes() for f, r in zip(of_split, np.split(records, len(of_split)), strict=True)
        }
        meaning[split] = (labels[-1], image)
    return files, meaning


def write_archive(path, folder, files, extra=()):
    with tarfile.open(path, "w:gz") as tar:
        for member, content in [*extra, *((f"{folder}/{k}", v) for k, v in files.items())]:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def archive_of(tmp_path, name="cifar10", extra=(), **changed):
    files, _ = cifar_files(name)
    files = {k: v for k, v in (files | changed).items() if v is not None}
    folder = prepare.ARCHIVES[name].folder
    return write_archive(tmp_path / f"{name}.tar.gz", folder, files, extra)


def assert_short(error):
    assert 1 <= len(str(error.value).splitlines()) <= 3


def by_content(image, label):
    return sorted((pixels.tobytes(), int(y)) for pixels, y in zip(image, label, strict=True))


# from an archive to a set


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_prepared_archive_is_loaded_by_name_with_its_pixels_and_labels(tmp_path, name, capsys):
    command = ["prepare", name, "--data_dir", str(tmp_path), "--archive"]
    assert prepare.main([*command, str(archive_of(tmp_path, name))]) == 0
    assert "is not the published archive" in capsys.readouterr().out
    loaded = data.load("tfds", name=name, batch_size=2, data_dir=tmp_path)
    _, meaning = cifar_files(name)
    for split, got in (("train", loaded.train), ("test", loaded.test)):
        labels, images = meaning[split]
        assert by_content(got["image"], got["label"]) == by_content(images, labels)
    assert loaded.class_names == tuple(list(NAMES[name].values())[-1])


def test_a_second_prepare_says_that_it_is_done(tmp_path, capsys):
    command = ["prepare", "cifar10", "--data_dir", str(tmp_path)]
    assert prepare.main([*command, "--archive", str(archive_of(tmp_path))]) == 0
    assert "prepared cifar10" in (first := capsys.readouterr().out)
    assert prepare.main(command) == 0
    assert "already prepared" in (second := capsys.readouterr().out)
    train = "python -m experiments.simclr --config configs/cifar.py"
    assert all(f"{train} --config.data.data_dir={tmp_path}\n" in out for out in (first, second))


def test_the_loader_names_exactly_the_sets_that_can_be_prepared():
    assert set(data.PREPARABLE) == set(prepare.ARCHIVES)


def test_what_is_downloaded_is_pinned_to_what_tfds_publishes():
    import tensorflow_datasets as tfds

    for name, archive in prepare.ARCHIVES.items():
        checksums = Path(tfds.__file__).parent / "url_checksums" / f"{name}.txt"
        published = [line.split("\t") for line in checksums.read_text().splitlines()]
        assert [archive.url, str(archive.size), archive.sha256] in [p[:3] for p in published]
        assert archive.url.startswith("https://")


def test_an_interrupted_prepare_leaves_nothing_that_reads_as_complete(tmp_path, monkeypatch):
    path = archive_of(tmp_path)
    whole = prepare._examples
    for raised, seen in (
        (OSError(28, "No space left on device"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def broken(split, records, labels, raised=raised):
            yield from list(whole(split, records, labels))[:3]
            raise raised

        with monkeypatch.context() as patch:
            patch.setattr(prepare, "_examples", broken)
            with pytest.raises(seen):
                prepare.prepare("cifar10", tmp_path, path)
        with pytest.raises(DataError, match="no cifar10"):
            data.load("tfds", name="cifar10", batch_size=1, data_dir=tmp_path)
    prepare.prepare("cifar10", tmp_path, path)
    assert (
        len(data.load("tfds", name="cifar10", batch_size=1, data_dir=tmp_path).train["label"]) == 30
    )


def test_a_set_in_another_format_or_half_a_set_is_not_taken_for_prepared(tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"cifar10/3.0.2 is there but incomplete"):
        prepare.prepare("cifar10", tmp_path, archive_of(tmp_path))
    (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(DataError, match="stored as tfrecord"):
        prepare.prepare("cifar10", tmp_path)


# hostile and broken archives


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


BAD = {
    "python version by content": (
        {"extra": [("cifar-10-batches-py/data_batch_1", b"\x80\x02.")]},
        "pickled",
    ),
    "no test file": ({"test_batch.bin": None}, r"has no cifar-10-batches-bin/test_batch\.bin"),
    "a link as a file": (
        {
            "test_batch.bin": None,
            "extra": [link("cifar-10-batches-bin/test_batch.bin", "/etc/hostname")],
        },
        "not a regular file",
    ),
    "a device as a file": (
        {
            "test_batch.bin": None,
            "extra": [link("cifar-10-batches-bin/test_batch.bin", "", tarfile.CHRTYPE)],
        },
        "not a regular file",
    ),
    "half a record": ({"data_batch_3.bin": bytes(3073 + 5)}, "data_batch_3.bin has 3,078 bytes"),
    "empty file": ({"test_batch.bin": b""}, "test_batch.bin has 0 bytes"),
    "label 10": ({"data_batch_2.bin": bytes(3073) + bytes([10]) * 3073}, "label 10 of record 1"),
    "nine names": ({"batches.meta.txt": b"a\n" * 9}, "names 9 classes, not 10"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_archive_that_is_not_the_set_is_refused(tmp_path, what):
    changed, message = BAD[what]
    path = archive_of(tmp_path, **changed)
    with pytest.raises(DataError, match=message) as error:
        prepare.prepare("cifar10", tmp_path / "sets", path)
    assert_short(error)
    assert not (tmp_path / "sets" / "cifar10").exists()


def test_files_that_are_not_archives_are_refused(tmp_path):
    whole = archive_of(tmp_path).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar.gz").write_bytes(b"not an archive")
    other = archive_of(tmp_path, "cifar100")
    for path, message in {
        tmp_path / "cut.tar.gz": "cannot read",
        tmp_path / "text.tar.gz": "cannot read",
        tmp_path / "gone.tar.gz": "No such file",
        other: "has no cifar-10-batches-bin",
    }.items():
        with pytest.raises(DataError, match=message) as error:
            prepare.prepare("cifar10", tmp_path / "sets", path)
        assert_short(error)


def test_the_pickled_version_is_refused_by_its_name_before_it_is_opened(tmp_path):
    with pytest.raises(DataError, match=r"pickled.*\n.*cifar-10-binary\.tar\.gz"):
        prepare.prepare("cifar10", tmp_path, tmp_path / "cifar-10-python.tar.gz")


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MAX_ARCHIVE_BYTES", 20_000)
    path = archive_of(tmp_path, extra=[("zeros", bytes(30_000))])
    with pytest.raises(DataError, match="more than 20,000 bytes"):
        prepare.prepare("cifar10", tmp_path / "sets", path)


def test_members_that_point_outside_are_never_written(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    escapes = [("../escaped", b"x"), (str(tmp_path / "escaped"), b"x"), link("out", "..")]
    prepare.prepare("cifar10", inside / "sets", archive_of(inside, extra=escapes))
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert not [p for p in inside.rglob("*") if "escaped" in p.name or p.is_symlink()]


# download


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, with ranges, and hangs up after `stop` bytes of an answer."""

    content = b""
    stop = None
    ranges = True
    asked: list

    def do_GET(self):
        wanted = self.headers["Range"]
        self.asked.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.ranges else 0
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Handler", (Server,), {"asked": [], "content": os.urandom(300_000)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/set.tar.gz"
        yield handler
        running.shutdown()
        thread.join()


def fetch(server, path, content=None):
    content = content or server.content
    prepare.download(server.url, path, len(content), hashlib.sha256(content).hexdigest())


def test_a_download_is_whole_or_absent(server, tmp_path):
    path = tmp_path / "new" / "set.tar.gz"
    fetch(server, path)
    assert path.read_bytes() == server.content
    assert [p.name for p in path.parent.iterdir()] == ["set.tar.gz"]
    fetch(server, path)
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path, ranges):
    path = tmp_path / "set.tar.gz"
    server.stop, server.ranges = 100_000, ranges
    with pytest.raises(DataError, match="100,000 bytes came") as error:
        fetch(server, path)
    assert_short(error)
    assert not path.exists()
    server.stop = None
    fetch(server, path)
    assert path.read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-"]


def test_bytes_that_were_not_published_are_dropped(server, tmp_path):
    other = os.urandom(len(server.content))
    for content, message in ((other, "sha256"), (other[:-1], "bytes came"), (other + b"x", "came")):
        with pytest.raises(DataError, match=message):
            fetch(server, tmp_path / "set.tar.gz", content)
        assert not (tmp_path / "set.tar.gz").exists()
    fetch(server, tmp_path / "set.tar.gz")
    assert (tmp_path / "set.tar.gz").read_bytes() == server.content


def test_a_downloaded_set_is_prepared_and_its_archive_removed(
    server, tmp_path, monkeypatch, capsys
):
    server.content = archive_of(tmp_path).read_bytes()
    published = prepare.ARCHIVES["cifar10"]._replace(
        url=server.url,
        size=len(server.content),
        sha256=hashlib.sha256(server.content).hexdigest(),
    )
    monkeypatch.setitem(prepare.ARCHIVES, "cifar10", published)
    prepare.prepare("cifar10", tmp_path / "sets")
    assert "not the published" not in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["cifar10"]


# the command


def run(*arguments):
    command = [sys.executable, "-m", "experiments.prepare", *arguments]
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_without_a_network_the_command_stops_with_exit_code_3(tmp_path):
    done = run("cifar10", "--data_dir", str(tmp_path))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 3
    assert "--archive FILE" in done.stderr
    assert "configs/digits.py" in done.stderr


def test_usage_errors_are_short_and_exit_with_2(capsys):
    for arguments in ([], ["imagenet"], ["cifar10", "--datadir", "x"]):
        with pytest.raises(SystemExit) as stopped:
            prepare.main(["prepare", *arguments])
        assert stopped.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) <= 3
