"""The interface between a method and the engine that trains it.

Dimension letters used in names across the library:

    B  examples in the global batch     D  embedding             H W C  image
    V  views of one example             F  features              N      rows on this device
    K  negatives or classes             L  tokens                M      rows on all devices
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh

# Arrays of B rows: "image" [B,H,W,C] uint8, or [B,V,H,W,C] where the views were cut on the host;
# "index" [B] int32; "label" [B] int32 where the set has one, -1 for an unlabeled example; of
# captioned images "tokens" [B,L] int32, padded with 0, and "id" [B] int32, equal for one thing; of
# pairs of texts "query" and "document" [B,L], their lengths, "id", and perhaps negatives [B,K,L],
# or in place of those the documents that they are mined from, "corpus" [M,L]
Batch = Mapping[str, jax.Array]
Params = Any  # a pytree of float32 arrays, trained by the optimizer
ModelState = Any  # a pytree that is carried but not trained: batch statistics, EMA weights, a queue
Metrics = dict[str, jax.Array]  # scalars


class LossOutput(NamedTuple):
    """What a loss returns beside its value."""

    model_state: ModelState
    metrics: Metrics


class InitFn(Protocol):
    def __call__(self, key: jax.Array, batch: Batch) -> tuple[Params, ModelState]: ...


class LossFn(Protocol):
    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, LossOutput]: ...


class EmbedFn(Protocol):
    def __call__(
        self, params: Params, model_state: ModelState, batch: Batch
    ) -> dict[str, jax.Array]: ...


class Objective(NamedTuple):
    """A method as pure functions; its hyperparameters are held by closure.

    `init` makes the parameters and the model state from one batch. `loss` is the scalar to
    minimize, on the global batch, at a step counted from 0. `embed` maps what is embedded
    ("image", "text", ...) to the encoder in evaluation mode: {"features": [B,F], "embedding":
    [B,D]}. `auxiliary` names the top-level parameters that measure and do not belong to the method,
    such as an online probe, or are those of the loss: the optimizer neither decays nor adapts them.
    `constant_rate` names those whose learning rate stays at its peak. `chunk_size` says how many
    examples it encodes at a time, None for the batch as a whole.
    """

    init: InitFn
    loss: LossFn
    embed: Mapping[str, EmbedFn]
    auxiliary: tuple[str, ...] = ()
    constant_rate: tuple[str, ...] = ()
    chunk_size: int | None = None


class RunInfo(NamedTuple):
    """What building an objective may need beside its config."""

    mesh: Mesh
    steps: int  # of the whole training, for schedules
    n_classes: int  # of the online probe and of supervised losses; 0 without labels
    n_tokens: int = 0  # of the vocabulary of captions or texts
    chunk_size: int | None = None  # examples to encode at a time; None for the batch as a whole
    idf_T: Any = None  # how telling each token of texts is, float32 [T]
    negatives_NK: Any = None  # rows of "corpus" before the first refresh, where they are mined
    longest: tuple[int, ...] = ()  # tokens of a document, of every so many rows in turn


class Feed(NamedTuple):
    """Where batches come from, as functions of the step, so that a resume needs no iterator state.

    `resident` stays on the device for the whole run ({} when the data is streamed),
    `batch_at(step)` is the host arrays that the step needs, and `assemble(resident, sent)` makes
    the batch of them inside the compiled step. Where a batch costs work on the host, `spec` is the
    shapes and dtypes of one, and `close()` ends the processes that read; `batch_at` may be called
    again after it.
    """

    resident: Batch
    batch_at: Callable[[int], Mapping[str, Any]]
    assemble: Callable[[Batch, Batch], Batch]
    spec: Mapping[str, jax.ShapeDtypeStruct] | None = None
    close: Callable[[], None] = lambda: None


class Crops(NamedTuple):
    """The random resized crops of an example, where the host cuts them."""

    n_views: int
    size: int  # their side, in pixels
    scale: tuple[float, float]  # area before resizing, as a fraction of the image
    ratio: tuple[float, float]  # width / height before resizing


class TrainState(NamedTuple):
    """Everything that training changes. A checkpoint is exactly this."""

    step: jax.Array  # int32 []
    params: Params
    model_state: ModelState
    opt_state: Any
