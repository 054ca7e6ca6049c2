"""ChromFound without gradients on a CPU, compiled: the same results as the plain layers, about five times faster.

:mod:`~scfound_atac.nn.cpu.encoder` is the entry point: the network calls `supports` and `encode`. Its vector type, in
:mod:`~scfound_atac.nn.cpu.simd`, is also used by the numba back end of the selective scan. Nothing is imported here, so that numba is
loaded with the first cell and not with the network.
"""

from __future__ import annotations
