"""What a compiled program sends between devices and moves in memory, read from its HLO."""

import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_CONTROL = ("while", "call", "conditional")
_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", *_CONTROL}
_ARRAY = r"\b([a-z]\w*)\[([\d,<= ]*)\]"
_SCATTERED = "fused-"  # before the opcode of what is a sum and a slice of it in the text
_CALLS = {  # what runs other computations, and the attributes that name them
    "while": ("body", "condition"),
    "fusion": ("calls",),
    "async-start": ("calls",),
    "call": ("to_apply",),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
}


class Collective(NamedTuple):
    """A collective of a step, as one device takes part in it."""

    kind: str  # of `KINDS`
    bytes: int  # of the whole arrays: what a gather gives, what a reduce-scatter is given
    group: int  # devices that exchange them
    source: str  # "file:line" of the program, or of what it is given where it says none
    op_name: str  # of JAX: "jit(train_step)/transpose(jvp())/dot_general"

    @property
    def sent(self) -> float:
        """Bytes that a device has to send at least, whatever the algorithm.

        >>> Collective("all-reduce", 100, 4, "", "").sent
        150.0
        """
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.bytes)
        once = self.bytes * (self.group - 1) / self.group
        return 2 * once if self.kind == "all-reduce" else once


def collectives(hlo: str) -> Counter[Collective]:
    """Count how often a program runs each of its collectives.

    Start and done of an asynchronous one are one; so are the parts that the TPU's compiler spreads
    over fusions. What is in a loop counts as often as the loop runs, or once where the text does
    not say it, and every branch of a conditional counts. An exchange of a device with itself is
    none.

    Args:
      hlo: of `jax.stages.Compiled.as_text`.

    >>> text = '''HloModule m, num_partitions=4
    ...
    ... ENTRY main {
    ...   p = f32[2,8]{1,0} parameter(0)
    ...   ROOT g = f32[8,8]{1,0} all-gather(p), channel_id=1, replica_groups=[1,4]<=[4]
    ... }'''
    >>> [(each.kind, each.bytes, each.group, n) for each, n in collectives(text).items()]
    [('all-gather', 256, 4, 1)]
    """
    program = _Program(hlo)
    found: Counter[Collective] = Counter()
    for line, times in program.executed(program.entry, inside=("fusion", "async-start")):
        if line.kind is not None:
            collective = program.collective(line)
            found[collective] += times * (collective.group > 1)
    return +found


def traffic(hlo: str) -> int:
    """Count the bytes of HBM that the instructions of a program for TPUs read and write.

    Operands and results in the fast memories of the chip, S(1) of a layout, cost nothing; the
    others count whole, also where a fusion reads a part. XLA's own count of bytes has the
    fast memories and what gathers read again in it: a thousand times as much, of a small program.

    >>> text = '''HloModule m
    ...
    ... ENTRY main {
    ...   p = f32[8]{0} parameter(0)
    ...   q = f32[8]{0:T(128)S(1)} negate(p)
    ...   ROOT r = f32[8]{0} add(q, p)
    ... }'''
    >>> traffic(text)  # p read, p read and r written
    96
    """
    program = _Program(hlo)
    total = 0
    for line, times in program.executed(program.entry):
        if line.opcode not in _FREE and not line.opcode.endswith(("-done", "-update")):
            read = sum(_bytes_in_hbm(each.type) for each in program.operands(line))
            if line.opcode.endswith("-start"):  # a copy or a slice of what it is given
                read = min(read, _bytes(line.result))
            total += times * (read + _bytes_in_hbm(line.result))
    return total


def flop(hlo: str) -> int:
    """Count the FLOP of the matrix products and convolutions, those of loops as often as they run.

    A multiplication and an addition are two; what a convolution multiplies by padding is none.

    >>> text = '''HloModule m
    ...
    ... ENTRY main {
    ...   p = f32[8,3]{1,0} parameter(0)
    ...   q = f32[3,5]{1,0} parameter(1)
    ...   ROOT r = f32[8,5]{1,0} dot(p, q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }'''
    >>> flop(text)
    240
    """
    program = _Program(hlo)
    lines = program.executed(program.entry, inside=("fusion", "async-start"))
    of = {"dot": program.dot, "convolution": program.convolution}
    return sum(2 * times * of[line.opcode](line) for line, times in lines if line.opcode in of)


def cycles(hlo: str) -> int:
    """Sum what the TPU's compiler takes its instructions for, by its own model of the chip."""
    program = _Program(hlo)
    estimate = re.compile(r'"estimated_cycles":"(\d+)"')
    found = (
        (estimate.search(line.attributes), line.opcode, times)
        for line, times in program.executed(program.entry)
    )
    return sum(int(of[1]) * times for of, opcode, times in found if of and opcode not in _CONTROL)


class _Line(NamedTuple):
    """An instruction: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    attributes: str  # with the operands

    @property
    def kind(self) -> str | None:
        """Of a collective, but for the end of an asynchronous one."""
        kind = self.opcode.removesuffix("-start").removeprefix(_SCATTERED)
        return kind if kind in KINDS else None

    @property
    def result(self) -> str:
        """The type without what the start of an asynchronous one has beside it."""
        if not self.opcode.endswith("-start") or self.opcode == "all-reduce-start":
            return self.type
        return _elements(self.type)[0 if self.opcode == "copy-start" else 1]


class _Program:
    """The computations of a module by name, as lines."""

    def __init__(self, hlo: str):
        self.computations: dict[str, list[_Line]] = {}
        self.named: dict[str, _Line] = {}
        self.entry = ""
        header, _, body = hlo.partition("\n")
        counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)
        self._devices = math.prod(map(int, counts))
        self._sources = _Sources(body)
        lines: list[_Line] = []
        for text in body.splitlines():
            if opened := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", text):
                lines = self.computations[opened[2]] = []
                self.entry = opened[2] if opened[1] else self.entry
            elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)(\(.*)", text):
                lines.append(_Line(*found.groups()))
                self.named[found[1]] = lines[-1]

    def executed(
        self, name: str, times: int = 1, inside: Collection[str] = ()
    ) -> Iterator[tuple[_Line, int]]:
        """Yield the instructions that a computation runs, and how often.

        Those of fusions come where they are looked for, `inside` of the opcodes.
        """
        lines = self.computations.get(name, [])
        starts = [line.attributes for line in lines if '"AsyncCollectiveStart"' in line.attributes]
        for line in lines:
            if not _goes_on(line, starts):
                yield line, times
            if line.opcode not in (*_CONTROL, *inside):
                continue
            runs = self._trips(line) if line.opcode == "while" else 1
            for called in _called(line, *_CALLS[line.opcode]):
                for each, n in self.executed(called, times * runs, inside):
                    yield (_fused(each, line, called) if line.opcode == "fusion" else each), n

    def _trips(self, loop: _Line) -> int:
        """How often a loop runs: as is written beside it, or up to the constant of its condition.

        Loops of JAX count from 0 by 1. It is 1 where neither says it.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        lines = [x for name in _called(loop, "condition") for x in self.computations.get(name, ())]
        counts = any(x.opcode == "compare" and "direction=LT" in x.attributes for x in lines)
        limits = [re.match(r"\((\d+)\)", x.attributes) for x in lines if x.opcode == "constant"]
        return int(limits[0][1]) if counts and len(limits) == 1 and limits[0] else 1

    def collective(self, line: _Line) -> Collective:
        """Read the line of a collective."""
        kind = line.kind or ""
        size = _bytes(line.result)
        group = self._group(line.attributes)
        if line.opcode.startswith("reduce-scatter"):
            size *= group
        described = [
            each for each in (line, *self.operands(line)) if "metadata=" in each.attributes
        ]
        about = described[0].attributes if described else ""
        name = re.search(r'op_name="([^"]*)"', about)
        return Collective(kind, size, group, self._sources.of(about), name[1] if name else "")

    def dot(self, line: _Line) -> int:
        """Count the multiplications of a matrix product."""
        given = _dims(self.operands(line)[0].type)
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
        axes = [int(axis) for axis in summed[1].split(",") if axis] if summed else []
        return math.prod(_dims(line.type)) * math.prod(given[axis] for axis in axes)

    def convolution(self, line: _Line) -> int:
        """Count the multiplications of a convolution, as a TPU's matrix product is written, too."""
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.attributes)
        first, *others = self.operands(line)  # one operand, where both are the same
        types = first.type, (others or [first])[0].type, line.type
        x, kernel, y = (
            dict(zip(names, _dims(of), strict=True))
            for names, of in zip(labels.groups(), types, strict=True)  # type: ignore
        )
        window = re.search(r"window=\{([^}]*)\}", line.attributes)
        settings = dict(each.split("=") for each in window[1].split()) if window else {}
        places = 1
        for i in range(len(x) - 2):
            stride, x_step, step = (
                int(settings[key].split("x")[i]) if key in settings else 1
                for key in ("stride", "lhs_dilate", "rhs_dilate")
            )
            pad = int(settings["pad"].split("x")[i].split("_")[0]) if "pad" in settings else 0
            sizes = x[str(i)], kernel[str(i)], y[str(i)]
            places *= _places(*sizes, stride, x_step, step, pad)
        groups = re.search(r"batch_group_count=(\d+)", line.attributes)
        batch = x["b"] // (int(groups[1]) if groups else 1)
        return batch * kernel["i"] * kernel["o"] * places

    def operands(self, line: _Line) -> list[_Line]:
        """The instructions whose results a line is given, each once."""
        names = re.findall(r"[\w.\-]+", _uncommented(line.attributes.partition(")")[0]))
        return [self.named[name] for name in dict.fromkeys(names) if name in self.named]

    def _group(self, attributes: str) -> int:
        """The devices of a group, in any of the forms that groups are written in."""
        if "source_target_pairs=" in attributes:
            pairs = re.search(r"source_target_pairs=\{(.*?\})\}", attributes)
            apart = re.findall(r"\{(\d+),(\d+)\}", pairs[1]) if pairs else []
            return 2 if any(a != b for a, b in apart) else 1
        if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
            return listed[1].count(",") + 1
        if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
            return int(iota[1])
        if axes := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
            sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes[1]))
            named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", axes[2])
            return math.prod(int(part or sizes[axis]) for axis, part in named)
        if "replica_groups=" not in attributes or "replica_groups={}" in attributes:
            return self._devices
        raise ValueError(f"groups of a form that is not known: {attributes[:300]}")


def _fused(line: _Line, fusion: _Line, name: str) -> _Line:
    """A collective of a fusion: with the place of the fusion, and scattered where a TPU does it."""
    if line.kind is None:
        return line
    opcode = f"{_SCATTERED}reduce-scatter" if name.startswith("all-reduce-scatter") else line.opcode
    place = "" if "metadata=" in line.attributes else fusion.attributes
    return line._replace(opcode=opcode, attributes=line.attributes + place)


def _goes_on(line: _Line, starts: Collection[str]) -> bool:
    """Whether it is a collective that was started in another fusion (TPU)."""
    named = re.compile(rf"\((?:[^)]*, )?%?{re.escape(line.name)}[,)]")
    is_spread = line.kind is not None and "async_collective_fusion_config" in line.attributes
    return is_spread and not any(named.match(start) for start in starts)


def _called(line: _Line, *keys: str) -> list[str]:
    found = []
    for key in keys:
        for one, several in re.findall(rf"\b{key}=(?:%?([\w.\-]+)|\{{(.*?)\}})", line.attributes):
            found += [one] if one else re.findall(r"[\w.\-]+", several)
    return found


def _elements(type_text: str) -> list[str]:
    """The elements of a tuple type.

    >>> _elements("(f32[2]{0:T(8,128)}, (s8[4], u8[]), u32[])")
    ['f32[2]{0:T(8,128)}', '(s8[4], u8[])', 'u32[]']
    """
    found, depth = [""], 0
    for letter in type_text[1:-1]:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]


@functools.cache
def _places(x: int, kernel: int, y: int, stride: int, x_step: int, step: int, pad: int) -> int:
    """Count the pairs of a place of the result and one of the kernel that meet an input.

    >>> _places(4, 3, 4, 1, 1, 1, 1)  # the two at the ends meet padding
    10
    """
    at = np.arange(y)[:, None] * stride + np.arange(kernel)[None, :] * step - pad
    return int(np.sum((at >= 0) & (at <= (x - 1) * x_step) & (at % x_step == 0)))


def _dims(type_text: str) -> list[int]:
    """The sizes of an array.

    >>> _dims("f32[8,3]{1,0}")
    [8, 3]
    """
    return [int(dim) for dim in re.findall(r"\d+", re.findall(_ARRAY, type_text)[0][1])]


def _bytes(type_text: str) -> int:
    """Bytes of all arrays of a type.

    >>> _bytes("(bf16[2,3]{1,0:T(8,128)(2,1)}, pred[], f8e4m3fn[4])")
    17
    """
    return sum(_bits(*array) for array in re.findall(_ARRAY, _uncommented(type_text))) // 8


def _bytes_in_hbm(type_text: str) -> int:
    """Bytes of those arrays of a type that lie in no other memory.

    >>> _bytes_in_hbm("(f32[2]{0:T(128)S(1)}, f32[3]{0})")
    12
    """
    arrays = re.findall(rf"({_ARRAY}(?:\{{[^}}]*\}})?)", _uncommented(type_text))
    return sum(_bits(*array[1:]) for array in arrays if not re.search(r"S\(\d", array[0])) // 8


def _uncommented(type_text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", type_text)


def _bits(kind: str, dims: str) -> int:
    size = math.prod(int(dim.strip("<= ")) for dim in dims.split(",") if dim.strip())
    return size * (_BITS[kind] if kind in _BITS else int(re.findall(r"\d+", kind)[0]))


class _Sources:
    """The place in the program of an instruction: beside it, or in tables at the head."""

    def __init__(self, hlo: str):
        rows = {name: _table(hlo, name) for name in ("FileNames", "FileLocations", "StackFrames")}
        self._files, self._locations, self._frames = rows.values()

    def of(self, attributes: str) -> str:
        """As "file:line", empty where it is not known."""
        frame = re.search(r"stack_frame_id=(\d+)", attributes)
        if frame is None or frame[1] not in self._frames:
            beside = re.search(r'source_file="([^"]*)" source_line=(\d+)', attributes)
            return f"{beside[1]}:{beside[2]}" if beside else ""
        location = self._locations[_number(self._frames[frame[1]], "file_location_id")]
        file = self._files[_number(location, "file_name_id")].strip('"')
        return f"{file}:{_number(location, 'line')}"


def _number(row: str, key: str) -> str:
    return re.search(rf"\b{key}=(\d+)", row)[1]  # type: ignore


def _table(hlo: str, name: str) -> dict[str, str]:
    found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", hlo, re.MULTILINE)
    rows = found[1].splitlines() if found else ()
    return dict(row.split(" ", 1) for row in rows)
