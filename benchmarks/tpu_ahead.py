"""Compile the training step of a config for TPUs, without one: does it fit, and what bounds it.

    python -m pip download --no-deps "libtpu==0.0.42.*" && unzip libtpu-*.whl -d DIR   # jax[tpu]'s
    python -m benchmarks.tpu_ahead configs/cifar.py v5e:2x2 --libtpu DIR/libtpu/libtpu.so
    python -m benchmarks.tpu_ahead configs/captions.py v5p:4x4x4 --images 3000000 --words 49408 \
        --config.data.streaming=True --config.data.batch_size=32768
    python -m benchmarks.tpu_ahead --smoke

The step is the one that `training.run` compiles, the data stand-ins of the sizes of the set: of
`SETS`, or of --images, --side, --classes and --words; without any of them the data is read.
Everything is of one device. The bound of a step is the longest of three times: its FLOP at the
chip's peak, what its instructions read and write in HBM at the HBM's rate, and its collectives at
the rate of the links. FLOP are those of products and convolutions; operands count whole, also where
a fusion reads a part of one. What runs would have to be measured.
Compiling takes 10 s for a small step, and 10 minutes for a large one on two cores.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shared import harness, hlo, tpu

GB = 10**9
SHOWN = 12  # collectives that are printed; all are recorded


class Set(NamedTuple):
    """The sizes of a data set."""

    images: int  # of training
    classes: int
    side: int | None = None  # in pixels; None: the config's data.image_size
    words: int = 0  # of the vocabulary of captions


SETS = {"cifar10": Set(50_000, 10, 32), "imagenet2012": Set(1_281_167, 1000)}


def build(path: str, overrides: Mapping[str, str], topology: str, sizes: Set | None) -> Any:
    """Build the run of a config for the devices of a topology, on data of some sizes."""
    from experiments.run import build, command_line, methods

    experiment = methods.of_sections(command_line.read(path))
    config = command_line.override(command_line.read(path), overrides, experiment.all_sections())
    config = experiment.resolve(config)
    devices = tpu.devices(topology)
    build.check_batch(config.data.batch_size, build.make_mesh(config, devices))
    sizes = sizes or SETS.get(config.data.get("name") or "")
    if sizes is None:
        return build.build(experiment, config, devices=devices)
    side = sizes.side or config.data.image_size
    identity = {
        "name": config.data.get("name") or config.data.source,
        "train": sizes.images,
        "test": 1,
        "image_shape": (side, side, 3),
        "class_names": [str(number) for number in range(sizes.classes)],
        "vocabulary": [""] * sizes.words,
    }
    stand_in = lambda config: experiment.kind.stand_in(config, identity)  # noqa: E731
    return build.build(experiment, config, stand_in, devices)


def measured(run: Any, chip: tpu.Chip, text: Path | None = None) -> dict[str, Any]:
    """Compile the step of a run: memory, FLOP and collectives, or why it does not fit."""
    import jax

    from contrastive_jax import training

    lowered = run.lowered_step()
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = tpu.needed_of(error)
        if needed is None:
            raise
        return {"needs": needed}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    program = compiled.as_text()
    if text is not None:
        text.write_text(program)
    found = [
        {**each._asdict(), "source": _short(each.source), "count": n, "sent": n * each.sent}
        for each, n in hlo.collectives(program).items()
    ]
    flop, moved = hlo.flop(program), hlo.traffic(program)
    seconds = {
        "products": flop / (chip.teraflops * 1e12),
        "memory": moved / (chip.hbm * GB),
        "collectives": sum(each["sent"] for each in found) / (chip.ici * GB),
    }
    return {
        "held": training.held_bytes(compiled),
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "flop": flop,
        "traffic": moved,
        "cycles_by_the_compiler": hlo.cycles(program),
        "xla": {name: cost[name] for name in ("flops", "bytes accessed")},  # loops once
        "seconds_bound": {**seconds, "step": max(seconds.values())},
        "seconds_to_compile": round(time.perf_counter() - start, 1),
        "collectives": sorted(found, key=lambda each: -each["sent"]),
    }


def _short(source: str) -> str:
    """The file from the root of the repository, or of a package, on."""
    return re.sub(r"^.*/site-packages/", "", source.removeprefix(f"{harness.ROOT}/"))


def shown(row: Mapping[str, Any]) -> str:
    """Summarize a row for the terminal."""
    head = f"{row['config']} on {row['topology']}, each of {row['devices']} devices:"
    if "needs" in row:
        return f"{head}\n  does not fit: it needs {row['needs']}"
    held, arguments, temporaries = (
        f"{row[name] / 2**30:.2f}" for name in ("held", "arguments", "temporaries")
    )
    seconds = {name: f"{value:.4f}" for name, value in row["seconds_bound"].items()}
    of_it = ", ".join(f"{name} {value}" for name, value in seconds.items() if name != "step")
    lines = [
        head,
        f"  memory   {held} of {row['hbm_gib']:.0f} GiB: arguments {arguments}, "
        f"temporaries {temporaries}",
        f"  work     {row['flop'] / 1e12:.3f} TFLOP, {row['traffic'] / GB:.1f} GB of HBM traffic, "
        f"{row['cycles_by_the_compiler'] / 1e6:.1f} M cycles by the compiler's model",
        f"  bound    {seconds['step']} s: {of_it}",
        "  times  MB sent  collective",
    ]
    for each in row["collectives"][:SHOWN]:
        place = each["op_name"].removeprefix("jit(train_step)/")
        lines.append(
            f"  {each['count']:5d}  {each['sent'] / 1e6:7.2f}  {each['kind']} over "
            f"{each['group']}, {each['source']}  {place}"
        )
    if others := row["collectives"][SHOWN:]:
        sent = sum(each["sent"] for each in others) / 1e6
        lines.append(f"  {sum(each['count'] for each in others):5d}  {sent:7.2f}  others")
    return "\n".join(lines)


def main() -> None:
    from experiments.run import command_line

    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("config", nargs="?", default="configs/cifar.py", help="FILE[:preset]")
    parser.add_argument("topology", nargs="?", default="v5e:2x2", help="such as v5p:4x4x4")
    parser.add_argument("--libtpu", type=Path, default=tpu.installed_libtpu())
    parser.add_argument("--images", type=int, help="of the training set")
    parser.add_argument("--side", type=int, help="of an image, in pixels")
    parser.add_argument("--classes", type=int, default=0)
    parser.add_argument("--words", type=int, default=0, help="of the vocabulary of captions")
    parser.add_argument("--hlo", type=Path, help="write the compiled program to this file")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "tpu_ahead.json")
    overrides, words = command_line.split_overrides(sys.argv[1:], "config")
    args = harness.parse(parser, words, config="configs/digits.py:smoke")
    if args.libtpu is None or not args.libtpu.exists():
        parser.error("there is no libtpu.so here; give --libtpu FILE, as the head of --help says")
    tpu.use(args.libtpu)
    sizes = args.images and Set(args.images, args.classes, args.side, args.words)
    with command_line.exit_codes(), command_line.bad_values():
        chip = tpu.chip_of(args.topology)
        run = build(args.config, overrides, args.topology, sizes)
        about = {
            "config": args.config,
            "overrides": overrides,
            "topology": args.topology,
            "devices": run.mesh.devices.size,
            "batch_size": run.dataset.batch_size,
            "images": run.dataset.n_train,
            "hbm_gib": chip.gibibytes,
            **harness.circumstances(("jax",)),
            "libtpu": tpu.version_of(args.libtpu),
        }
        row = {**about, **measured(run, chip, args.hlo)}
    print(shown(row))
    kept = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    which = ("config", "overrides", "topology")
    others = [each for each in kept if any(each[key] != row[key] for key in which)]
    harness.write(args.out, {"chips": tpu.CHIPS, "rows": [*others, row]})


if __name__ == "__main__":
    main()
