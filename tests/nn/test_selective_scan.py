"""The differentiable scans against the recurrence written step by step, and the choice of a back end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scfound_atac.nn import selective_scan
from scfound_atac.nn.selective_scan import available_backends, selective_scan_torch

OPTIONAL = ("D", "z", "delta_bias")


def step_by_step(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, delta_softplus=False):
    """The recurrence as written, in the dtype of the inputs."""
    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    state, outputs = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype), []
    for t in range(u.shape[2]):
        state = torch.exp(dt[:, :, t, None] * A) * state + (dt * u)[:, :, t, None] * B[:, None, :, t]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    y = torch.stack(outputs, -1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * F.silu(z)


def random_inputs(
    n_cells: int, n_channels: int, n_states: int, length: int, optional=OPTIONAL
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_states * 1000 + length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    channels, states = (n_cells, n_channels, length), (n_cells, n_states, length)
    inputs = {
        "u": normal(*channels),
        "delta": normal(*channels),
        "A": -torch.rand(n_channels, n_states, generator=generator) * 4,
        "B": normal(*states),
        "C": normal(*states),
        "D": normal(n_channels),
        "z": normal(*channels),
        "delta_bias": normal(n_channels),
    }
    return {key: t for key, t in inputs.items() if key in optional or key not in OPTIONAL}


def value_and_gradients(function, inputs, **kwargs):
    inputs = {key: t.clone().requires_grad_() for key, t in inputs.items()}
    y = function(**inputs, **kwargs)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * weight).sum().backward()
    return {"y": y.detach(), **{key: t.grad for key, t in inputs.items()}}


def assert_same(found: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor], **kwargs: bool) -> None:
    expected = value_and_gradients(step_by_step, {key: t.double() for key, t in inputs.items()}, **kwargs)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        atol = 1e-5 * max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(found[key].double(), tensor, atol=atol, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("optional", [OPTIONAL, ("D",), ("z",), ("delta_bias",), ()], ids="-".join)
@pytest.mark.parametrize("shape", [(2, 5, 3, 1), (1, 4, 2, 2), (2, 3, 1, 17), (3, 2, 16, 64), (2, 6, 4, 100)], ids=str)
def test_torch_equals_recurrence(shape: tuple[int, ...], optional: tuple[str, ...]) -> None:
    inputs = random_inputs(*shape, optional=optional)
    assert_same(value_and_gradients(selective_scan_torch, inputs, delta_softplus=True), inputs, delta_softplus=True)


@pytest.mark.parametrize("chunk_size", [1, 2, 13, 50, 99, 100, 101])
def test_chunks_do_not_show(chunk_size: int) -> None:
    inputs = random_inputs(2, 3, 4, 100)
    found = value_and_gradients(selective_scan_torch, inputs, delta_softplus=True, chunk_size=chunk_size)
    assert_same(found, inputs, delta_softplus=True)


@pytest.mark.parametrize("optional", [OPTIONAL, ("D",), ("z",), ("delta_bias",), ()], ids="-".join)
@pytest.mark.parametrize("shape", [(2, 5, 16, 1), (1, 1, 16, 2), (1, 7, 16, 33), (3, 4, 16, 90)], ids=str)
def test_compiled_gradients_equal_recurrence(shape: tuple[int, ...], optional: tuple[str, ...]) -> None:
    inputs = random_inputs(*shape, optional=optional)
    found = value_and_gradients(selective_scan, inputs, delta_softplus=True, backend="numba")
    assert_same(found, inputs, delta_softplus=True)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_gradients_without_softplus(backend: str) -> None:
    inputs = random_inputs(2, 3, 16, 40)
    inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs(), inputs["delta_bias"].abs()
    assert_same(value_and_gradients(selective_scan, inputs, backend=backend), inputs)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_gradient_of_one_input_alone(backend: str) -> None:
    inputs = random_inputs(2, 3, 16, 20)
    expected = value_and_gradients(selective_scan_torch, inputs, delta_softplus=True)
    weight = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(1))
    for name, tensor in inputs.items():
        leaf = tensor.clone().requires_grad_()
        y = selective_scan(**{**inputs, name: leaf}, delta_softplus=True, backend=backend)
        (gradient,) = torch.autograd.grad((y * weight).sum(), leaf)
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("grad", [False, True])
def test_bf16_in_bf16_out(backend: str, grad: bool) -> None:
    inputs = random_inputs(2, 4, 16, 50)
    expected = step_by_step(**inputs, delta_softplus=True)
    rounded = {key: t.bfloat16().requires_grad_(grad) for key, t in inputs.items()}
    y = selective_scan(**rounded, delta_softplus=True, backend=backend)
    assert y.dtype == torch.bfloat16
    assert y.requires_grad == grad
    torch.testing.assert_close(y.detach().float(), expected, atol=0.1 * float(expected.abs().max()), rtol=0)
    if grad:
        y.float().sum().backward()
        assert all(t.grad.dtype == torch.bfloat16 for t in rounded.values())


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_long_decay_neither_overflows_nor_vanishes_into_nan(backend: str) -> None:
    inputs = random_inputs(1, 2, 16, 300)
    inputs["A"] = inputs["A"] * 100
    assert_same(
        value_and_gradients(selective_scan, inputs, delta_softplus=True, backend=backend), inputs, delta_softplus=True
    )


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_cells_are_independent(backend: str) -> None:
    inputs = random_inputs(3, 4, 16, 30)
    together = selective_scan(**inputs, delta_softplus=True, backend=backend)
    second = {key: t[1:2] if key in ("u", "delta", "B", "C", "z") else t for key, t in inputs.items()}
    torch.testing.assert_close(
        selective_scan(**second, delta_softplus=True, backend=backend), together[1:2], atol=1e-5, rtol=1e-5
    )


def test_auto_has_gradients_for_any_number_of_states() -> None:
    inputs = random_inputs(1, 2, 4, 20)
    assert_same(value_and_gradients(selective_scan, inputs, delta_softplus=True), inputs, delta_softplus=True)


def test_numba_refuses_gradients_of_other_sizes() -> None:
    inputs = random_inputs(1, 2, 4, 5)
    inputs["u"].requires_grad_()
    with pytest.raises(ValueError, match="gradients for 16 states"):
        selective_scan(**inputs, backend="numba")
    with torch.no_grad():
        assert selective_scan(**inputs, backend="numba").shape == (1, 2, 5)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="Unknown selective scan back end 'triton'"):
        selective_scan(**random_inputs(1, 1, 1, 1), backend="triton")


def test_cuda_backend_needs_tensors_on_a_gpu() -> None:
    with pytest.raises(ValueError, match="CUDA scan kernel is not available"):
        selective_scan(**random_inputs(1, 1, 1, 1), backend="cuda")


def test_available_backends() -> None:
    names = available_backends()
    assert names[:2] == ("torch", "numba")
    assert set(names) <= {"torch", "numba", "cuda"}
    if not torch.cuda.is_available():
        assert "cuda" not in names


# On a GPU


def on_gpu(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: t.cuda() for key, t in inputs.items()}


def on_gpu_value_and_gradients(inputs, **kwargs) -> dict[str, torch.Tensor]:
    def scan(**moved):
        return selective_scan(**on_gpu(moved), **kwargs).cpu()

    return value_and_gradients(scan, inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("optional", [OPTIONAL, ("D",), ()], ids="-".join)
@pytest.mark.parametrize("shape", [(2, 5, 16, 1), (1, 7, 16, 33), (3, 4, 16, 300)], ids=str)
@pytest.mark.parametrize("backend", ["torch", "cuda", "auto"])
def test_gpu_equals_recurrence(backend: str, shape: tuple[int, ...], optional: tuple[str, ...]) -> None:
    """Values and gradients of each back end that runs on a GPU are those of the reference."""
    if backend not in (*available_backends(), "auto"):
        pytest.skip("mamba-ssm is not installed with its CUDA kernel")
    inputs = random_inputs(*shape, optional=optional)
    found = on_gpu_value_and_gradients(inputs, delta_softplus=True, backend=backend)
    expected = value_and_gradients(step_by_step, {key: t.double() for key, t in inputs.items()}, delta_softplus=True)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():  # the kernel takes exponentials that are rounded more
        atol = 1e-3 * max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(found[key].double(), tensor, atol=atol, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.gpu
def test_auto_on_a_gpu_takes_no_back_end_of_the_cpu() -> None:
    inputs = on_gpu(random_inputs(1, 2, 16, 20))
    assert selective_scan(**inputs, delta_softplus=True).is_cuda
    with pytest.raises(ValueError, match="numba scan runs on CPU"):
        selective_scan(**inputs, backend="numba")
