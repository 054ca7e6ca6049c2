"""What is compiled for a CPU: ChromFound without gradients, and the selective scan with and without them.

:mod:`~scfound_atac.nn.cpu.encoder` is the door for a whole network, which asks `supports` and calls `encode`: the same numbers as the plain
layers, about five times faster. :mod:`~scfound_atac.nn.cpu.scan` and `scan_grad` are back ends of `scfound_atac.nn.selective_scan`. All are
built on the vector type of :mod:`~scfound_atac.nn.cpu.simd`. Nothing is imported here, so that numba loads with the first cell and not with
the network.
"""

from __future__ import annotations
