"""CLIP on one's own captioned images: a ViT-B/16 and a text transformer, from a list of files.

    python -m experiments.clip --config configs/captions.py --config.data.path=photos.jsonl

Data      a .jsonl of {"image": PATH, "texts": [...]}, or a .tsv or .csv with filepath and title;
          paths are relative to it. A tenth of the images is held out. In memory an image takes
          150 KB; --config.data.streaming=True leaves them on disk.
Towers    ViT-B/16 and a transformer of 12 layers, width 512, 8 heads, 77 tokens; 512 dimensions
          (Radford et al. 2021, arXiv 2103.00020, tables 18 and 19).
Recipe    Adam with decoupled decay 0.2, rate 5e-4 for ViT-B/16, cosine, temperature from 0.07 on
          and not below 0.01, 32 epochs (same tables). Its beta_2 is 0.98 and epsilon 1e-6, here
          0.999 and 1e-8. Its warm-up is 2,000 of about 390,000 steps: 0.16 epochs. Its batch is
          32,768, which few sets have: 512 here. Crops of 0.9 to 1 of the area, as in open_clip.
Hardware  an accelerator that holds 512 images of 224 px; train.chunk_size encodes fewer at a time.
          Not yet measured.
lit       a frozen image tower without a projection (LiT, Zhai et al. 2022, arXiv 2111.07991):
          --config.encoder.init=FILE with the tensors of a timm ViT-B/16. Rate 1e-3, decay 0.01,
          temperature from 0.1 on, 5,000 steps; as `lit_coco.py` of big_vision, whose batch is
          4,096 and warm-up 150 steps.
lit_bert  the same with a text tower from --config.text.folder=DIR, as there: BERT, or a folder of
          sentence-transformers.
smoke     seconds: small towers on 32 px.
"""

from ml_collections import ConfigDict, config_dict

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "", "lit", "lit_bert" or "smoke"."""
    presets = {"": lambda config: None, "lit": _lit, "lit_bert": _lit_bert}
    presets["smoke"] = _smoke
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is unknown; configs/captions.py has {[*presets]}")
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "captions",
            "path": config_dict.placeholder(str),
            "batch_size": 512,
            "image_size": 224,
            "context": 77,
        }
    )
    config.augment = ConfigDict(
        {
            "size": 224,
            "n_views": 1,  # a second one would be decoded and sent, and shown to nobody
            "crop_scale": (0.9, 1.0),
            "flip_probability": 0.0,  # a caption may say left and right
            "jitter_probability": 0.0,
            "grayscale_probability": 0.0,
        }
    )
    config.encoder = ConfigDict(
        {"name": "vit", "size": "B", "patch_size": 16, "style": "clip", "mean": MEAN, "std": STD}
    )
    config.head = ConfigDict({"kind": "linear", "output_dim": 512, "bias": False})
    config.text = ConfigDict(
        {"name": "transformer", "dim": 512, "layers": 12, "heads": 8, "context": 77}
    )
    config.loss = ConfigDict({"kind": "symmetric_info_nce", "temperature_start": 0.07})
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 5e-4,
            "momentum": 0.9,
            "weight_decay": 0.2,
            "warmup_epochs": 0.16,
            "frozen": "",
        }
    )
    config.train = ConfigDict(
        {
            "steps": config_dict.placeholder(int),
            "epochs": 32.0,
            "seed": 0,
            "log_every": 20,
        }
    )
    config.checkpoint = ConfigDict({"every_steps": 1000, "keep": 2})
    config.eval = ConfigDict({"labels_per_class": 0, "batch_size": 512, "figures": True})
    presets[preset](config)
    return config


def _lit(config: ConfigDict) -> None:
    # As the ViTs of arXiv 2106.10270 were trained.
    config.encoder.update({"style": "timm", "mean": (0.5,), "std": (0.5,)})
    config.head = ConfigDict({"kind": "none", "output_dim": 768})  # that of the captions
    config.loss.temperature_start = 0.1
    config.optimizer.update({"learning_rate": 1e-3, "weight_decay": 0.01, "frozen": "encoder/"})
    config.optimizer.warmup_epochs = 0.0
    config.train.update({"steps": 5000, "epochs": None})


def _lit_bert(config: ConfigDict) -> None:
    _lit(config)
    config.text = ConfigDict({"name": "bert", "folder": "DIR"})


def _smoke(config: ConfigDict) -> None:
    config.data.update({"batch_size": 4, "image_size": 32, "context": 16})
    config.augment.size = 32
    config.encoder.update({"patch_size": 8, "dim": 32, "layers": 1, "heads": 2})
    config.head.output_dim = 16
    config.text.update({"dim": 32, "layers": 1, "heads": 2, "context": 16})
    config.train.update({"steps": 4, "epochs": None, "log_every": 2})
    config.optimizer.warmup_epochs = 0.0
