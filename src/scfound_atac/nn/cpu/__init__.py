"""Compiled code for a CPU: ChromFound without gradients, and the selective scan with and without them.

:mod:`~scfound_atac.nn.cpu.encoder` is the entry point for a whole network, which calls `supports` and `encode`: the same results as the
plain layers, about five times faster. :mod:`~scfound_atac.nn.cpu.scan` and `scan_grad` are back ends of
`scfound_atac.nn.selective_scan`. All use the vector type of :mod:`~scfound_atac.nn.cpu.simd`. Nothing is imported here, so that numba is
loaded with the first cell and not with the network.
"""

from __future__ import annotations
