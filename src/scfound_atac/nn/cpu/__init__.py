"""ChromFound without gradients on a CPU, compiled: the same numbers as the plain layers, about five times faster.

:mod:`~scfound_atac.nn.cpu.encoder` is the door: the network asks `supports` and calls `encode`. The vector type beneath it, in
:mod:`~scfound_atac.nn.cpu.simd`, also serves the numba back end of the selective scan. Nothing is imported here, so that numba loads
with the first cell and not with the network.
"""

from __future__ import annotations
