"""Registry: the published models that can be fetched by name, and their purpose.

File names are those at the source: `*` matches any characters, `a|b` takes the first that exists. A
revision of 40 hex digits is pinned; `main` is resolved by the first fetch and then pinned in weights.lock.
A size is exact if every file states its own; otherwise it is `about_bytes` and shown with `~`.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylear.errors import UsageError


@dataclass(frozen=True, slots=True)
class File:
    """A file of a model."""

    name: str  # at its source
    local: str = ""  # in the model's directory; as at its source when left out
    bytes: int = 0  # 0: as its source says
    sha256: str = ""  # "": as its source says


@dataclass(frozen=True, slots=True)
class Model:
    """A published model: its purpose, source, files and licence."""

    name: str
    purpose: str
    source: str  # a hub id, the https URL of a folder, or "" if it must be obtained by hand
    files: tuple[File, ...]
    licence: str
    needed_by: str
    revision: str = "main"
    about_bytes: int = 0  # approximate size of all files
    main: str = ""  # the file that the name resolves to; "": the directory
    terms: str = ""  # the page on which the licence must be accepted first

    @property
    def is_on_hub(self) -> bool:
        return bool(self.source) and "://" not in self.source

    @property
    def is_exact(self) -> bool:
        return all(file.bytes for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files) if self.is_exact else self.about_bytes

    @property
    def size(self) -> str:
        """Its size as text, with `~` if it is approximate."""
        return ("" if self.is_exact else "~") + format_bytes(self.bytes)


def format_bytes(num_bytes: int) -> str:
    """A number of bytes as text: 3.9 GB, 375 MB, 3 kB."""
    if num_bytes >= 999_500_000:
        return f"{num_bytes / 1e9:.1f} GB"
    if num_bytes >= 999_500:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes >= 1000 else f"{num_bytes} bytes"


def get_model(name: str) -> Model:
    """A registered model by name. Raises UsageError that suggests similar names."""
    from difflib import get_close_matches

    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name, MODELS, n=3, cutoff=0.5)
    raise UsageError(
        f"{name}: expected the name of a registered model, found no such name",
        hint=f"did you mean {', '.join(near)}?" if near else "`stylear models list` shows them all",
    )


def find_by_hub_id(hub_id: str) -> list[str]:
    """The names of the registered models whose source is a hub id."""
    return [model.name for model in MODELS.values() if model.is_on_hub and model.source == hub_id]


HUB_PAGE = "https://huggingface.co/"
SAM_FOLDER = "https://dl.fbaipublicfiles.com/segment_anything"  # segment-anything's README
AESTHETIC_FOLDER = (
    "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/"
    "6d122adad522ab246644d9dc1c6d7a3810ee255f"
)
OPENRAIL = "CreativeML Open RAIL++-M"
FLUX = "FLUX.1 [dev] non-commercial"
CHAMELEON = "Chameleon research only"
DEEPSEEK = "DeepSeek Model License"


def _files(*names: str) -> tuple[File, ...]:
    return tuple(map(File, names))


def _clip(arch: str, data: str, source: str, about: int, revision: str = "main") -> Model:
    files = _files(
        "open_clip_config.json",
        "open_clip_model.safetensors|open_clip_pytorch_model.safetensors|open_clip_pytorch_model.bin",
    )
    name, what = f"clip-{arch.lower()}-{data}", f"CLIP {arch}, {data}"
    by = "scorers clip-text and clip-image" if data != "openai" else "scorers of CLIP, aesthetic"
    return Model(name, what, source, files, "MIT", by, revision, about)


def _dinov2(size: str, about: int, revision: str) -> Model:
    files = _files("config.json", "preprocessor_config.json", "model.safetensors")
    name, by = f"dinov2-{size}", "scorers dino and cas"
    source = f"facebook/{name}"
    return Model(name, f"DINOv2 {size}", source, files, "Apache-2.0", by, revision, about)


def _ip_adapter(name: str, what: str, file: File, encoder: str, about: int) -> Model:
    main = file.name.rsplit("/", 1)[-1]
    files = (
        File(file.name, main, file.bytes, file.sha256),
        File(f"{encoder}/config.json", "image_encoder/config.json"),
        File(f"{encoder}/model.safetensors", "image_encoder/model.safetensors"),
    )
    purpose = f"IP-Adapter {what} for SDXL and its image encoder"
    by, revision = "instantstyle, ip-adapter", "018e402774aeeddd60609b4ecdb7e298259dc729"
    return Model(name, purpose, "h94/IP-Adapter", files, "Apache-2.0", by, revision, about, main)


def _lora(name: str, what: str, source: str, file: str, revision: str) -> Model:
    by, about = "synthesis with SDXL in few steps", 394_000_000
    return Model(name, what, source, _files(file), OPENRAIL, by, revision, about, main=file)


def _aesthetic(arch: str, num_bytes: int, sha256: str) -> Model:
    main, short = f"sa_0_4_vit_{arch}_linear.pth", arch.replace("_", "-")
    what = f"LAION aesthetic head for CLIP ViT-{short.upper()}, openai"
    by = f"scorer aesthetic, over clip-vit-{short}-openai"
    files = (File(main, "", num_bytes, sha256),)
    return Model(f"aesthetic-vit-{short}", what, AESTHETIC_FOLDER, files, "MIT", by, main=main)


def _janus(size: str, about: int) -> Model:
    name, source = f"janus-pro-{size.lower()}", f"deepseek-community/Janus-Pro-{size}"
    what, by = f"Janus-Pro {size} in transformers' format", "train, generate"
    return Model(name, what, source, DECODER_FILES, DEEPSEEK, by, about_bytes=about)


def _sam(main: str, num_bytes: int, sha256: str) -> Model:
    size = main.split("_")[2]
    name = f"sam-vit-{size}"
    files, by = (File(main, "", num_bytes, sha256),), f"sam:{name} (subject masks)"
    what = f"segment-anything ViT-{size.upper()}"
    return Model(name, what, SAM_FOLDER, files, "Apache-2.0", by, main=main)


SDXL_FILES = (
    *_files("model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/merges.txt"),
    *_files("tokenizer_2/*.json", "tokenizer_2/merges.txt", "text_encoder/config.json"),
    *_files("text_encoder_2/config.json", "unet/config.json", "vae/config.json"),
    # half precision under the plain names: half the size, and no `variant` to set
    File("text_encoder/model.fp16.safetensors", "text_encoder/model.safetensors"),
    File("text_encoder_2/model.fp16.safetensors", "text_encoder_2/model.safetensors"),
    File("unet/*_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors"),
    File("vae/*_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"),
)
FLUX_FILES = _files(
    "model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/merges.txt",
    "tokenizer_2/*.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder_2/*.json", "text_encoder_2/*.safetensors", "transformer/*.json",
    "transformer/*.safetensors", "vae/config.json", "vae/*.safetensors",
)  # fmt: skip
REDUX_FILES = _files(
    "model_index.json", "feature_extractor/*.json", "image_encoder/*.json",
    "image_encoder/*.safetensors", "image_embedder/*.json", "image_embedder/*.safetensors",
)  # fmt: skip
DECODER_FILES = _files("*.json", "model*.safetensors")
ENCODER_H, ENCODER_G = "models/image_encoder", "sdxl_models/image_encoder"

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        _clip("ViT-H-14", "laion2b", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 3_944_517_836,
              "1c2b8495b28150b8a4922ee1c8edee224c284c0c"),
        _clip("ViT-L-14", "laion2b", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", 1_710_517_748,
              "1627032197142fbe2a7cfec626f4ced3ae60d07a"),
        _clip("ViT-L-14", "datacomp", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", 1_710_000_000,
              "84c9828e63dc9a9351d1fe637c346d4c1c4db341"),
        _clip("ViT-B-32", "laion2b", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 605_000_000,
              "1a25a446712ba5ee05982a381eed697ef9b435cf"),
        _clip("ViT-L-14", "openai", "timm/vit_large_patch14_clip_224.openai", 1_710_000_000,
              "18d0535469bb561bf468d76c1d73aa35156c922b"),
        _clip("ViT-B-32", "openai", "timm/vit_base_patch32_clip_224.openai", 605_000_000),
        _clip("ViT-B-16", "openai", "timm/vit_base_patch16_clip_224.openai", 598_000_000),
        _dinov2("base", 346_000_000, "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
        _dinov2("large", 1_220_000_000, "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"),
        Model(
            "csd-vit-l", "CSD style encoder", "tomg-group-umd/CSD-ViT-L",
            (File("pytorch_model.bin", "", 2_438_228_893,
                  "40e92fad63a361b8136100cd234c42d401ef9b34ff1748234318929ebcc7e7a1"),),
            "CC-BY-4.0", "scorer csd", "5bc26a6fb0487f3f00a2a7313135103a005b1b67",
            main="pytorch_model.bin",
        ),
        _aesthetic("l_14", 4071,
                   "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba"),
        _aesthetic("b_32", 3047,
                   "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f"),
        _aesthetic("b_16", 3047,
                   "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0"),
        _sam("sam_vit_b_01ec64.pth", 375_042_383,
             "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        _sam("sam_vit_l_0b3195.pth", 1_249_524_607,
             "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        _sam("sam_vit_h_4b8939.pth", 2_564_550_879,
             "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
        Model(
            "sdxl-base", "SDXL base 1.0, half precision",
            "stabilityai/stable-diffusion-xl-base-1.0", SDXL_FILES, OPENRAIL,
            "instantstyle, ip-adapter, style-aligned", "462165984030d82259a11f4367a4eed129e94a7b",
            6_940_000_000,
        ),
        _ip_adapter("ip-adapter-sdxl", "plain (ViT-bigG)",
                    File("sdxl_models/ip-adapter_sdxl.safetensors"), ENCODER_G, 4_390_000_000),
        _ip_adapter("ip-adapter-sdxl-vit-h", "plain (ViT-H)",
                    File("sdxl_models/ip-adapter_sdxl_vit-h.safetensors"), ENCODER_H, 3_230_000_000),
        _ip_adapter("ip-adapter-plus-sdxl", "plus (ViT-H)",
                    File("sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors", "", 847_517_512,
                         "3f5062b8400c94b7159665b21ba5c62acdcd7682262743d7f2aefedef00e6581"),
                    ENCODER_H, 3_380_000_000),
        _lora("sdxl-lightning-4step", "SDXL-Lightning LoRA, 4 steps", "ByteDance/SDXL-Lightning",
              "sdxl_lightning_4step_lora.safetensors", "c9a24f48e1c025556787b0c58dd67a091ece2e44"),
        _lora("lcm-lora-sdxl", "LCM LoRA for SDXL", "latent-consistency/lcm-lora-sdxl",
              "pytorch_lora_weights.safetensors", "a18548dd4956b174ec5b0d78d340c8dae0a129cd"),
        Model(
            "flux-dev", "FLUX.1-dev", "black-forest-labs/FLUX.1-dev", FLUX_FILES, FLUX,
            "flux-redux", "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21", 33_700_000_000,
            terms=HUB_PAGE + "black-forest-labs/FLUX.1-dev",
        ),
        Model(
            "flux-redux", "FLUX.1-Redux-dev", "black-forest-labs/FLUX.1-Redux-dev", REDUX_FILES,
            FLUX, "flux-redux", "1282f955f706b5240161278f2ef261d2a29ad649", 1_000_000_000,
            terms=HUB_PAGE + "black-forest-labs/FLUX.1-Redux-dev",
        ),
        Model(
            "lumina-mgpt-7b-768", "Lumina-mGPT 7B, the base of StyleAR",
            "Alpha-VLLM/Lumina-mGPT-7B-768", DECODER_FILES, "see its model card",
            "train, generate; needs chameleon-vqgan", "9624463a82ea5ce814af9b561dcd08a31082c3af",
            14_100_000_000,
        ),
        Model(
            "lumina-mgpt-7b-768-omni", "Lumina-mGPT 7B for many tasks, the base of StyleAR with depth",
            "Alpha-VLLM/Lumina-mGPT-7B-768-Omni", DECODER_FILES, "see its model card",
            "generate --control; needs chameleon-vqgan", about_bytes=14_100_000_000,
        ),
        Model(
            "chameleon-7b", "Chameleon 7B", "facebook/chameleon-7b", DECODER_FILES, CHAMELEON,
            "train; needs chameleon-vqgan", about_bytes=14_100_000_000,
            terms=HUB_PAGE + "facebook/chameleon-7b",
        ),
        Model(
            "chameleon-vqgan", "Chameleon's VQGAN with its decoder", "", _files("vqgan.ckpt"),
            CHAMELEON, "chameleon-7b, lumina-mgpt-7b-768(-omni)", about_bytes=275_000_000, main="vqgan.ckpt",
            terms="https://github.com/facebookresearch/chameleon",
        ),
        _janus("1B", 4_180_000_000),
        _janus("7B", 14_840_000_000),
        Model(
            "stylear-release", "StyleAR as released: resampler and LoRA", "Ani2017/StyleAR",
            _files("image_proj.pth", "model.safetensors"), "see its model card",
            "generate, on lumina-mgpt-7b-768", about_bytes=2_460_000_000,
        ),
        Model(
            "stylear-release-depth", "StyleAR with depth as released: resampler and LoRA", "Ani2017/StyleAR",
            (File("Depth_condition/image_proj.pth", "image_proj.pth"),
             File("Depth_condition/model.safetensors", "model.safetensors")), "see its model card",
            "generate --control, on lumina-mgpt-7b-768-omni", about_bytes=2_460_000_000,
        ),
    )
}  # fmt: skip
