"""A cell in a ChromFoundNet of which a few values change: only what the change reaches is computed again.

What a layer computes for one token depends on the tokens of its attention window, and, through the Mamba mixer, on all tokens before it in
genome order, by a state of fixed size and the last few inputs of the convolution. So one run of the unchanged cell is kept, layer by layer:
the tokens, and the state at every border of a window. With changed values,

1. attention is computed again in the windows whose tokens changed
2. the scan starts at the kept state of the first of them, and goes on until its state is that of the unchanged cell again
3. a window whose tokens differ from those of the unchanged cell by less than a tolerance counts as unchanged in the next layer

What lies before the changed OCR in genome order is never touched, with one exception: windows are shifted by half a window, and the last
one also holds the first half window of the genome (as in the released model). If a change reaches the last window, it goes on from there.

Letters: B parts, L OCRs, W window, D width, d inner channels, n states, K windows, P changed copies of the cell. A *chunk* is a stretch of
tokens in genome order that lies in one window; the last window has two, at both ends of the genome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from .chromfound import is_plain
from .selective_scan import scan_from

if TYPE_CHECKING:
    from torch import Tensor

    from .chromfound import ChromFoundNet, EncoderLayer

# Tokens and states that differ by less are taken for equal. Their entries are about 1, and cell vectors are means over many tokens: with
# the bundled weights the change of a cell vector is right to 0.1 %, and rounding in fp32 makes 0.3 % of that between two complete runs.
TOLERANCE = 3e-5
# Windows that go through attention at a time, which bounds memory: 1 MB each at the released size.
_WINDOWS = {"cpu": 16, "cuda": 512}


class _Layout(NamedTuple):
    """Where the tokens lie in windows and chunks."""

    place: Tensor
    """Number of the OCR at each place of each window, -1 for padding, (K, W)."""
    window: list[int]
    """Window of each chunk, in genome order."""
    holds: Tensor
    """Which places of its window belong to a chunk, (n_chunks, W)."""

    @classmethod
    def of(cls, length: int, window_size: int, shift_size: int) -> _Layout:
        window, shift = (window_size, shift_size) if length > window_size else (length, 0)
        n = -(-length // window)
        place = torch.roll(torch.arange(n * window), -shift).reshape(n, window)
        place[place >= length] = -1
        is_head = (place >= 0) & (place < shift)
        holds, of_chunk = [is_head[-1]] if shift else [], [n - 1] if shift else []
        for k in range(n):
            holds.append((place[k] >= 0) & ~is_head[k])
            of_chunk.append(k)
        return cls(place, of_chunk, torch.stack(holds))


class _LayerRun(NamedTuple):
    """What is kept of one layer of the unchanged cell."""

    tokens: Tensor
    """The residual that the layer reads, 0 at padding, (K, W, D)."""
    mixed: Tensor
    """Input of convolution and gate, (K, W, 2 d)."""
    taps: Tensor
    """The last inputs of the convolution before each chunk, and after the last, (n_chunks + 1, taps, d)."""
    state: Tensor
    """The state of the scan before each chunk, and after the last, (n_chunks + 1, d, n)."""


def _mix(net: ChromFoundNet, layer: EncoderLayer, tokens: Tensor) -> Tensor:
    """Attention and what follows up to the convolution, window by window: (B, W, D) -> (B, W, 2 d)."""
    if tokens.device.type == "cpu" and tokens.shape[1] == net.config.window_size:
        from .cpu import encoder

        if encoder.supports_windows(net, tokens) and is_plain(net):
            return encoder.mix_windows(net, layer, tokens)  # the same, about three times faster
    step = _WINDOWS.get(tokens.device.type, _WINDOWS["cpu"])
    mixer: Any = layer
    return torch.cat([mixer.mamba.in_proj(mixer.down(mixer.wpsa(mixer.norm(part)))) for part in tokens.split(step)])


def _inputs(mixed: Tensor, holds: Tensor) -> Tensor:
    """Inputs of the convolution, 0 at places of other chunks: (B, W, 2 d), (W,) or (B, W) -> (B, W, d)."""
    return mixed.chunk(2, dim=-1)[0] * holds[..., None]


def _scan(
    layer: EncoderLayer, mixed: Tensor, holds: Tensor, taps: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Chunks through convolution and scan: (B, W, 2 d), (B, taps, d), (B, d, n) -> what is added to tokens, (B, W, D), taps, states."""
    m: Any = layer.mamba
    x = torch.cat([taps, _inputs(mixed, holds)], dim=1)  # (B, taps + W, d)
    weight, length = m.conv1d.weight, mixed.shape[1]
    u = m.conv1d.bias.expand(len(x), length, -1)
    for k in range(weight.shape[-1]):
        u = torch.addcmul(u, weight[:, 0, k], x[:, k : k + length])
    u = F.silu(u)
    dt, B, C = m.x_proj(u).split([m.dt_rank, m.d_state, m.d_state], dim=-1)
    delta = F.softplus(m.dt_proj(dt)) * holds[..., None]  # a step of length 0 changes nothing
    y, state = scan_from(u, delta, -torch.exp(m.A_log.float()), B, C, m.D, mixed.chunk(2, dim=-1)[1], state)
    return layer.up(m.out_proj(y)), x[:, length:], state


class CellRun:
    """One cell in a network, kept so that changes of a few of its values cost a few windows.

    It keeps 5 kB per OCR at the released size. Computation is in fp32, on the device of the network.

    Parameters
    ----------
    net
        The network.
    ocrs
        OCRs in genome order, from `ChromFoundNet.embed_ocrs`, (L, D).
    value
        Values of the cell, (L,).
    tolerance
        Tokens and states that differ by less are taken for equal.

    Attributes
    ----------
    vector
        The cell vector, as `ChromFoundNet.cell_vector`, (D,).
    n_windows
        Number of windows times layers that were computed for changed copies, for measurements.
    """

    @torch.inference_mode()
    def __init__(self, net: ChromFoundNet, ocrs: Tensor, value: Tensor, *, tolerance: float = TOLERANCE) -> None:
        config = net.config
        self._net, self._ocrs, self._value, self._tolerance = net, ocrs, value, tolerance
        layout = _Layout.of(len(value), config.window_size, config.shift_size)
        place = layout.place.to(value.device)
        self._layout = _Layout(place, layout.window, layout.holds.to(value.device))
        is_token = place >= 0
        # Window and place in it of each OCR.
        self._window, self._row = torch.empty(2, len(value), dtype=torch.long, device=value.device)
        window, row = is_token.nonzero(as_tuple=True)
        self._window[place[is_token]], self._row[place[is_token]] = window, row
        self._layers: list[_LayerRun] = []
        tokens = (net.value_embedding(value[:, None]) + ocrs)[place.clamp(min=0)] * is_token[..., None]
        for layer in net.layers:
            run, tokens = self._run(layer, tokens)  # type: ignore[arg-type]
            self._layers.append(run)
        self._last = tokens  # (K, W, D)
        self._hidden = net.norm(tokens)
        self.n_windows = 0
        self.vector = self._vectors(value[None], *self._nothing())[0]

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.full((1, len(self._layout.place)), -1, device=self._value.device), self._last[:0]

    def _run(self, layer: EncoderLayer, tokens: Tensor) -> tuple[_LayerRun, Tensor]:
        """One layer of the unchanged cell, and the tokens after it."""
        mamba: Any = layer.mamba
        mixed = _mix(self._net, layer, tokens)
        n_taps = mamba.conv1d.weight.shape[-1] - 1
        taps = [mixed.new_zeros(1, n_taps, mixed.shape[-1] // 2)]
        state = [mixed.new_zeros(1, *mamba.A_log.shape)]
        after = tokens.clone()
        for holds, window in zip(self._layout.holds, self._layout.window, strict=True):
            add, last_taps, last_state = _scan(layer, mixed[window][None], holds[None], taps[-1], state[-1])
            after[window, holds] += add[0, holds]
            taps.append(last_taps)
            state.append(last_state)
        return _LayerRun(tokens, mixed, torch.cat(taps), torch.cat(state)), after

    @torch.inference_mode()
    def changed(self, copy: Tensor, place: Tensor, value: Tensor) -> Tensor:
        """Cell vectors of copies of the cell with changed values.

        Parameters
        ----------
        copy, place, value
            Number of the copy, from 0 in steps of 1, number of the OCR, and its new value, each (m,).

        Returns
        -------
        Shape (P, D).
        """
        n_copies = int(copy.max()) + 1
        # 1. Tokens of the windows with a changed value: `index` (P, K) says where a window is in `tokens` (n, W, D), -1 if unchanged.
        index = self._number(copy, self._window[place], n_copies)
        at = (index >= 0).nonzero()[:, 1]
        tokens = self._layers[0].tokens[at].clone()
        tokens[index[copy, self._window[place]], self._row[place]] = (
            self._net.value_embedding(value[:, None]) + self._ocrs[place]
        )
        # 2. Layers.
        for number, layer in enumerate(self._net.layers):
            index, tokens = self._again(number, layer, index, tokens)  # type: ignore[arg-type]
        # 3. Values, of which vectors are weighted means.
        values = self._value.repeat(n_copies, 1)
        values[copy, place] = value
        return self._vectors(values, index, tokens)

    def _number(self, copy: Tensor, window: Tensor, n_copies: int) -> Tensor:
        """Number the pairs of copies and windows: (P, K), -1 for all others."""
        is_changed = torch.zeros(n_copies, len(self._layout.place), dtype=torch.bool, device=copy.device)
        is_changed[copy, window] = True
        return torch.where(is_changed, is_changed.flatten().cumsum(0).view_as(is_changed) - 1, -1)

    def _again(self, number: int, layer: EncoderLayer, index: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """One layer of the changed copies: `index` (P, K) and `tokens` (n, W, D) before and after it."""
        run = self._layers[number]
        after = self._layers[number + 1].tokens if number + 1 < len(self._layers) else self._last
        mixed = _mix(self._net, layer, tokens) if len(tokens) else run.mixed[:0]
        self.n_windows += len(tokens)
        n_copies, last = index.shape[0], index.shape[1] - 1
        taps, state = run.taps[:1].repeat(n_copies, 1, 1), run.state[:1].repeat(n_copies, 1, 1)
        differs = torch.zeros(n_copies, dtype=torch.bool, device=index.device)  # whether the state does
        begins = (index >= 0).any(dim=0).tolist()
        found: list[tuple[Tensor, int, Tensor]] = []
        wrapped: dict[int, Tensor] = {}  # the last window of each copy, from its first chunk to its last
        for chunk, window in enumerate(self._layout.window):
            if not (begins[window] or differs.any()):
                continue
            holds = self._layout.holds[chunk]
            copies = (differs | (index[:, window] >= 0)).nonzero()[:, 0]
            where = index[copies, window]
            is_new = where >= 0
            x, before = (part[window].repeat(len(copies), 1, 1) for part in (run.mixed, run.tokens))
            x[is_new], before[is_new] = mixed[where[is_new]], tokens[where[is_new]]
            own = differs[copies][:, None, None]
            add, last_taps, last_state = _scan(
                layer,
                x,
                holds.expand(len(copies), -1),
                torch.where(own, taps[copies], run.taps[chunk]),
                torch.where(own, state[copies], run.state[chunk]),
            )
            result = after[window].repeat(len(copies), 1, 1)
            if window == last:
                for i, copy in enumerate(copies.tolist()):
                    result[i] = wrapped.get(copy, result[i])
            result[:, holds] = before[:, holds] + add[:, holds]
            if window == last:
                wrapped |= dict(zip(copies.tolist(), result, strict=True))
            else:
                found.append((copies, window, result))
            taps[copies], state[copies] = last_taps, last_state
            differs[copies] = self._differ(last_taps, run.taps[chunk + 1]) | self._differ(
                last_state, run.state[chunk + 1]
            )
        if wrapped:
            found.append((torch.tensor(list(wrapped), device=index.device), last, torch.stack([*wrapped.values()])))
        return self._kept(found, after, n_copies)

    def _differ(self, x: Tensor, y: Tensor) -> Tensor:  # (B, ., .), (., .) -> (B,)
        return (x - y).abs().amax(dim=(1, 2)) > self._tolerance

    def _kept(self, found: list[tuple[Tensor, int, Tensor]], after: Tensor, n_copies: int) -> tuple[Tensor, Tensor]:
        """The windows that differ from those of the unchanged cell."""
        index = torch.full((n_copies, len(after)), -1, device=after.device)
        parts, n = [], 0
        for copies, window, result in found:
            kept = self._differ(result, after[window])
            parts.append(result[kept])
            index[copies[kept], window] = torch.arange(n, n + len(parts[-1]), device=after.device)
            n += len(parts[-1])
        return index, torch.cat(parts) if parts else after[:0]

    def _vectors(self, values: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
        """Means of the hidden states, weighted by values (P, L): those of the unchanged cell, and what differs: (P, D)."""
        is_open = values.any(dim=0).nonzero()[:, 0]
        total = values[:, is_open] @ self._hidden[self._window[is_open], self._row[is_open]]  # (P, D)
        if len(tokens):
            copy, window = (index >= 0).nonzero(as_tuple=True)
            order = index[copy, window]
            place = self._layout.place[window]  # (n, W)
            weights = values[copy[:, None], place.clamp(min=0)] * (place >= 0)
            differs = self._net.norm(tokens[order]) - self._hidden[window]
            total.index_add_(0, copy, torch.einsum("nw,nwd->nd", weights, differs))
        return total / values.sum(dim=1, keepdim=True).clamp(min=1e-6)
