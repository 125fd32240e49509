"""A 2-D convolution whose filter gradient is fast on CPUs as well."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

# XLA for CPUs has fast kernels for convolutions whose arrays are in their plain order, NHWC and
# HWIO, only. It brings others there, but not inside a `lax.scan`, where a gradient takes 14 to
# 36 times as long (benchmarks/results/conv_in_scan_cpu.json). So here gradients are convolutions in
# the plain order.
#
# The gradient to the filter still runs at 5 to 80 GFLOP/s, least where the output is large; as
# matmuls of patches over chunks of the batch it runs at 30 to 110. About 1,024 positions a chunk
# keep the patches in cache. A loop takes long to compile, so small products stay convolutions.
# Filters of one position need neither patches nor a loop.
_MIN_FLOP = 1.6e8
_CHUNK_POSITIONS = 1024
_PLAIN = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    x_BHWC: jax.Array, kernel: jax.Array, stride: int, padding: tuple[tuple[int, int], ...]
) -> jax.Array:
    """Cross-correlate [B,H,W,C] with [height,width,C,F], accumulated in float32.

    Only the gradient to the filter differs between platforms, in the order of its sums.

    >>> conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), 1, ((1, 1), (1, 1))).shape
    (1, 4, 4, 2)
    """
    return _convolve(x_BHWC, kernel, stride, padding)


def _convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_PLAIN)


def _written(x):
    """x as one array: XLA for CPUs would else compute it anew for each of those that read it."""
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


def _forward(x, kernel, stride, padding):
    x = _written(x)
    return _convolve(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, grad):
    x, kernel = saved
    grad = _written(grad)
    grad_x = _input_gradient(grad, kernel, x.shape, stride, padding)

    def from_xla(x, grad):
        return jax.vjp(lambda kernel: _convolve(x, kernel, stride, padding), kernel)[1](grad)[0]

    def from_product(x, grad):
        summed = _filter_gradient_of_one_position(x, grad, stride, padding)
        return summed.astype(kernel.dtype)

    def from_convolution(x, grad):
        return _filter_gradient(x, grad, kernel.shape[:2], stride, padding)

    def from_chunks(x, grad):
        summed = _filter_gradient_in_chunks(x, grad, kernel.shape[:2], stride, padding)
        return summed.astype(kernel.dtype)

    if kernel.shape[:2] == (1, 1):
        fastest = from_product
    elif 2 * grad.size * math.prod(kernel.shape[:3]) < _MIN_FLOP:
        fastest = from_convolution
    else:
        fastest = from_chunks
    return grad_x, lax.platform_dependent(x, grad, cpu=fastest, default=from_xla)


conv2d.defvjp(_forward, _backward)


def _input_gradient(grad, kernel, shape, stride, padding):
    """Convolve the gradient, its rows `stride` apart, with the filter turned by 180 degrees."""
    turned = _written(kernel[::-1, ::-1].swapaxes(2, 3))
    pads = [
        _pad(kernel.shape[i] - 1 - padding[i][0], covered, kernel.shape[i], shape[i + 1])
        for i, covered in enumerate(_covered(grad, stride))
    ]
    return lax.conv_general_dilated(
        grad, turned, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_PLAIN
    )


def _filter_gradient(x, grad, size, stride, padding):
    """Convolve the input with the gradient, its rows `stride` apart, summed over the batch."""
    x_CHWB = _written(x.transpose(3, 1, 2, 0))
    grad_HWBF = _written(grad.transpose(1, 2, 0, 3))
    pads = [
        _pad(padding[i][0], x.shape[i + 1], covered, size[i])
        for i, covered in enumerate(_covered(grad, stride))
    ]
    summed_CHWF = lax.conv_general_dilated(
        x_CHWB, grad_HWBF, (1, 1), pads, rhs_dilation=(stride, stride), dimension_numbers=_PLAIN
    )
    return summed_CHWF.transpose(1, 2, 0, 3)


def _covered(grad, stride):
    """Rows and columns of a gradient that are set `stride` apart."""
    return [(n - 1) * stride + 1 for n in grad.shape[1:3]]


def _pad(first, size, window, out):
    """What pads `size` rows, with `first` before them, for a window to have `out` places."""
    return first, out + window - 1 - size - first


def _filter_gradient_of_one_position(x, grad, stride, padding):
    """x^T @ grad, where the filter covers one input position. XLA's would transpose x."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    covered = x[:, ::stride, ::stride].reshape(-1, x.shape[-1])
    grad = grad.reshape(-1, grad.shape[-1])
    return jnp.matmul(covered.T, grad, preferred_element_type=jnp.float32)[None, None]


def _filter_gradient_in_chunks(x, grad, size, stride, padding):
    """Sum over chunks of the batch of grad^T @ patches, where a row of patches is the input under
    the filter at one output position."""
    batch, height, width, features = grad.shape
    chunk = max(1, min(batch, _CHUNK_POSITIONS // (height * width)))
    n_chunks = -(-batch // chunk)
    missing = n_chunks * chunk - batch  # images of zeros, whose gradient is zero
    x = jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0)))
    grad = jnp.pad(grad, ((0, missing), (0, 0), (0, 0), (0, 0)))
    x = x.reshape(n_chunks, chunk, *x.shape[1:])
    grad = grad.reshape(n_chunks, chunk * height * width, features)

    def covered_at(x, row, col):
        rows = x[:, row : row + (height - 1) * stride + 1 : stride]
        covered = rows[:, :, col : col + (width - 1) * stride + 1 : stride]
        return covered.reshape(-1, x.shape[-1]).astype(jnp.float32)

    def one_chunk(total, x_and_grad):
        x, grad = x_and_grad
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        at = [covered_at(x, row, col) for row in range(size[0]) for col in range(size[1])]
        patches = jnp.concatenate(at, axis=1)
        return total + grad.astype(jnp.float32).T @ patches, None

    zero = jnp.zeros((features, size[0] * size[1] * x.shape[-1]), jnp.float32)
    total, _ = lax.scan(one_chunk, zero, (x, grad))
    return total.T.reshape(*size, x.shape[-1], features)


class Conv(nn.Module):
    """A convolution without bias: float32 filter, computed in `dtype`, padded by (size - 1) / 2."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        shape = (self.size, self.size, x_BHWC.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, jnp.float32)
        pad = (self.size - 1) // 2
        padding = ((pad, pad), (pad, pad))
        return conv2d(x_BHWC.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)
