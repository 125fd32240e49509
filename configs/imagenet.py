"""SimCLR on ImageNet as in the paper: ResNet-50, LARS, batch 4096, 100 epochs, streamed from disk.

    python -m experiments.simclr --config configs/imagenet.py --config.data.data_dir=DIR

Data      `imagenet2012` of TFDS as ArrayRecord, 1,281,167 train and 50,000 validation images. Its
          two archives have to be in DIR/downloads/manual; then, where TensorFlow is installed,
          tfds build imagenet2012 --file_format=array_record --data_dir DIR
Source    Chen et al. 2020 (arXiv 2002.05709), section 2.1 and appendix A: color distortion of
          strength 1, blur with p 0.5, LARS with learning rate 0.3 x batch / 256, weight decay 1e-6,
          ten epochs of warm-up and a half cosine, head 2048-128. Temperature 0.1 is the best of its
          table 5. After 100 epochs it reports 64.5 % linear (table 1) in 1.5 hours on 128 TPU v3
          cores. That probe has all training images; the scores here have `data.bank` of them.
Hardware  a host whose accelerators hold 8,192 views of 224 px, or a smaller data.batch_size. JPEGs
          are decoded by `data.workers` processes: one for each core that the host can spare;
          `python -m benchmarks.host_input` says what a core does. A worker takes 30 MB of shared
          memory (docker: --shm-size). Not yet measured here.
tars      the same from tar files as WebDataset writes them, without TFDS: --config.data.data_dir is
          the folder of train*.tar and val*.tar, or data.train_split and data.test_split are
          patterns such as "imagenet-train-{0000..1023}.tar". Labels are the `.cls` members.
smoke     seconds, on any prepared set: --config.data.name=NAME
"""

from ml_collections import ConfigDict

from configs import cifar


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "tars" or "smoke"."""
    if preset not in ("full", "tars", "smoke"):
        raise ValueError(
            f"preset {preset!r} is unknown; configs/imagenet.py has full, tars and smoke"
        )
    config = cifar.get_config("full")
    with config.unlocked():
        config.data.update(
            {
                "name": "imagenet2012",
                "test_split": "validation",  # that of test has no labels
                "batch_size": 4096,
                "image_size": 224,  # of evaluation: the center 224 of a short side of 256
                "streaming": True,
                "workers": 16,
                "bank": 50_000,  # training images that vote in kNN and train the linear probe
            }
        )
    config.augment.update(
        {
            "size": 224,
            "crop_scale": (0.08, 1.0),
            # Strength 1 of (0.8, 0.8, 0.8, 0.2): appendix A, "color distortion".
            "brightness": 0.8,
            "contrast": 0.8,
            "saturation": 0.8,
            "hue": 0.2,
            "brightness_form": "additive",  # that of the paper's first code release
            "grayscale_probability": 0.2,
            "blur_probability": 0.5,
        }
    )
    config.encoder.update({"depth": 50, "stem": "imagenet"})
    config.head.update({"hidden_dim": 2048, "output_dim": 128, "layers": 2, "batch_norm": True})
    config.loss.temperature = 0.1
    config.optimizer.update(
        {
            "name": "lars",
            "learning_rate": 0.3,
            "scaling": "linear",
            "weight_decay": 1e-6,
            "decay_norm_and_bias": False,
            "warmup_epochs": 10.0,
        }
    )
    config.checkpoint.every_steps = 312  # one epoch
    config.eval.update({"every_steps": 3120, "batch_size": 1024})
    if preset == "tars":
        config.data.update({"source": "webdataset", "name": None, "test_split": "test"})
    if preset == "smoke":
        cifar.shrink(config)
        config.data.update({"batch_size": 16, "image_size": 32, "workers": 1, "bank": 64})
        config.optimizer.warmup_epochs = 0.5
    return config
