"""Settings of the sources of raw pairs, and of how images are stored."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from stylear.curate.recipe.base import PathRule, Settings


class ImageSettings(Settings):
    """How images are stored."""

    size: int = Field(64, ge=16, le=4096, description="Side of the square images in pixels.")
    format: Literal["png", "jpg", "webp"] = Field("png", description="Format of stored images.")
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Quality of jpg and webp; default: 95 for jpg, lossless for webp.",
    )
    fit: Literal["crop", "pad", "source"] = Field(
        "crop",
        description="Crop the centre, pad with background, or store png, jpg and webp unchanged.",
    )
    background: str = Field(
        "#ffffff",
        pattern=r"^#[0-9a-fA-F]{6}$",
        description="Background colour behind transparency and padding.",
    )
    min_side: int = Field(16, ge=1, description="Images with a shorter side in pixels are dropped.")
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=89_000_000,
        description="Images with more pixels are dropped before decoding.",
    )
    truncated: Literal["drop", "keep"] = Field(
        "drop", description="Truncated JPEGs and PNGs: drop them, or keep what can be decoded."
    )


class MiniSource(Settings):
    """The embedded captioned drawings."""

    type: Literal["mini"]
    split: Literal["train", "val"] | None = Field(None, description="Use only this split.")
    vendors: tuple[str, ...] | None = Field(None, description="Use only these sets: noto, twemoji.")
    categories: tuple[str, ...] | None = Field(
        None, description="Use only these categories, e.g. Food & Drink."
    )
    limit: int | None = Field(
        None, ge=1, description="Maximum number of drawings, sampled with the seed."
    )


class ListSettings(Settings):
    """How a list (parquet, csv, tsv, json, jsonl) is read."""

    caption_column: str | tuple[str, ...] | None = Field(
        None,
        description="Name of the caption column, or several of which a row's first is used; default:"
        " caption, TEXT, text, ...",
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="If an image has several captions: use the first, one pair for each, or one by seed.",
    )
    encoding: str | None = Field(
        None, description="Text encoding, e.g. cp1252; default: by the byte order mark, else UTF-8."
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="Field delimiter; default: by the file name and the header.",
    )
    quoting: Literal["auto", "csv", "none"] = Field(
        "auto", description="Whether quotation marks enclose fields; auto: in .csv, not in .tsv."
    )
    columns: tuple[str, ...] = Field(
        (), description="Column names of a csv or tsv without a header."
    )


class UrlsSource(ListSettings):
    """A list of URLs with captions, downloaded through img2dataset behind a guard."""

    type: Literal["urls"]
    path: Path = Field(
        description="A list (parquet, csv, tsv, json, jsonl), a folder of parts, or a pattern."
    )
    url_column: str | tuple[str, ...] | None = Field(
        None,
        description="Name of the URL column, or several of which a row's first is used; default: url, URL,"
        " image_url, ...",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of rows, from the top.")
    allow_networks: tuple[str, ...] = Field(
        (), description="Private networks that URLs may reach, in CIDR notation, e.g. 127.0.0.0/8."
    )
    timeout_s: float = Field(
        10.0, gt=0, description="Timeout of one wait for the server (img2dataset)."
    )
    deadline_s: float = Field(60.0, gt=0, description="Timeout of a whole download.")
    max_bytes: int = Field(32_000_000, ge=1, description="Larger responses are refused.")
    retries: int = Field(0, ge=0, le=10, description="Retries of a failed download.")
    threads: int = Field(16, ge=1, le=256, description="Concurrent downloads.")
    processes: int = Field(1, ge=1, le=64, description="Download processes.")
    contact: str | None = Field(
        None, description="Web page or mail address to put into the user agent."
    )
    host_requests_per_s: float | None = Field(
        20.0, gt=0, description="Average requests per second to one host; null: no limit."
    )
    robots: bool = Field(False, description="Fetch and obey the robots.txt of every host.")
    min_success: float = Field(
        0.1, ge=0, le=1, description="Stop if a smaller share of the downloads succeeds."
    )
    uids: Path | None = Field(
        None, description="Use only rows whose uid is in this DataComp subset (.npy of u8,u8)."
    )
    sha256_column: str | None = Field(
        None, description="Column with the SHA-256 that the image must have."
    )

    @field_validator("allow_networks")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    def map_paths(self, rule: PathRule) -> Self:
        uids = None if self.uids is None else rule.map_path(self.uids)
        return self.model_copy(update={"path": rule.map_path(self.path), "uids": uids})


class FolderSource(ListSettings):
    """A folder of images with captions."""

    type: Literal["folder"]
    path: Path = Field(description="The folder, including its subfolders.")
    captions: str | None = Field(
        None,
        description="List inside the folder (image, caption), or `embedded` for the prompts that image"
        " generators store in PNGs; default: captions.csv, metadata.csv, metadata.jsonl or"
        " metadata.parquet if one exists, else the .txt, .caption or .json beside each image.",
    )
    caption_files: tuple[str, ...] = Field(
        (".txt", ".caption", ".json"),
        description="Extensions of caption files; the first one found is used.",
    )
    follow_links: bool = Field(False, description="Follow links to images outside the folder.")
    max_bytes: int = Field(64_000_000, ge=1, description="Larger files are dropped.")
    limit: int | None = Field(None, ge=1, description="Maximum number of rows, from the top.")

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.map_path(self.path)})


class ParquetSource(Settings):
    """Parquet files that contain the images, as Hugging Face datasets do."""

    type: Literal["parquet"]
    path: Path = Field(description="A file, a folder of parts, or a pattern.")
    image_column: str | tuple[str, ...] | None = Field(
        None, description="Name of the image column; default: image, ..."
    )
    caption_column: str | tuple[str, ...] | None = Field(
        None, description="Name of the caption column; default: caption, TEXT, text, ..."
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="If an image has several captions: use the first, one pair for each, or one by seed.",
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger images are dropped.")
    limit: int | None = Field(None, ge=1, description="Maximum number of pairs, in order.")

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.map_path(self.path)})


class MemberNames(Settings):
    """The endings of the members to read, without the key; case-insensitive."""

    image: str | None = Field(None, description="e.g. input_image.png; default: any image's.")
    text: str | None = Field(
        None, description="e.g. prompt.txt or edit.json; default: txt, caption, text, prompt, ..."
    )
    record: str | None = Field(
        None, description="Member with further details as JSON, e.g. meta.json; default: json."
    )

    @field_validator("image", "text", "record")
    @classmethod
    def _check_ending(cls, ending: str | None) -> str | None:
        if ending is not None and not ending.strip(".").strip():
            raise ValueError("expected an ending such as input_image.png")
        return None if ending is None else ending.strip().lstrip(".").lower()


class ShardsSource(Settings):
    """Existing WebDataset shards."""

    type: Literal["shards"]
    path: str = Field(
        description="A tar or .tar.gz, a folder of them, or a pattern such as other/*.tar or"
        " {000000..000123}.tar."
    )
    members: MemberNames = Field(
        MemberNames(), description="Which members to read; default: by their endings."
    )
    keys: Literal["first-dot", "last-dot"] = Field(
        "first-dot", description="Where member names are split into key and ending."
    )
    captions: Literal["members", "embedded"] = Field(
        "members",
        description="Captions come from members, or from the prompts that image generators embed.",
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="If an image has several captions: use the first, one pair for each, or one by seed.",
    )
    encoding: str | None = Field(
        None, description="Text encoding, e.g. cp1252; default: by the byte order mark, else UTF-8."
    )
    on_bad_shard: Literal["stop", "skip"] = Field(
        "stop",
        description="Whether a missing or damaged tar stops the run, or becomes a dropped row.",
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger images are dropped.")
    limit: int | None = Field(None, ge=1, description="Maximum number of samples, in order.")
    uids: Path | None = Field(
        None, description="Use only samples whose uid is in this DataComp subset (.npy of u8,u8)."
    )

    def map_paths(self, rule: PathRule) -> Self:
        uids = None if self.uids is None else rule.map_path(self.uids)
        return self.model_copy(update={"path": rule.map_path(self.path).as_posix(), "uids": uids})


SOURCES = (MiniSource, UrlsSource, FolderSource, ParquetSource, ShardsSource)
Source = Annotated[
    MiniSource | UrlsSource | FolderSource | ParquetSource | ShardsSource,
    Field(discriminator="type"),
]
