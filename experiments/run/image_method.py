"""What the commands of the image methods share: from a function `make` to a command."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax import augment, encoders
from contrastive_jax.encoders import heads
from contrastive_jax.types import Objective, RunInfo
from experiments.run.build import Experiment
from experiments.run.encoder import ENCODER
from experiments.run.sections import as_kwargs, takes
from experiments.scoring import images, kinds

FLAGS = """
--config FILE[:preset]         a file of configs/
--config.section.key=value     change one value of it; None gives a key its default back
--workdir DIR                  where the run lives (default: runs/NAME); the same command resumes it
--strict_resume                a damaged newest checkpoint is an error, not skipped
--coordinator HOST:PORT --num_processes N --process_id I     one of N processes that train jointly;
                               on Slurm and Cloud TPU they find each other
"""
GIVEN = ("encoder", "head", "predictor", "views", "n_classes", "steps")  # not of its section


def experiment(
    name: str, doc: str | None, make: Callable[..., Objective], *, multi_crop: bool = False
) -> Experiment:
    """Make the experiment of an image method.

    Args:
      name: of the command and of the section with the method's settings.
      doc: of the command, which --help prints.
      make: `make(encoder=, head=, views=, n_classes=, **settings)`; where it also names `predictor`
        (a head on embeddings, with a section of that name and their dimensions) or `steps`, these
        are given to it.
      multi_crop: the method reads the small views.
    """
    given = [key for key in GIVEN if key in inspect.signature(make).parameters]
    predictor = {"predictor": takes(heads.make, without=("output_dim",))}

    def build(config: ConfigDict, info: RunInfo) -> Objective:
        views = images.views(config) if multi_crop else one_size_of_views(config, name)
        arguments: dict[str, Any] = {
            "encoder": encoders.make(**as_kwargs(config, "encoder")),
            "views": views,
            "n_classes": info.n_classes,
            "steps": info.steps,
            "head": heads.make(**as_kwargs(config, "head")),
        }
        if "predictor" in given:
            dims = {"output_dim": config.head.output_dim}
            arguments["predictor"] = heads.make(**as_kwargs(config, "predictor"), **dims)
        return make(**{key: arguments[key] for key in given}, **as_kwargs(config, name))

    return Experiment(
        name=name,
        usage=usage(doc),
        sections={
            "encoder": ENCODER,
            "head": takes(heads.make),
            **(predictor if "predictor" in given else {}),
            name: takes(make, without=GIVEN),
        },
        build=build,
        kind=kinds.IMAGES,
    )


def one_size_of_views(config: ConfigDict, name: str) -> augment.Views:
    """Make the augmentations of a method that reads no small views.

    Raises:
      ValueError: the config asks for some.
    """
    if config.augment.n_small_views:
        raise ValueError(
            f"augment.n_small_views is {config.augment.n_small_views}, but {name} compares views "
            "of one size; set it to 0"
        )
    return images.views(config)


def usage(doc: str | None) -> str:
    """Complete what --help prints by the flags that every method has."""
    return f"{(doc or '').strip()}\n{FLAGS}"


def run(experiment: Experiment) -> None:
    """Run the command of an experiment, and leave with its exit code."""
    from experiments.run import command_line, lifecycle, multihost  # they import every method

    with command_line.exit_codes():
        multihost.leave(lifecycle.main(experiment, sys.argv))
