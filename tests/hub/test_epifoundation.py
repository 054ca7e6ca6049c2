"""Folders of EpiFoundation weights: the authors' form and ours, whole, damaged and hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from scfound_atac import hub
from scfound_atac.hub._vocabularies import write_vocabularies

# Our name -> released name, in this order.
RELEASED_NAMES = (
    ("cell_type_head.6.", "cls_decoder.out_layer."),
    ("cell_type_head.", "cls_decoder._decoder."),
    ("expression_decoder.", "mvc_decoder."),
    ("_decoder.query.", "_decoder.gene2query."),
    ("_decoder.activation.", "_decoder.hidden_activation."),
    (".qkv.", ".self_attn.Wqkv."),
    (".proj.", ".self_attn.out_proj."),
    ("_embedding.table.", "_emb.embedding."),
    ("_embedding.norm.", "_emb.enc_norm."),
    ("peak_emb.", "atac_emb."),
    ("gene_emb.", "rna_emb."),
    ("chromosome_emb.", "chr_emb."),
    ("peak_norm.", "bn_atac."),
    ("gene_norm.", "bn_rna."),
)
SETTINGS = {
    "embedding_dim": 16,
    "num_layers": 2,
    "head_num": 2,
    "atac_max_len": 77,
    "cell_emb_style": "cls",
    "mvc_arch_style": "concat query",
    "use_chr_labels": True,
}
FILES = ["atac_vocab.json", "chr_vocab.json", "rna_vocab.json", "gene2chr.json", "cell_vocab.json"]


def released_state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for key, tensor in net.state_dict().items():
        name = key
        for mine, theirs in RELEASED_NAMES:
            name = name.replace(mine, theirs)
        if name.startswith("layers."):
            name = "encoder.transformer_encoder." + name.replace(".fc", ".linear")
        state[name] = tensor.clone()
    return state


@pytest.fixture
def write_released(make_epifoundation, tmp_path: Path):
    def write(state=None, settings=SETTINGS, **sizes: object) -> Path:
        net, vocabularies = make_epifoundation(**sizes)
        folder = tmp_path / "released"
        folder.mkdir()
        change = state or (lambda x: {"model": x, "epoch": 3})
        torch.save(change(released_state(net)), folder / "model.pth")
        (folder / "config.json").write_text(json.dumps(settings))
        write_vocabularies(vocabularies, folder)
        return folder

    return write


@torch.no_grad()
def vector(net: torch.nn.Module) -> torch.Tensor:
    peaks = torch.arange(20)[None]
    return net(peaks, peaks % 6)


@pytest.mark.parametrize(
    "sizes", [{}, {"value_decoder": True, "n_batches": 2, "n_bins": 10}, {"n_cell_types": 0}], ids=str
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_form(write_released, make_epifoundation, sizes: dict[str, object], prefix: str) -> None:
    folder = write_released(lambda x: {"model": {prefix + key: value for key, value in x.items()}}, **sizes)
    checkpoint, (net, vocabularies) = hub.load(folder), make_epifoundation(**sizes, max_tokens=77)
    assert checkpoint.net.config == net.config
    assert checkpoint.model_class == "EpiFoundation"
    assert checkpoint.vocabularies.peaks == vocabularies.peaks
    assert not checkpoint.net.training
    assert torch.equal(vector(checkpoint.net), vector(net))
    assert checkpoint.training["released_config"] == SETTINGS
    assert checkpoint.chromosomes == ("chrX", "<cls>", "chr10", "<pad>", "chr2", "chr1")


def test_round_trip(make_epifoundation, write_released, tmp_path: Path) -> None:
    net, vocabularies = make_epifoundation(n_batches=2)
    ours = hub.load(hub.save(net, tmp_path / "ours", vocabularies=vocabularies, training={"n_cells": 7}))
    assert (ours.net.config, ours.vocabularies, ours.training) == (net.config, vocabularies, {"n_cells": 7})
    assert torch.equal(vector(ours.net), vector(net))
    again = hub.load(hub.convert(write_released(), tmp_path / "converted"))
    assert again.training["released_config"] == SETTINGS
    assert len(again.sha256) == 64


def test_weights_and_vocabularies_go_together(make_epifoundation, tmp_path: Path) -> None:
    net, vocabularies = make_epifoundation()
    with pytest.raises(ValueError, match="needs vocabularies"):
        hub.save(net, tmp_path / "x")
    other, _ = make_epifoundation(n_peaks=100)
    with pytest.raises(ValueError, match="atac_vocab.json lists 202 tokens, the weights hold 102"):
        hub.save(other, tmp_path / "x", vocabularies=vocabularies)
    from scfound_atac.nn import RegionSetNet

    with pytest.raises(ValueError, match="class RegionSet has no vocabularies"):
        hub.save(RegionSetNet(), tmp_path / "x", vocabularies=vocabularies)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", ["released", "ours"])
def test_missing_vocabulary(write_released, tmp_path: Path, name: str, form: str) -> None:
    folder = write_released()
    if form == "ours":
        folder = hub.convert(folder, tmp_path / "ours")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks the vocabulary {name}"):
        hub.load(folder)


def test_vocabularies_that_no_part_needs(write_released) -> None:
    folder = write_released(n_cell_types=0)
    (folder / "cell_vocab.json").unlink()
    assert hub.load(folder).vocabularies.cell_types == {}


def test_missing_configuration(write_released) -> None:
    folder = write_released()
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="lacks config.json"):
        hub.load(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
@pytest.mark.parametrize("name", ["config.json", *FILES])
def test_garbage_json(write_released, name: str, text: str) -> None:
    folder = write_released()
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="released form" if name == "config.json" else name):
        hub.load(folder)


def _without_cls(peaks: dict[str, int]) -> dict[str, int]:
    return {name.replace("<cls>", "<CLASS>"): i for name, i in peaks.items()}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("atac_vocab.json", lambda x: dict(list(x.items())[:-1]), "lists 201 tokens, the weights hold 202"),
        ("atac_vocab.json", lambda x: dict.fromkeys(x, 1), "a different id, from 0 to 201"),
        ("atac_vocab.json", lambda x: {k: str(v) for k, v in x.items()}, "a different id"),
        (
            "atac_vocab.json",
            lambda x: {k.replace("chr1-", "peak"): v for k, v in x.items()},
            "not of the form chr1:100-200",
        ),
        ("atac_vocab.json", _without_cls, "has no '<cls>'"),
        ("chr_vocab.json", _without_cls, "has no '<cls>'"),
        ("chr_vocab.json", lambda x: {k.replace("chr2", "chr3"): v for k, v in x.items()}, "lacks chr2"),
        ("rna_vocab.json", lambda x: {**x, "new": 13}, "lists 14 tokens, the weights hold 13"),
        ("gene2chr.json", lambda x: dict.fromkeys(x, 3), "name of a chromosome"),
    ],
)
def test_vocabulary_that_does_not_fit(write_released, name: str, change, says: str) -> None:
    folder = write_released()
    (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))
    with pytest.raises(ValueError, match=f"{name}.*{says}|{says}"):
        hub.load(folder)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({**SETTINGS, "head_num": 5}, "divisible"),
        ({**SETTINGS, "num_layers": 3}, "num_layers=3; the weights have 2"),
        ({**SETTINGS, "embedding_dim": 32}, "embedding_dim=32; the weights have 16"),
        ({**SETTINGS, "use_chr_labels": False}, "use_chr_labels=False"),
        ({**SETTINGS, "cell_emb_style": "mean"}, "cell_emb_style='mean'; supported is only 'cls'"),
        ({k: v for k, v in SETTINGS.items() if k != "head_num"}, "'head_num' is missing"),
    ],
)
def test_settings_that_do_not_fit(write_released, settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hub.load(write_released(settings=settings))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.95])
def test_cut_weights(write_released, keep: float) -> None:
    path = write_released() / "model.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="model.pth is damaged"):
        hub.load(path.parent)


class _Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_pickle_does_not_run(write_released, tmp_path: Path) -> None:
    folder = write_released(lambda x: {"model": x, "losses": _Bomb(str(tmp_path / "ran"))})
    with pytest.raises(ValueError, match="holds more than tensors"):
        hub.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: {"module": x}, "EpiFoundation checkpoint: expected a dict with the key 'model'"),
        (lambda x: {"model": [1]}, "'model' must hold tensors by name"),
        (lambda x: {"model": {**x, "encoder.extra": torch.ones(1)}}, "Unexpected key"),
        (lambda x: {"model": {k: v for k, v in x.items() if k != "norm.bias"}}, "Missing key"),
        (lambda x: {"model": {k: v for k, v in x.items() if not k.startswith("atac_emb")}}, "is missing"),
        (lambda x: {"model": {**x, "norm.bias": torch.ones(3)}}, "do not fit the network"),
    ],
)
def test_weights_that_do_not_fit(write_released, change, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hub.load(write_released(change))


def test_several_weights(write_released) -> None:
    folder = write_released()
    (folder / "other.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="several weights: model.pth, other.pth"):
        hub.load(folder)
