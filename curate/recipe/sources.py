"""Where raw pairs come from, and how their images are stored."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from stylear.curate.recipe.base import PathRule, Settings


class ImageSettings(Settings):
    """How every image of the corpus is stored."""

    size: int = Field(64, ge=16, le=4096, description="Side in pixels of the square (ours).")
    format: Literal["png", "jpg", "webp"] = Field("png", description="Encoding of stored images.")
    quality: int | None = Field(
        None, ge=1, le=100, description="Of jpg and webp; default: 95 for jpg, lossless for webp."
    )
    fit: Literal["crop", "pad", "source"] = Field(
        "crop",
        description="Cut the centre, add background, or store png, jpg and webp as they came.",
    )
    background: str = Field(
        "#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="Behind transparency and padding."
    )
    min_side: int = Field(16, ge=1, description="Smaller source images are dropped (pixels).")
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=89_000_000,
        description="Source images with more pixels are dropped before decoding.",
    )
    truncated: Literal["drop", "keep"] = Field(
        "drop", description="JPEGs and PNGs whose end is missing; keep: with what is left of them."
    )


class MiniSource(Settings):
    """The embedded captioned drawings."""

    type: Literal["mini"]
    split: Literal["train", "val"] | None = Field(None, description="Only this split of them.")
    vendors: tuple[str, ...] | None = Field(None, description="Only these hands: noto, twemoji.")
    categories: tuple[str, ...] | None = Field(None, description="Only these, e.g. Food & Drink.")
    limit: int | None = Field(None, ge=1, description="At most so many, drawn with the seed.")


class ListSettings(Settings):
    """How a list (parquet, csv, tsv, json, jsonl) is read."""

    caption_column: str | tuple[str, ...] | None = Field(
        None,
        description="Default: caption, TEXT, text, ...; of several the first that a row has.",
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="Of several captions of a picture: one, one pair for each, one by seed.",
    )
    encoding: str | None = Field(
        None, description="Of text, e.g. cp1252; default: by the byte order mark, else UTF-8."
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Default: by the ending and the header."
    )
    quoting: Literal["auto", "csv", "none"] = Field(
        "auto", description="Whether quotation marks enclose fields; auto: in .csv, not in .tsv."
    )
    columns: tuple[str, ...] = Field((), description="Names, for a csv or tsv without a header.")


class UrlsSource(ListSettings):
    """A list of URLs with captions, downloaded through img2dataset behind a guard."""

    type: Literal["urls"]
    path: Path = Field(description="parquet, csv, tsv, json or jsonl; a folder or a pattern.")
    url_column: str | tuple[str, ...] | None = Field(
        None, description="Default: url, URL, image_url, ...; of several the first that a row has."
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows, from the top.")
    allow_networks: tuple[str, ...] = Field(
        (), description="CIDRs that may be reached though they are not public, e.g. 127.0.0.0/8."
    )
    timeout_s: float = Field(10.0, gt=0, description="One wait for the server (img2dataset).")
    deadline_s: float = Field(60.0, gt=0, description="One download in all (ours).")
    max_bytes: int = Field(32_000_000, ge=1, description="Longer bodies are refused (ours).")
    retries: int = Field(0, ge=0, le=10, description="Further tries of a failed download.")
    threads: int = Field(16, ge=1, le=256, description="Downloads at the same time.")
    processes: int = Field(1, ge=1, le=64, description="Processes that share the downloads.")
    contact: str | None = Field(None, description="Web page or mail address in the user agent.")
    host_requests_per_s: float | None = Field(
        20.0, gt=0, description="On average, to one host; null: as fast as it goes (ours)."
    )
    robots: bool = Field(False, description="Ask every host for robots.txt and obey it.")
    min_success: float = Field(
        0.1, ge=0, le=1, description="Stop when a smaller share of downloads succeeds (ours)."
    )
    uids: Path | None = Field(
        None, description="Only rows whose uid is in this DataComp subset (.npy of u8,u8)."
    )
    sha256_column: str | None = Field(
        None, description="Column with the hash that the bytes must have."
    )

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    def map_paths(self, rule: PathRule) -> Self:
        uids = None if self.uids is None else rule.path(self.uids)
        return self.model_copy(update={"path": rule.path(self.path), "uids": uids})


class FolderSource(ListSettings):
    """A folder of images with captions."""

    type: Literal["folder"]
    path: Path = Field(description="The folder; its subfolders are read too.")
    captions: str | None = Field(
        None,
        description="List in the folder (image, caption), or `embedded` for the prompts that drawing"
        " tools leave inside PNGs; default: captions.csv, metadata.csv,"
        " metadata.jsonl or metadata.parquet where there is one, else the .txt, .caption or .json"
        " beside each image.",
    )
    caption_files: tuple[str, ...] = Field(
        (".txt", ".caption", ".json"), description="Endings beside an image; the first found wins."
    )
    follow_links: bool = Field(
        False, description="Read images that links point to outside the folder, too."
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger files are dropped (ours).")
    limit: int | None = Field(None, ge=1, description="At most so many rows, from the top.")

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.path(self.path)})


class ParquetSource(Settings):
    """Parquet files with the pictures inside, as Hugging Face data sets write them."""

    type: Literal["parquet"]
    path: Path = Field(description="A file, a folder of parts, or a pattern.")
    image_column: str | tuple[str, ...] | None = Field(None, description="Default: image, ...")
    caption_column: str | tuple[str, ...] | None = Field(
        None, description="Default: caption, TEXT, text, ..."
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="Of several captions of a picture: one, one pair for each, one by seed.",
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger images are dropped (ours).")
    limit: int | None = Field(None, ge=1, description="At most so many pairs, in order.")

    def map_paths(self, rule: PathRule) -> Self:
        return self.model_copy(update={"path": rule.path(self.path)})


class MemberNames(Settings):
    """The endings of members that are read, behind the key; case does not matter."""

    image: str | None = Field(None, description="e.g. input_image.png; default: any image's.")
    text: str | None = Field(
        None, description="e.g. prompt.txt or edit.json; default: txt, caption, text, prompt, ..."
    )
    record: str | None = Field(
        None, description="JSON with further details, e.g. meta.json; default: json."
    )

    @field_validator("image", "text", "record")
    @classmethod
    def _plain(cls, ending: str | None) -> str | None:
        if ending is not None and not ending.strip(".").strip():
            raise ValueError("expected an ending such as input_image.png")
        return None if ending is None else ending.strip().lstrip(".").lower()


class ShardsSource(Settings):
    """WebDataset shards that exist already."""

    type: Literal["shards"]
    path: str = Field(
        description="A tar or .tar.gz, a folder of them, or a pattern such as other/*.tar or"
        " {000000..000123}.tar."
    )
    members: MemberNames = Field(
        MemberNames(), description="Which members are read; default: by their endings."
    )
    keys: Literal["first-dot", "last-dot"] = Field(
        "first-dot", description="Where names of members are cut into key and ending."
    )
    captions: Literal["members", "embedded"] = Field(
        "members", description="From members, or from the prompts that generators leave in images."
    )
    captions_per_image: Literal["first", "all", "random"] = Field(
        "first",
        description="Of several captions of a picture: one, one pair for each, one by seed.",
    )
    encoding: str | None = Field(
        None, description="Of texts, e.g. cp1252; default: by the byte order mark, else UTF-8."
    )
    on_bad_shard: Literal["stop", "skip"] = Field(
        "stop", description="What a tar that is missing or damaged does; skip: a dropped row."
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger images are dropped (ours).")
    limit: int | None = Field(None, ge=1, description="At most so many samples, in order.")
    uids: Path | None = Field(
        None, description="Only samples whose uid is in this DataComp subset (.npy of u8,u8)."
    )

    def map_paths(self, rule: PathRule) -> Self:
        uids = None if self.uids is None else rule.path(self.uids)
        return self.model_copy(update={"path": rule.path(self.path).as_posix(), "uids": uids})


SOURCES = (MiniSource, UrlsSource, FolderSource, ParquetSource, ShardsSource)
Source = Annotated[
    MiniSource | UrlsSource | FolderSource | ParquetSource | ShardsSource,
    Field(discriminator="type"),
]
