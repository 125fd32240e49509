"""Files of torch.save give their tensors, and nothing in them is run."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax.encoders import pretrained, torch_files
from contrastive_jax.errors import CheckpointError

WRITTEN = Path(__file__).parent / "torch_weights.pth"  # by torch 2.13, of numbers from 0 to 11


def packed(path, pickled, **storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def test_tensors_of_torch_are_read_with_their_strides_and_types():
    x = np.arange(12, dtype=np.float32)
    want = {
        "layer.weight": x.reshape(3, 4),
        "layer.bias": x[1:7:2],
        "turned": x.reshape(3, 4).T,
        "half": x[:3].astype(np.float16),
        "brain": x[:3],
        "count": np.int64(7),
        "flags": np.array([True, False]),
    }
    found = pretrained.read(WRITTEN)
    assert found.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(found[name].astype(value.dtype), value)
        assert found[name].dtype == value.dtype or name == "brain"


def test_nothing_is_run(tmp_path):
    touched = tmp_path / "touched"
    command = f"touch {touched}".encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    for evil in (b"\x80\x02cos\nsystem\n" + text + b"\x85R.", b"\x80\x02ios\nsystem\n."):
        with pytest.raises(
            CheckpointError, match=r"cannot be read: ValueError: (a call of|the op)"
        ):
            pretrained.read(packed(tmp_path / "evil.pth", evil))
    assert not touched.exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    content = WRITTEN.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [pickled] = [name for name in archive.namelist() if name.endswith("data.pkl")]
        root = pickled.removesuffix("data.pkl")
        read = lambda key: archive.read(f"{root}data/{key}")  # noqa: E731
        with pytest.raises(ValueError, match="bytes for 12 numbers"):
            torch_files.interpret(archive.read(pickled), lambda key: read(key)[:-4])
    with pytest.raises(ValueError, match="beyond the 4 numbers"):
        torch_files._tensor(np.zeros(4, np.float32), 1, (2, 2), (2, 1))
    with pytest.raises(ValueError, match="beyond the 4 numbers"):
        torch_files._tensor(np.zeros(4, np.float32), 3, (2,), (-1,))


@pytest.mark.parametrize("content", [b"", b"PK", WRITTEN.read_bytes()[:900]])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "cut.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="no whole file of torch.save"):
        pretrained.read(tmp_path / "cut.pth")
