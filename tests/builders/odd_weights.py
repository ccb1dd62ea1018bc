"""Files that are found where weights are expected, each in its genuine format."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 3944517836\n"
)
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def torch_bytes(value: object, *, legacy: bool = False) -> bytes:
    """What torch.save writes, also in the format before torch 1.6."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def torchscript_bytes() -> bytes:
    """The entries by which a TorchScript archive is known."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("clip/data.pkl", b"\x80\x02}.")
        archive.writestr("clip/constants.pkl", b"\x80\x02).")
        archive.writestr("clip/code/__torch__/clip.py", b"op_version_set = 1\n")
    return buffer.getvalue()


def npz_bytes() -> bytes:
    """What numpy.savez writes."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    return buffer.getvalue()


ODD_FILES = {  # content, what it is said to be, a word of the hint
    "pointer": (LFS_POINTER, "a git-lfs pointer for a file of 3944517836 bytes", "git lfs pull"),
    "page": (PAGE, "an HTML page", "/resolve/"),
    "json": (b'{"error": "Repository not found"}', 'JSON text: {"error"', "weights file itself"),
    "words": (b"Entry not found\n", "text: 'Entry not found'", "server's message"),
    "empty": (b"", "an empty file", "copy or download it again"),
    "zeros": (bytes(5000), "5000 bytes of which the first are all zero", "download it again"),
    "cut safetensors": (save(TENSORS)[:-4], "a safetensors file cut off after", "cut off"),
    "cut header": (save(TENSORS)[:40], "a safetensors file cut off after 40 of", "cut off"),
    "cut torch": (torch_bytes(TENSORS)[:600], "a torch checkpoint, cut off", "cut off"),
    "torchscript": (torchscript_bytes(), "a TorchScript archive, which holds code", "state_dict"),
    "pickle": (pickle.dumps({"weight": 1}), "a plain pickle, which runs code", "save_file"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file", "safetensors release"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file", "convert it"),
    "npz": (npz_bytes(), "NumPy arrays (.npz)", "safetensors.numpy"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "a gzip archive", "unpack it"),
    "noise": (bytes(range(200, 256)), "a file of no known format", "download it again"),
}


def write_odd_file(folder: Path, name: str, ending: str) -> Path:
    """One of ODD_FILES under a name that claims to be weights."""
    path = folder / f"model{ending}"
    path.write_bytes(ODD_FILES[name][0])
    return path
