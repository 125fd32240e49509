"""Prepare once: CIFAR-10, CIFAR-100 as a TensorFlow Datasets folder, emoji, CLIP's tokenizer.

    python -m experiments.prepare cifar10 --data_dir DIR
    python -m experiments.prepare cifar10 --data_dir DIR --archive cifar-10-binary.tar.gz
    python -m experiments.prepare emoji --data_dir DIR
    python -m experiments.prepare emoji --data_dir DIR --archive openmoji-17.0.0.tgz \
        --archive emoji-datasource-twitter-16.0.0.tgz
    python -m experiments.prepare clip_tokenizer --data_dir DIR \
        --archive bpe_simple_vocab_16e6.txt.gz

The emoji are images with their names as texts, in two styles; `npm pack openmoji
emoji-datasource-twitter` fetches what they are made of. Their licenses are written beside them.
The tokenizer is made of the file of github.com/openai/CLIP, which open_clip's wheel has as well.

The folder of CIFAR (`DIR/cifar10/3.0.2`, ArrayRecord, lossless PNG) is a genuine one, written
without TensorFlow. Any other set can be used too, once it is built where TensorFlow is installed:

    tfds build imagenette/320px-v2 --file_format=array_record --data_dir DIR

Nothing is extracted to disk: the files of the archive are read by their exact names.
"""

import argparse
import contextlib
import hashlib
import http.client
import io
import json
import os
import shlex
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from contrastive_jax.data._errors import WITHOUT_DOWNLOAD, first_line, needs
from contrastive_jax.data.tfds import find_prepared
from contrastive_jax.errors import DataError
from contrastive_jax.storage import workdir
from experiments.preparing import clip_tokenizer, emoji
from experiments.run.command_line import described, exit_codes

TIMEOUT_S = 10
MAX_ARCHIVE_BYTES = 1 << 30  # unpacked; the published archives are 185 MB
PIXELS = 32 * 32 * 3


class Archive(NamedTuple):
    """A published archive in the binary format: records of label bytes and 32x32 RGB planes."""

    url: str
    size: int
    sha256: str
    folder: str
    files: Mapping[str, list[str]]  # by split
    class_names: Mapping[str, tuple[str, int]]  # file and count, by label in the order of the bytes


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "cifar-10-batches-bin",
        {
            "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
            "test": ["test_batch.bin"],
        },
        {"label": ("batches.meta.txt", 10)},
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        "cifar-100-binary",
        {"train": ["train.bin"], "test": ["test.bin"]},
        {"coarse_label": ("coarse_label_names.txt", 20), "label": ("fine_label_names.txt", 100)},
    ),
}


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv[1:])
    root = args.data_dir.expanduser().absolute()
    try:
        if args.name == "emoji":
            return prepare_emoji(root, args.archive)
        if args.name == "clip_tokenizer":
            return prepare_clip_tokenizer(root, _one_archive(args.archive))
        prepare(args.name, root, _one_archive(args.archive))
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    override = "" if args.name == "cifar10" else f" --config.data.name={args.name}"
    print(
        "Train on it:\n  python -m experiments.simclr --config configs/cifar.py "
        f"--config.data.data_dir={shlex.quote(str(root))}{override}"
    )
    return 0


def prepare(name: str, root: Path, archive_file: Path | None = None) -> None:
    """Write `root/name/<version>`, from a local archive or from a download; once.

    Raises:
      DataError: when the archive cannot be had or read, or the folder not be written.
    """
    if folder := _already_prepared(name, root):
        print(f"{name} is already prepared in {folder}")
        return
    archive = ARCHIVES[name]
    if archive_file is not None:
        write(name, root, archive_file)
        return
    downloads = root / "downloads"
    archive_file = downloads / urlsplit(archive.url).path.rpartition("/")[2]
    download(archive.url, archive_file, archive.size, archive.sha256)
    write(name, root, archive_file)
    archive_file.unlink()
    with contextlib.suppress(OSError):  # others may keep their downloads there
        downloads.rmdir()


def prepare_emoji(root: Path, archives: Sequence[Path]) -> int:
    """Write `root/emoji.npz`, from local packages or from downloads; once.

    Raises:
      DataError: when the packages cannot be had or read, or the folder not be written.
    """
    target = root / "emoji.npz"
    if target.exists():
        print(f"emoji is already prepared in {target}")
    else:
        emoji.check_can_draw()
        paths = list(archives) or [_fetched(root, package) for package in emoji.PACKAGES.values()]
        emoji.write(root, paths)
        for path in () if archives else paths:
            path.unlink()
        with np.load(target, allow_pickle=False) as arrays:
            counts = " + ".join(f"{len(arrays[part]):,}" for part in ("image", "test_image"))
        print(f"prepared emoji in {target}: {counts} images; see emoji-LICENSES.txt beside it")
    print(
        "Train on it:\n  python -m experiments.clip --config configs/emoji.py "
        f"--config.data.data_dir={shlex.quote(str(target))}"
    )
    return 0


def prepare_clip_tokenizer(root: Path, vocabulary: Path | None) -> int:
    """Write `root/clip_tokenizer.json` from the file of CLIP's vocabulary.

    Raises:
      DataError: no such file, or a folder that cannot be written.
    """
    if vocabulary is None:
        raise DataError(
            "clip_tokenizer is made of a file that is not downloaded here\n"
            "Give --archive FILE: bpe_simple_vocab_16e6.txt.gz of github.com/openai/CLIP"
        )
    text, target = clip_tokenizer.from_file(vocabulary), root / "clip_tokenizer.json"
    try:
        root.mkdir(parents=True, exist_ok=True)
        workdir.write_text(target, text)
    except OSError as error:
        raise DataError(f"cannot write {target}: {first_line(error)}") from error
    print(f"wrote {target}\nTrain with it: --config.data.tokenizer={shlex.quote(str(target))}")
    return 0


def _fetched(root: Path, package: emoji.Package) -> Path:
    path = root / "downloads" / urlsplit(package.url).path.rpartition("/")[2]
    download(package.url, path, package.size, package.sha256)
    return path


def _one_archive(archives: Sequence[Path]) -> Path | None:
    if len(archives) > 1:
        raise DataError("this set has one archive; give --archive once")
    return archives[0] if archives else None


def _already_prepared(name: str, root: Path) -> Path | None:
    try:
        folder = find_prepared(name, root)
    except DataError:
        return None
    stored = json.loads((folder / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")
    if stored != "array_record":
        raise DataError(
            f"{folder} is stored as {stored}, which has no random access\nChoose another --data_dir"
        )
    return folder


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Fetch `url` to `path`, continuing what an earlier call left in `path`.part.

    Raises:
      DataError: when there is no connection, or the bytes are not those that were published.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.exists() and _sha256(path) == sha256):
            _fetch(url, part, size)
            if _sha256(part) != sha256:
                part.unlink()
                raise OSError("the sha256 of what came is not the published one")
            os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {url} to {path.parent}: {first_line(error)}\n"
            "Run the same command again, or fetch that file elsewhere and give it: --archive FILE\n"
            f"{WITHOUT_DOWNLOAD}"
        ) from error


def _fetch(url: str, part: Path, size: int) -> None:
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    if have == size:
        return
    have = have if have < size else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if urlsplit(response.url).scheme != urlsplit(url).scheme:
            raise OSError(f"redirected to {response.url}")
        have = have if response.status == http.client.PARTIAL_CONTENT else 0
        bar = tqdm(
            desc=part.stem, initial=have, total=size, unit="B", unit_scale=True, disable=None
        )
        with part.open("ab" if have else "wb") as out, bar:
            while have <= size and (block := response.read(1 << 18)):
                out.write(block)
                bar.update(len(block))
                have += len(block)
    if have != size:
        raise OSError(f"{have:,} bytes came, not {size:,}")


def write(name: str, root: Path, archive_file: Path) -> None:
    """Write the binary archive as a TFDS folder; it appears under its name only when complete.

    Raises:
      DataError: when the archive is not that set's, or the folder cannot be written.
    """
    archive = ARCHIVES[name]
    files = _read_files(archive_file, archive)
    if _sha256(archive_file) != archive.sha256:
        print(f"note: {archive_file} is not the published archive (its sha256 differs)")
    names = {}
    for label, (file, n) in archive.class_names.items():
        lines = files[file].decode("utf-8", "replace").splitlines()
        names[label] = [line for line in lines if line.strip()]
        if len(names[label]) != n:
            raise _refused(f"{file} names {len(names[label])} classes, not {n}", archive)
    splits = {
        split: np.concatenate([_records(file, files[file], names) for file in of_split])
        for split, of_split in archive.files.items()
    }
    with needs("tensorflow-datasets array_record importlib_resources pillow"):
        import array_record  # noqa: F401
        import importlib_resources  # noqa: F401
        import PIL  # noqa: F401
        import tensorflow_datasets as tfds
    builder: Any = tfds.builder(name, data_dir=str(root), file_format="array_record")
    if Path(builder.data_dir).exists():
        raise DataError(
            f"{builder.data_dir} is there but incomplete\n"
            "Choose another --data_dir, or move that folder away"
        )
    for label, class_names in names.items():
        builder.info.features[label].names = class_names
    # A patch, since TFDS has no other way: the builder's generator reads with TensorFlow; this one
    # yields the same keys and examples.
    builder._split_generators = lambda dl_manager: {
        split: _examples(split, records, list(names)) for split, records in splits.items()
    }
    _write_quietly(builder)
    counts = " + ".join(f"{info.num_examples:,}" for info in builder.info.splits.values())
    print(f"prepared {name} in {builder.data_dir}: {counts} images")


def _write_quietly(builder: Any) -> None:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=unused, download_config=config)
    except Exception as error:  # TFDS wraps what the disk and its writers raise
        raise DataError(
            f"cannot write {builder.data_dir}: {first_line(error)}\n"
            "Check that the folder can be written and has 500 MB free, or choose another --data_dir"
        ) from error


def _read_files(path: Path, archive: Archive) -> dict[str, bytes]:
    """Read the files of the set by name; whatever else is in the archive is not opened."""
    pickled = f"{path} is the python version: pickled, and unpickling can run any code"
    if "python" in path.name:
        raise _refused(pickled, archive)
    listed = [file for file, _ in archive.class_names.values()]
    wanted = {f"{archive.folder}/{f}": f for f in sum(archive.files.values(), start=listed)}
    files, unpacked = {}, 0
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                unpacked += member.size
                if unpacked > MAX_ARCHIVE_BYTES:
                    raise tarfile.TarError(f"it unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes")
                if member.name.startswith(("cifar-10-batches-py/", "cifar-100-python/")):
                    raise _refused(pickled, archive)
                if member.name in wanted:
                    file = tar.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise tarfile.TarError(f"{member.name} is not a regular file")
                    files[wanted[member.name]] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _refused(f"cannot read {path}: {first_line(error)}", archive) from error
    if missing := sorted(set(wanted.values()) - set(files)):
        raise _refused(f"{path} has no {archive.folder}/{missing[0]}", archive)
    return files


def _refused(why: str, archive: Archive) -> DataError:
    return DataError(f"{why}\nGive the binary version, {archive.url}")


def _records(file: str, content: bytes, names: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Read the records [N, labels + pixels] of one file and check their labels."""
    width = len(names) + PIXELS
    if not content or len(content) % width:
        raise DataError(f"{file} has {len(content):,} bytes, which are not records of {width}")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    for column, (label, class_names) in enumerate(names.items()):
        wrong = np.flatnonzero(records[:, column] >= len(class_names))
        if wrong.size:
            raise DataError(
                f"{file}: {label} {records[wrong[0], column]} of record {wrong[0]} is not one of "
                f"{len(class_names)} classes"
            )
    return records


def _examples(split: str, records: np.ndarray, labels: Sequence[str]) -> Iterator[tuple[int, Any]]:
    from PIL import Image
    from tqdm import tqdm

    for index, record in enumerate(tqdm(records, desc=split, unit=" images", disable=None)):
        planes = record[len(labels) :].reshape(3, 32, 32)  # on disk: all red, all green, all blue
        example = {label: int(value) for label, value in zip(labels, record, strict=False)}
        image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        yield index, {**example, "id": f"{split}_{index:05d}", "image": image}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = described("prepare", __doc__)
    names = (*ARCHIVES, "emoji", "clip_tokenizer")
    parser.add_argument("name", choices=names, metavar="{" + ",".join(names) + "}")
    default = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    text = "folder of prepared sets (default: TFDS_DATA_DIR, then ~/tensorflow_datasets)"
    parser.add_argument("--data_dir", type=Path, default=default, metavar="DIR", help=text)
    text = "the binary version of CIFAR, each package of emoji, or CLIP's vocabulary, fetched "
    text += "elsewhere: nothing is downloaded"
    flag = {"type": Path, "metavar": "FILE", "action": "append", "default": []}
    parser.add_argument("--archive", **flag, help=text)
    return parser


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main(sys.argv))
