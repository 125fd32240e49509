"""Give the smoke config of CIFAR the keys of a streamed set."""

from ml_collections import config_dict

from configs import cifar


def get_config():
    config = cifar.get_config("smoke")
    with config.unlocked():
        config.data.update({"streaming": False, "test_split": "test"})
        config.data.image_size = config_dict.placeholder(int)
        for limit in ("limit_train", "limit_test"):
            del config.data[limit]
    return config
