"""Folders of weights: ours and the authors' form, whole, damaged and hostile."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from scfound_atac import hub
from scfound_atac.genome import RegionTable, load_region_table
from scfound_atac.hub.checkpoint import CHROMOSOME_VOCABULARY
from scfound_atac.nn import ChromFoundConfig, ChromFoundNet, RegionSetConfig, RegionSetNet

TINY = {
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "window_size": 8,
    "shift_size": 4,
    "d_mlp": 16,
    "d_low": 8,
    "d_state": 4,
}
RELEASED_ARGS = {
    "wpsa_heads": 2,
    "wpsa_window_size": 8,
    "shift_size": 4,
    "positional_temp": 100_000,
    "embedding_dropout": 0.1,
    "embedding_fusion_type": "add",
}
RELEASED_NAMES = (
    ("value_embedding.", "embedding.value_embedding.embedding."),
    ("chromosome_embedding.", "embedding.chromosome_embedding."),
    ("layers.", "backbone.layers."),
    (".mamba.", ".mixer."),
    (".down.", ".reduction_layer."),
    (".up.", ".expansion_layer."),
    (".wpsa.", ".chromfound_block."),
    ("decoder.", "mask_token_prediction.projection."),
)


@pytest.fixture
def net() -> ChromFoundNet:
    torch.manual_seed(0)
    return ChromFoundNet(ChromFoundConfig(**TINY)).eval()


@pytest.fixture
def ours(net: ChromFoundNet, tmp_path: Path) -> Path:
    return hub.save(net, tmp_path / "ours")


def released_state(net: ChromFoundNet) -> dict[str, torch.Tensor]:
    state = {}
    for key, tensor in net.state_dict().items():
        name = key
        for mine, theirs in RELEASED_NAMES:
            name = name.replace(mine, theirs)
        state["backbone.norm_f.weight" if key == "norm.weight" else name] = tensor.clone()
    return state


def write_released(
    folder: Path, state: object, args: object = None, chromosomes: object = CHROMOSOME_VOCABULARY
) -> Path:
    folder.mkdir()
    torch.save(state, folder / "model.pt")
    (folder / "chromfd_pretrain.yaml").write_text(
        yaml.safe_dump({"model_args": RELEASED_ARGS if args is None else args})
    )
    (folder / "chromosome_vocab.yaml").write_text(yaml.safe_dump({"chromosome": list(chromosomes)}))
    return folder


@pytest.fixture
def released(net: ChromFoundNet, tmp_path: Path) -> Path:
    return write_released(tmp_path / "released", {"module": released_state(net)})


def outputs(net: ChromFoundNet, length: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(2, length, generator=generator)
    chromosome = torch.sort(torch.randint(1, 25, (length,), generator=generator)).values
    start = torch.randint(0, 100_000_000, (length,), generator=generator)
    with torch.inference_mode():
        return net.reconstruct(net(value, net.embed_ocrs(chromosome, start, start + 500)))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


# Ours


def test_round_trip(net: ChromFoundNet, tmp_path: Path) -> None:
    folder = hub.save(
        net, tmp_path / "a" / "mine", preparation={"target_sum": 5e3, "log1p": False}, training={"n_cells": 7}
    )
    checkpoint = hub.load(folder)
    assert torch.equal(outputs(checkpoint.net), outputs(net))
    assert checkpoint.net.config == net.config
    assert not checkpoint.net.training
    assert checkpoint.name == "mine"
    assert checkpoint.preparation == {"target_sum": 5e3, "log1p": False}
    assert checkpoint.training == {"n_cells": 7}
    assert checkpoint.chromosomes == CHROMOSOME_VOCABULARY
    assert len(checkpoint.sha256) == 64


def test_path_and_string_are_the_same(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ours.parent)
    assert hub.load(ours).sha256 == hub.load(str(ours)).sha256 == hub.load("ours").sha256 == hub.load("./ours").sha256


def test_checksum_follows_the_weights(net: ChromFoundNet, ours: Path, tmp_path: Path) -> None:
    before = hub.load(ours).sha256
    assert hub.load(hub.save(net, tmp_path / "again")).sha256 == before
    with torch.no_grad():
        net.decoder.bias += 1
    assert hub.load(hub.save(net, tmp_path / "other")).sha256 != before


def test_saving_over_weights_needs_consent(net: ChromFoundNet, ours: Path) -> None:
    with torch.no_grad():
        net.decoder.bias += 1
    before = (ours / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        hub.save(net, ours)
    assert (ours / "model.safetensors").read_bytes() == before
    hub.save(net, ours, overwrite=True)
    assert torch.equal(outputs(hub.load(ours).net), outputs(net))


def test_facts_that_json_cannot_hold_leave_no_file(net: ChromFoundNet, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        hub.save(net, tmp_path / "x", training={"when": object()})
    assert not (tmp_path / "x" / "model.safetensors").exists()


def test_chromosome_ids(ours: Path) -> None:
    ids = hub.load(ours).chromosome_ids(["chr1", "chrY", "chrM", "pad", "chr22"])
    assert ids.tolist() == [1, 24, -1, -1, 22]


def test_missing_config(ours: Path) -> None:
    (ours / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="lacks config.json"):
        hub.load(ours)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no weights of a known model"):
        hub.load(tmp_path)


@pytest.mark.parametrize("model", ["./nowhere", "a/b", Path("nowhere")])
def test_no_such_folder(model: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="No such folder"):
        hub.load(model)


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="chromfound-nonsense"):
        hub.load("chromfound-nonsense")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_cut_weights(ours: Path, keep: int) -> None:
    path = ours / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged"):
        hub.load(ours)


def test_garbage_weights(ours: Path) -> None:
    (ours / "model.safetensors").write_bytes(b"\xff" * 4096)
    with pytest.raises(ValueError, match="is damaged"):
        hub.load(ours)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format_version": 1}', '{"format_version": "one"}', "\x00\x01"]
)
def test_garbage_config(ours: Path, text: str) -> None:
    (ours / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json is not a model configuration"):
        hub.load(ours)


def test_config_that_is_no_text(ours: Path) -> None:
    (ours / "config.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match="config.json is not a model configuration"):
        hub.load(ours)


def test_newer_format(ours: Path) -> None:
    edit_config(ours, format_version=2)
    with pytest.raises(ValueError, match="newer version \\(format 2\\)"):
        hub.load(ours)


def test_unknown_size_in_config(ours: Path) -> None:
    edit_config(ours, network={**TINY, "n_experts": 3})
    with pytest.raises(ValueError, match="n_experts"):
        hub.load(ours)


@pytest.mark.parametrize("change", [{"d_low": 16}, {"n_layers": 3}, {"n_layers": 1}, {"n_chromosomes": 24}])
def test_weights_of_another_size(ours: Path, change: dict[str, int]) -> None:
    edit_config(ours, network={**TINY, **change}, chromosomes=CHROMOSOME_VOCABULARY[: change.get("n_chromosomes", 25)])
    with pytest.raises(ValueError, match="do not fit the network"):
        hub.load(ours)


@pytest.mark.parametrize("chromosomes", [CHROMOSOME_VOCABULARY[:-1], (*CHROMOSOME_VOCABULARY, "chrM"), ()])
def test_vocabulary_of_another_length(ours: Path, chromosomes: tuple[str, ...]) -> None:
    edit_config(ours, chromosomes=chromosomes)
    with pytest.raises(ValueError, match=f"lists {len(chromosomes)} chromosomes, the weights hold 25"):
        hub.load(ours)


# Models of region knowledge


@pytest.fixture
def region_set() -> RegionSetNet:
    torch.manual_seed(0)
    return RegionSetNet(RegionSetConfig(n_factors=4, d_cell=6, d_hidden=8)).eval()


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    """A region table of one bin with two factors, which makes four features."""
    bins = pd.DataFrame({"chrom": ["chr3"], "start": [100], "end": [600]})
    table = RegionTable(bins, np.array([[7], [-2]], np.int8), np.ones(2, np.float32), np.array([5], np.uint8), 20)
    table.save(tmp_path / "mine.npz")
    return tmp_path / "mine.npz"


def write_linear(folder: Path, model_class: str = "BiosampleMix", **changes: object) -> Path:
    folder.mkdir()
    config = {
        "format_version": 1,
        "model_class": model_class,
        "chromosomes": list(CHROMOSOME_VOCABULARY),
        "preparation": {},
        "mix": 0.25,
    }
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_region_set_round_trip(region_set: RegionSetNet, regions: Path, tmp_path: Path) -> None:
    preparation = {"target_sum": None, "log1p": True}
    folder = hub.save(region_set, tmp_path / "x", preparation=preparation, mix=1.5, regions=regions)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "region_table.npz"]
    regions.unlink()
    checkpoint = hub.load(folder)
    assert checkpoint.model_class == "RegionSet"
    assert checkpoint.net.config == region_set.config
    assert not checkpoint.net.training
    assert (checkpoint.mix, checkpoint.preparation) == (1.5, preparation)
    assert checkpoint.regions == folder / "region_table.npz"
    ocrs = pd.DataFrame({"chrom": ["chr3", "chr4"], "start": [0, 0], "end": [400, 400]})
    features = checkpoint.region_table().lookup(ocrs).features
    np.testing.assert_allclose(features[:, :2], [[7, -2], [0, 0]])
    with torch.inference_mode():
        tokens = [net.embed_ocrs(None, None, None, torch.from_numpy(features)) for net in (region_set, checkpoint.net)]
    assert torch.equal(*tokens)


def test_region_set_goes_by_the_package_table_if_it_has_none(region_set: RegionSetNet, tmp_path: Path) -> None:
    checkpoint = hub.load(hub.save(region_set, tmp_path / "x"))
    assert checkpoint.regions is None
    assert checkpoint.mix is None
    assert checkpoint.region_table() is load_region_table()


def test_saving_again_does_not_leave_another_region_table(
    region_set: RegionSetNet, regions: Path, tmp_path: Path
) -> None:
    folder = hub.save(region_set, tmp_path / "x", regions=regions)
    hub.save(region_set, folder, regions=folder / "region_table.npz", overwrite=True)
    assert hub.load(folder).regions == folder / "region_table.npz"
    hub.save(region_set, folder, overwrite=True)
    assert hub.load(folder).regions is None


@pytest.mark.parametrize("model_class", ["BiosamplePrior", "BiosampleMix"])
def test_linear_models_need_no_weights(model_class: str, regions: Path, tmp_path: Path) -> None:
    folder = write_linear(tmp_path / "linear", model_class)
    checkpoint = hub.load(folder)
    assert checkpoint.net is None
    assert (checkpoint.model_class, checkpoint.mix) == (model_class, 0.25)
    assert checkpoint.region_table() is load_region_table()
    shutil.copy(regions, folder / "region_table.npz")
    other = hub.load(folder)
    assert other.region_table().n_factors == 2
    assert len(other.sha256) == 64
    assert other.sha256 != checkpoint.sha256


def test_checksum_tells_linear_models_apart(tmp_path: Path) -> None:
    folders = [
        write_linear(tmp_path / "a"),
        write_linear(tmp_path / "b", "BiosamplePrior"),
        write_linear(tmp_path / "c", mix=0.5),
    ]
    assert len({hub.load(folder).sha256 for folder in folders}) == 3
    assert hub.load(folders[0]).sha256 == hub.load(write_linear(tmp_path / "d")).sha256


def test_bundled_linear_models() -> None:
    prior, mix = hub.load("biosample-prior"), hub.load("biosample-mix")
    assert (prior.model_class, mix.model_class) == ("BiosamplePrior", "BiosampleMix")
    assert prior.mix is None
    assert mix.mix > 0
    assert prior.chromosomes == mix.chromosomes == CHROMOSOME_VOCABULARY


@pytest.mark.parametrize("name", ["Nonsense", None, 3, "chromfound"])
def test_unknown_model_class(ours: Path, name: object) -> None:
    edit_config(ours, model_class=name)
    says = (
        f"model_class={name!r}; this version knows ChromFound, RegionSet, EpiFoundation, BiosamplePrior, BiosampleMix"
    )
    with pytest.raises(ValueError, match=says):
        hub.load(ours)


def test_linear_model_without_its_settings(tmp_path: Path) -> None:
    folder = write_linear(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    del config["chromosomes"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is not a model configuration .'chromosomes'"):
        hub.load(folder)


def test_a_network_that_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Linear is not one of the networks that can be saved: ChromFound, RegionSet"):
        hub.save(torch.nn.Linear(2, 2), tmp_path / "x")


# The authors' form


@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_form(net: ChromFoundNet, tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in released_state(net).items()}
    checkpoint = hub.load(write_released(tmp_path / "x", {"module": state}))
    assert checkpoint.net.config == net.config
    assert torch.equal(outputs(checkpoint.net), outputs(net))
    assert checkpoint.preparation == {"target_sum": 1e4, "log1p": True}


def test_convert(net: ChromFoundNet, released: Path, tmp_path: Path) -> None:
    folder = hub.convert(released, tmp_path / "converted")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(outputs(hub.load(folder).net), outputs(net))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        hub.convert(released, folder)
    hub.convert(released, folder, overwrite=True)


def test_convert_reference_weights(oracle_dir: Path, tmp_path: Path) -> None:
    theirs, mine = hub.load(oracle_dir / "chromfound"), hub.load(hub.convert(oracle_dir / "chromfound", tmp_path / "x"))
    assert mine.net.config == theirs.net.config
    assert mine.chromosomes == theirs.chromosomes
    assert torch.equal(outputs(mine.net, 200), outputs(theirs.net, 200))


def test_convert_wants_the_released_form(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="lacks model.pt"):
        hub.convert(ours, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["chromfd_pretrain.yaml", "chromosome_vocab.yaml"])
def test_missing_released_file(released: Path, name: str) -> None:
    (released / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}"):
        hub.load(released)


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, 0.5, 0.9, -1])
def test_cut_released_weights(released: Path, keep: float) -> None:
    path = released / "model.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="is damaged"):
        hub.load(released)


@pytest.mark.parametrize(
    "content",
    [
        b"not a checkpoint",
        b"<html>404 Not Found</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",
        b"PK\x03\x04" + b"\x00" * 500,
        b"\x00" * 1000,
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02K\x01.",
        b"\x80\x02}(X\x06",
        b"\x80\x04\x95",
        b"0",
        b"(",
        b"s",
        b"\xff" * 100,
    ],
)
def test_garbage_released_weights(released: Path, content: bytes) -> None:
    (released / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        hub.load(released)


class _Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
def test_code_in_a_pickle_does_not_run(net: ChromFoundNet, tmp_path: Path, place: str) -> None:
    bomb, state = _Bomb(str(tmp_path / "ran")), released_state(net)
    content = {"alone": bomb, "beside": {"module": state, "extra": bomb}, "inside": {"module": {**state, "x": bomb}}}
    folder = write_released(tmp_path / "released", content[place])
    with pytest.raises(ValueError, match="holds more than tensors"):
        hub.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[], 3, {}, {"model": {}}])
def test_other_checkpoints(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match="expected a dict with the key 'module'"):
        hub.load(write_released(tmp_path / "x", content))


@pytest.mark.parametrize("module", [[1], 3, None, {}, {"backbone.norm_f.weight": 1}, {1: torch.ones(1)}], ids=str)
def test_module_that_is_no_state_dict(tmp_path: Path, module: object) -> None:
    with pytest.raises(ValueError, match="released"):
        hub.load(write_released(tmp_path / "x", {"module": module}))


def test_unknown_tensor(net: ChromFoundNet, tmp_path: Path) -> None:
    state = {**released_state(net), "backbone.layers.0.moe.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="Unknown tensor 'backbone.layers.0.moe.weight'"):
        hub.load(write_released(tmp_path / "x", {"module": state}))


def test_additional_tensor_under_a_known_name(net: ChromFoundNet, tmp_path: Path) -> None:
    state = {**released_state(net), "backbone.layers.0.mixer.extra": torch.ones(1)}
    with pytest.raises(ValueError, match="Unexpected key"):
        hub.load(write_released(tmp_path / "x", {"module": state}))


def test_missing_tensor(net: ChromFoundNet, tmp_path: Path) -> None:
    for i, name in enumerate(["backbone.layers.1.mixer.D", "embedding.chromosome_embedding.weight"]):
        state = released_state(net)
        del state[name]
        with pytest.raises(ValueError, match="Missing key|is missing"):
            hub.load(write_released(tmp_path / str(i), {"module": state}))


@pytest.mark.parametrize(
    "name", ["mask_token_prediction.projection.weight", "backbone.layers.1.mixer.A_log", "backbone.norm_f.weight"]
)
def test_wrong_shape(net: ChromFoundNet, tmp_path: Path, name: str) -> None:
    state = released_state(net)
    state[name] = torch.ones(3, 5)
    with pytest.raises(ValueError, match="do not fit the network"):
        hub.load(write_released(tmp_path / "x", {"module": state}))


@pytest.mark.parametrize("chromosomes", [CHROMOSOME_VOCABULARY[:-1], (*CHROMOSOME_VOCABULARY, "chrM")])
def test_released_vocabulary_of_another_length(
    net: ChromFoundNet, tmp_path: Path, chromosomes: tuple[str, ...]
) -> None:
    folder = write_released(tmp_path / "x", {"module": released_state(net)}, chromosomes=chromosomes)
    with pytest.raises(ValueError, match=f"lists {len(chromosomes)} chromosomes, the weights hold 25"):
        hub.load(folder)


@pytest.mark.parametrize("name", ["wpsa_heads", "wpsa_window_size", "shift_size", "positional_temp"])
def test_missing_setting(net: ChromFoundNet, tmp_path: Path, name: str) -> None:
    args = {key: value for key, value in RELEASED_ARGS.items() if key != name}
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        hub.load(write_released(tmp_path / "x", {"module": released_state(net)}, args))


@pytest.mark.parametrize(("name", "value"), [("embedding_fusion_type", "concat"), ("do_fft", True)])
def test_unsupported_setting(net: ChromFoundNet, tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        hub.load(write_released(tmp_path / "x", {"module": released_state(net)}, {**RELEASED_ARGS, name: value}))


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "model_args: 3", "\x00"])
@pytest.mark.parametrize("name", ["chromfd_pretrain.yaml", "chromosome_vocab.yaml"])
def test_garbage_yaml(released: Path, name: str, text: str) -> None:
    (released / name).write_text(text)
    with pytest.raises(ValueError, match="released form"):
        hub.load(released)


def test_ours_wins_where_both_are(ours: Path, released: Path) -> None:
    shutil.copy(released / "model.pt", ours)
    assert hub.load(ours).training == {}
