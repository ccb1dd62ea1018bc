"""A checkpoint trained with QuickGELU is not scored with GELU in silence."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch

from stylear.encoders.clip import ClipEncoder
from stylear.encoders.quick_gelu import quick_gelu_urls, refuse_wrong_activation
from stylear.errors import WeightsError


def test_open_clip_says_which_files_are_meant() -> None:
    names = {url.rpartition("/")[2] for url in quick_gelu_urls("ViT-B-32")}
    assert "ViT-B-32.pt" in names
    assert len(names) > 2


def test_a_file_of_that_name_is_refused_with_the_right_architecture(tmp_path: Path) -> None:
    file = tmp_path / "ViT-B-32.pt"
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(
        WeightsError, match="trained with QuickGELU, and ViT-B-32 has GELU"
    ) as caught:
        ClipEncoder.open(f"ViT-B-32/{file}")
    assert caught.value.hint == f"name it ViT-B-32-quickgelu/{file}"
    refuse_wrong_activation("x", "ViT-B-32-quickgelu", file)


def test_an_archive_of_openai_is_refused_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "clip.pt"
    with zipfile.ZipFile(file, "w") as archive:  # as torch.jit.save lays it out
        for name in ("data.pkl", "code/__torch__/model.py", "version"):
            archive.writestr(f"clip/{name}", b"")
    with pytest.raises(WeightsError, match="QuickGELU"):
        refuse_wrong_activation("x", "ViT-B-32", file)


def test_a_file_is_recognised_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "renamed.bin"
    file.write_bytes(b"weights")
    refuse_wrong_activation("x", "ViT-B-32", file)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    published = {"quick_gelu": True, "url": f"https://example.org/models/{sha256}/ViT-B-32.pt"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, tag: published)
    with pytest.raises(WeightsError, match="QuickGELU"):
        refuse_wrong_activation("x", "ViT-B-32", file)
