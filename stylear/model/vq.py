"""The VQ model: pixels to codes and back; Chameleon's VQGAN with the names of taming-transformers.

B batch, C channels, H W pixels, h w latent grid, D code dimension, N latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.errors import WeightsError
from stylear.model.decoder_config import require_setting, require_types
from stylear.weights import files as weights

MAX_DISTANCES = 1 << 24  # distances held at once by the code search: 64 MiB in fp32
FILES = ("vqgan.safetensors", "vqgan.ckpt")
ROOTS = ("encoder.", "quantize.")  # of a VQ model's tensors


@dataclass(frozen=True)
class VQConfig:
    """Sizes of a VQ model; the defaults are Chameleon's."""

    embed_dim: int = 256
    num_embeddings: int = 8192
    z_channels: int = 256
    resolution: int = 512
    in_channels: int = 3
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = ()
    attn_type: str = "vanilla"  # attention in the middle: "vanilla" or "none"
    dropout: float = 0.0
    norm_groups: int = 32  # of every GroupNorm; fewer where the channels do not divide
    patch: int = 1  # our choice: space-to-depth factor before conv_in, undone after conv_out
    unit_codes: bool = False  # compare and decode codes at unit length (LlamaGen, arXiv 2406.06525)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> VQConfig:
        """From `vq_config` of a config.json; accepts transformers' names, too."""
        known = {f.name for f in fields(cls)}
        values = {name: v for name, v in config.items() if name in known and v is not None}
        values.setdefault("z_channels", config.get("latent_channels", cls.z_channels))
        require_types(values, asdict(cls()), "vq_config: ")
        require_setting("vq_config: double_latent", False, config.get("double_latent") or False)
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**values | lists)

    def to_dict(self) -> dict[str, Any]:
        """For `vq_config` of a config.json, readable by transformers too."""
        values = asdict(self) | {
            "latent_channels": self.z_channels,
            "model_type": "chameleon_vqgan",
        }
        values["channel_multiplier"] = list(self.channel_multiplier)
        values["attn_resolutions"] = list(self.attn_resolutions) or None
        return values

    @property
    def factor(self) -> int:
        """Pixels per code along one side."""
        return int(self.patch * 2 ** (len(self.channel_multiplier) - 1))


def _norm(config: VQConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(config.norm_groups, channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, config: VQConfig, channels: int, out: int) -> None:
        super().__init__()
        self.norm1 = _norm(config, channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = _norm(config, out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        out: Tensor = y + (x if self.nin_shortcut is None else self.nin_shortcut(x))
        return out


class AttnBlock(nn.Module):
    def __init__(self, config: VQConfig, channels: int) -> None:
        super().__init__()
        self.norm = _norm(config, channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))  # (B, hw, C)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        out: Tensor = x + self.proj_out(y.transpose(1, 2).reshape(x.shape))
        return out


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as taming does
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """One resolution: `blocks` res blocks, attention after each if asked, then a change of size."""

    def __init__(self, config: VQConfig, channels: int, out: int, blocks: int, side: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResBlock(config, channels if i == 0 else out, out) for i in range(blocks)
        )
        attends = side in config.attn_resolutions and config.attn_type == "vanilla"
        self.attn = nn.ModuleList(AttnBlock(config, out) for _ in range(blocks if attends else 0))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 0:
                x = self.attn[i](x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class Middle(nn.Module):
    def __init__(self, config: VQConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(config, channels, channels)
        self.attn_1 = (
            AttnBlock(config, channels) if config.attn_type == "vanilla" else nn.Identity()
        )
        self.block_2 = ResBlock(config, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


def _channels(config: VQConfig) -> list[int]:
    return [config.base_channels * m for m in config.channel_multiplier]


class Encoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        channels, side = _channels(config), config.resolution // config.patch
        before = [config.base_channels, *channels[:-1]]
        self.conv_in = nn.Conv2d(
            config.in_channels * config.patch**2, config.base_channels, 3, padding=1
        )
        self.down = nn.ModuleList()
        for i, (start, out) in enumerate(zip(before, channels, strict=True)):
            level = Level(config, start, out, config.num_res_blocks, side >> i)
            if i < len(channels) - 1:
                level.downsample = Downsample(out)
            self.down.append(level)
        self.mid = Middle(config, channels[-1])
        self.norm_out = _norm(config, channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class Decoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        channels, side = _channels(config), config.resolution // config.patch
        before = [*channels[1:], channels[-1]]
        self.conv_in = nn.Conv2d(config.z_channels, channels[-1], 3, padding=1)
        self.mid = Middle(config, channels[-1])
        self.up = nn.ModuleList()  # indexed by level, so run from the last to the first
        for i, (start, out) in enumerate(zip(before, channels, strict=True)):
            level = Level(config, start, out, config.num_res_blocks + 1, side >> i)
            if i > 0:
                level.upsample = Upsample(out)
            self.up.append(level)
        self.norm_out = _norm(config, channels[0])
        self.conv_out = nn.Conv2d(channels[0], config.in_channels * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class Quantizer(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_embeddings, config.embed_dim)
        self.unit_codes, bound = config.unit_codes, 1 / config.num_embeddings
        nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, codes: Tensor) -> Tensor:
        """Latents (..., D) of codes (...)."""
        vectors: Tensor = self.embedding(codes)
        return F.normalize(vectors, dim=-1) if self.unit_codes else vectors

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Index of the nearest code for each row of latents (N, D), in fp32: (N,) long."""
        codes = self(torch.arange(len(self.embedding.weight), device=latents.device)).float()
        squares = codes.square().sum(1)
        rows = max(1, MAX_DISTANCES // codes.shape[0])
        # |z|^2 is the same for every code, so it is left out; autocast must not lower the precision
        with torch.autocast(latents.device.type, enabled=False):
            nearest = [
                (squares - 2 * z.float() @ codes.T).argmin(1) for z in torch.split(latents, rows)
            ]
        return torch.cat(nearest)


class VQOutput(NamedTuple):
    """Pixels rebuilt (B, C, H, W), scalar loss, codes (B, h, w), latents (B, D, h, w)."""

    reconstruction: Tensor
    loss: Tensor
    codes: Tensor
    latents: Tensor


class VQModel(nn.Module):
    """Pixels in [-1, 1] to image codes and back; weights and key names as in Meta's vqgan.ckpt."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    def latents(self, pixels: Tensor) -> Tensor:
        """Latents before the code search, (B, D, h, w), of pixels (B, C, H, W) in [-1, 1]."""
        factor = self.config.factor
        if pixels.shape[-1] % factor or pixels.shape[-2] % factor:
            raise ValueError(
                f"pixels: height and width must divide by {factor}, got {tuple(pixels.shape)}"
            )
        if self.config.patch > 1:
            pixels = F.pixel_unshuffle(pixels, self.config.patch)
        out: Tensor = self.quant_conv(self.encoder(pixels))
        return out

    def search(self, latents: Tensor) -> Tensor:
        """Codes (B, h, w) nearest to latents (B, D, h, w)."""
        batch, _, height, width = latents.shape
        flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        return self.quantize.nearest(flat).view(batch, height, width)

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes (B, h, w) long of pixels (B, C, H, W) in [-1, 1]."""
        return self.search(self.latents(pixels))

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (B, C, H, W), about [-1, 1] and not clamped, of codes (B, h, w)."""
        return self.decode_latents(self.quantize(codes).permute(0, 3, 1, 2))

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """Pixels of quantized latents (B, D, h, w)."""
        out: Tensor = self.decoder(self.post_quant_conv(quantized))
        return F.pixel_shuffle(out, self.config.patch) if self.config.patch > 1 else out

    def forward(self, pixels: Tensor, beta: float = 0.25) -> VQOutput:
        """One training pass, straight through: |sg(z) - e|^2 + beta |z - sg(e)|^2 is the loss.

        VQ-VAE (arXiv 1711.00937) equation 3; beta 0.25 from there.
        """
        latents = self.latents(pixels)
        latents = F.normalize(latents, dim=1) if self.config.unit_codes else latents
        codes = self.search(latents)
        quantized = self.quantize(codes).permute(0, 3, 1, 2)
        loss = F.mse_loss(quantized, latents.detach()) + beta * F.mse_loss(
            latents, quantized.detach()
        )
        straight = latents + (quantized - latents).detach()
        return VQOutput(self.decode_latents(straight), loss, codes, latents)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> VQModel:
        """The VQ model of a directory: `vq_config` of config.json, vqgan.safetensors or .ckpt.

        Raises WeightsError if either is missing or they do not match.
        """
        directory = Path(directory)
        settings = weights.read_json(directory / "config.json").get("vq_config")
        if not isinstance(settings, Mapping):
            raise WeightsError(f"{directory / 'config.json'}: expected `vq_config`, found none")
        path = next((directory / n for n in FILES if (directory / n).is_file()), None)
        if path is None:
            raise WeightsError(
                f"{directory}: expected {' or '.join(FILES)}, found neither",
                hint="copy Chameleon's vqgan.ckpt there; transformers' weights lack the VQ decoder",
            )
        tensors = {
            k: v for k, v in weights.read_tensors(path, ROOTS).items() if not k.startswith("loss.")
        }
        with torch.device("meta"):
            model = cls(VQConfig.from_dict(settings))
        weights.load_into(model, tensors, what=str(path), dtype=dtype, device=device)
        return model.eval()

    def save_pretrained(self, directory: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write config.json (with `vq_config`) and vqgan.safetensors, each atomically."""
        directory = Path(directory)
        weights.write_tensors(directory / FILES[0], self.state_dict(), dtype=dtype)
        path = directory / "config.json"
        config = weights.read_json(path) if path.exists() else {}
        weights.write_json(path, config | {"vq_config": self.config.to_dict()})
