"""Names of everything the package writes into AnnData."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingKeys:
    """Where one embedding lives: ``obsm``, ``varm`` and ``uns`` of the same run."""

    obsm: str
    pcs: str
    mean: str
    uns: str


def embedding_keys(method: str, key_added: str | None = None) -> EmbeddingKeys:
    """Keys of an embedding: ``X_<method>`` and ``<method>`` by default, `key_added` for all of them if given.

    Raises
    ------
    ValueError
        If `key_added` is empty or holds a slash, which h5ad files refuse.
    """
    if key_added is not None and (not key_added or "/" in key_added):
        msg = f"key_added={key_added!r} cannot be stored in an h5ad file: use a name without '/', for example 'X_{method}'."
        raise ValueError(msg)
    name = key_added or method
    return EmbeddingKeys(obsm=key_added or f"X_{method}", pcs=f"{name}_pcs", mean=f"{name}_mean", uns=name)
