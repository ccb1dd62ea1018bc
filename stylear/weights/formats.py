"""File formats of weights, recognised by content: what a file is, and how to get weights from it.

File endings are not trusted. Only headers and tables of contents are read; nothing is unpickled and no tensor
is loaded.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from stylear.console import say_warning
from stylear.errors import WeightsError

HEAD_BYTES = 4096  # our choice: enough for every signature below
MAX_HEADER_BYTES = 100 * 10**6  # of safetensors itself
SAFETENSORS, TORCH, TORCH_LEGACY = "safetensors", "torch", "torch-legacy"
READABLE = (SAFETENSORS, TORCH, TORCH_LEGACY)
COPY_AGAIN = "the file is cut off or damaged; copy or download it again"
LEGACY_START = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: its magic number, pickled
)
_LFS_START = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)$")
SIGNATURES = (  # first bytes, what the file is, what to do
    (b"GGUF", "a GGUF file (quantised for llama.cpp)", "use the model's safetensors release"),
    (b"\x89HDF", "an HDF5 file (Keras or TensorFlow)", "convert it to safetensors"),
    (b"\x93NUMPY", "a NumPy array", "save its arrays by name with safetensors.numpy.save_file"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first: gunzip or tar xzf"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first: xz -d or tar xJf"),
    (b"(\xb5/\xfd", "a zstd archive", "unpack it first: zstd -d"),
    (b"\x89PNG", "a PNG image", "give the weights' path, not a picture's"),
    (b"\xff\xd8\xff", "a JPEG image", "give the weights' path, not a picture's"),
)


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a file, by its content."""

    kind: str  # one of READABLE, or a name for a format that is not weights
    description: str  # for a message: "a git-lfs pointer"
    remedy: str = ""  # how to get weights from it

    @property
    def is_readable(self) -> bool:
        return self.kind in READABLE


def recognise_format(path: Path) -> Format:
    """The format of a file, by its content. Raises WeightsError if the file does not exist."""
    if path.is_dir():
        files = sorted(entry.name for entry in path.iterdir())
        shown = f"a directory with {', '.join(files[:5])}" if files else "an empty directory"
        return Format("directory", shown, "name the weights file in it")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except FileNotFoundError:
        raise WeightsError(f"{path}: expected a weights file, found nothing") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        return Format("empty", "an empty file", COPY_AGAIN)
    if head.startswith(_LFS_START):
        return describe_lfs_pointer(path, head)
    if head.startswith(b"PK"):
        return recognise_zip(path)
    if head.startswith(LEGACY_START):
        return Format(TORCH_LEGACY, "a torch checkpoint of the format before torch 1.6")
    for start, description, remedy in SIGNATURES:
        if head.startswith(start):
            return Format("foreign", description, remedy)
    if head[257:262] == b"ustar":
        return Format("foreign", "a tar archive", "unpack it first: tar xf")
    if (safetensors := recognise_safetensors(path, head, size)) is not None:
        return safetensors
    if not head.strip(b"\0"):
        return Format("zeros", f"{size} bytes of which the first are all zero", COPY_AGAIN)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Format(
            "pickle",
            "a plain pickle, which runs code when it is opened",
            "save its tensors where it was made: safetensors.torch.save_file(tensors, FILE)",
        )
    return recognise_text(head) or Format(
        "unknown", f"a file of no known format, beginning {head[:8]!r}", COPY_AGAIN
    )


def describe_lfs_pointer(path: Path, head: bytes) -> Format:
    """The format of a git-lfs pointer, with the size of the actual file."""
    size = _LFS_SIZE.search(head)
    actual = f" for a file of {int(size[1])} bytes" if size else ""
    return Format(
        "git-lfs pointer",
        f"a git-lfs pointer{actual}, not the file itself",
        f"run `git lfs pull` in {path.parent}, or download the file itself",
    )


def recognise_zip(path: Path) -> Format:
    """The format of a zip archive: torch checkpoint, TorchScript, NumPy arrays, or another archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return Format("cut off", "the beginning of a torch checkpoint, cut off", COPY_AGAIN)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return Format(
            "torchscript",
            "a TorchScript archive, which holds code",
            "code in weights is never run; use a release in safetensors, or save the state_dict where the"
            " archive is trusted: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    if any(name.endswith("/data.pkl") for name in names):
        return Format(TORCH, "a torch checkpoint")
    if names and all(name.endswith(".npy") for name in names):
        return Format(
            "foreign", "NumPy arrays (.npz)", "save them with safetensors.numpy.save_file"
        )
    return Format("foreign", f"a zip archive with {', '.join(names[:3])}", "unpack it first")


def recognise_safetensors(path: Path, head: bytes, size: int) -> Format | None:
    """The format of a safetensors file, complete or truncated; None if it has no safetensors header."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 9 or head[8:9] != b"{" or length > MAX_HEADER_BYTES:
        return None
    with path.open("rb") as stream:
        stream.seek(8)
        header = stream.read(length)
    try:
        tensors = json.loads(header) if len(header) == length else {}
        ends = [part["data_offsets"][1] for name, part in tensors.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return Format("damaged", "a safetensors file with a damaged header", COPY_AGAIN)
    if size < expected:
        return Format(
            "cut off", f"a safetensors file cut off after {size} of {expected} bytes", COPY_AGAIN
        )
    return Format(SAFETENSORS, "a safetensors file")


def recognise_text(head: bytes) -> Format | None:
    """The format of text saved instead of weights: a web page, JSON, a message; None for binary data."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD_BYTES else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if any(ord(letter) < 32 and letter not in "\r\n\t\f" for letter in text):
        return None
    start = text[:200].lower()
    download = "download the file itself, not its page: on the hub, the link with /resolve/"
    if start.startswith(("<!doctype html", "<html", "<head", "<!--")) or "<html" in start:
        return Format("html", "an HTML page", download)
    line = text.splitlines()[0][:80] if text else ""
    if start.startswith(("{", "[")):
        return Format("json", f"JSON text: {line}", "give the weights file itself")
    return Format("text", f"text: {line!r}", "a server's message may have been saved; " + download)


def require_weights(path: Path, *, by_ending: bool = False) -> Format:
    """The format of a file with readable tensors; with `by_ending` its ending must match its format.

    Raises WeightsError that names the actual format and how to get weights from it.
    """
    file_format = recognise_format(path)
    if not file_format.is_readable:
        raise WeightsError(
            f"{path}: expected weights (safetensors or a torch checkpoint), found {file_format.description}",
            hint=file_format.remedy,
        )
    if by_ending and has_wrong_ending(path, file_format):
        right = path.with_suffix(".safetensors" if file_format.kind == SAFETENSORS else ".bin")
        raise WeightsError(
            f"{path}: expected the format of its extension, found {file_format.description}",
            hint=f"rename it to {right.name}",
        )
    return file_format


def has_wrong_ending(path: Path, file_format: Format) -> bool:
    """Whether the ending of a file contradicts its content."""
    return (path.suffix == ".safetensors") != (file_format.kind == SAFETENSORS)


def warn_wrong_ending(path: Path, file_format: Format) -> None:
    """Warn on stderr if the ending of a file contradicts its content."""
    if has_wrong_ending(path, file_format):
        ending = path.suffix or "without an ending"
        say_warning(f"{path}: named {ending}, read as {file_format.description}")


def refuse_single_shard(path: Path) -> None:
    """Raise WeightsError if a file is one of several shards, because it lacks the tensors of the others."""
    shard = _SHARD.match(path.name)
    if shard is None or int(shard["count"]) < 2:
        return
    index = path.with_name(f"{shard['stem']}{shard['suffix']}.index.json")
    raise WeightsError(
        f"{path}: expected all weights, found shard {int(shard['number'])} of {int(shard['count'])}",
        hint=f"name {index.name} instead"
        if index.is_file()
        else f"copy all shards and {index.name} into one directory and name {index.name}",
    )


def require_shards(index: Path, shards: set[str]) -> None:
    """Raise WeightsError naming the missing shards of an index."""
    absent = sorted(shard for shard in shards if not (index.parent / shard).is_file())
    if absent:
        raise WeightsError(
            f"{index}: expected {len(shards)} shards beside it, missing {', '.join(absent)}",
            hint=f"copy or download {' and '.join(absent)} into {index.parent}",
        )
