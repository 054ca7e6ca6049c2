"""Names of everything that the package writes into AnnData."""

from __future__ import annotations

from dataclasses import dataclass

# Not named after a model: the default may change, and uns["sfa"]["params"]["model"] says which one it was.
EMBEDDING = "sfa"
EMBEDDING_JOINT = "sfa_joint"  # of accessibility and expression, in the MuData itself
GENE_ACTIVITY = "gene_activity"
IMPUTED = "sfa_imputed"
RNA_PREDICTED = "rna_predicted"
# Tables; the arguments with which each was made are in f"{key}_params".
LINKS = "sfa_links"
PERTURBATION = "sfa_perturbation"


@dataclass(frozen=True)
class EmbeddingKeys:
    """Keys of an embedding in ``obsm``, ``varm`` and ``uns``."""

    obsm: str
    pcs: str
    mean: str
    uns: str


def embedding_keys(key_added: str | None = None, default: str = EMBEDDING) -> EmbeddingKeys:
    """Keys of an embedding: ``X_sfa`` and ``sfa`` for every model, or `key_added` for all of them; `default` stands for ``sfa``.

    Raises
    ------
    ValueError
        If `key_added` is empty or contains a slash, which h5ad files cannot store.
    """
    if key_added is not None:
        check_key(key_added, f"X_{default}")
    name = key_added or default
    return EmbeddingKeys(obsm=key_added or f"X_{default}", pcs=f"{name}_pcs", mean=f"{name}_mean", uns=name)


@dataclass(frozen=True)
class AnnotationKeys:
    """Keys of predicted labels: five columns of ``obs``, an array in ``obsm``, and a record in ``uns``."""

    labels: str
    best: str
    terms: str
    confidence: str
    novelty: str
    probabilities: str
    uns: str


def annotation_keys(key: str) -> AnnotationKeys:
    """Keys of the labels that are predicted for column `key`.

    Raises
    ------
    ValueError
        If `key` is empty or holds a slash.
    """
    check_key(key, "cell_type")
    return AnnotationKeys(
        labels=f"{key}_pred",
        best=f"{key}_best",
        terms=f"{key}_pred_ontology_term_id",
        confidence=f"{key}_confidence",
        novelty=f"{key}_novelty",
        probabilities=f"{key}_probabilities",
        uns=f"{key}_annotation",
    )


def check_key(key_added: str, example: str = "my_result") -> None:
    """Refuse a name that h5ad files cannot store.

    Raises
    ------
    TypeError
        If `key_added` is no text.
    ValueError
        If `key_added` is empty or holds a slash.
    """
    if not isinstance(key_added, str):
        msg = f"key_added= takes a name, as text, for example {example!r}; got {type(key_added).__name__}."
        raise TypeError(msg)
    if not key_added.strip() or "/" in key_added:
        msg = f"key_added={key_added!r} cannot be stored in an h5ad file: use a name without '/', for example {example!r}."
        raise ValueError(msg)
