"""The shipped models: names, published totals, cache sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_inference_simulator.catalog.models import ModelEntry, list_models, load_model
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models import RooflinePerformanceModel

KIB = 1024
COMPARABLE = [entry for entry in list_models() if entry.published_parameters is not None]

REQUIRED = [
    "llama-7b",
    "llama-13b",
    "llama-65b",
    "llama2-7b",
    "llama2-13b",
    "llama2-70b",
    "llama-2-70b",
    "llama-3-8b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-405b",
    "llama-3.3-70b",
    "llama-3.3-70b-nvfp4",
    "mistral-7b",
    "mixtral-8x7b",
    "mixtral-8x22b",
    "qwen2.5-7b",
    "qwen2.5-72b",
    "qwen3-0.6b",
    "qwen3-8b",
    "qwen3-14b",
    "qwen3-32b",
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "gemma-2-9b",
    "gemma-3-27b",
    "phi-3-mini",
    "phi-4",
    "gpt-oss-20b",
    "gpt-oss-120b",
    "deepseek-v2-lite",
    "deepseek-v3",
    "kimi-k2",
    "gpt3-175b",
    "codellama-34b",
    "yi-34b",
    "mistral-nemo",
    "llama-4-scout",
    "gemma-4",
]


@pytest.mark.parametrize("entry", COMPARABLE, ids=lambda entry: entry.name)
def test_parameter_total_agrees_with_the_published_one(entry: ModelEntry) -> None:
    total = load_model(entry.name).parameter_count
    assert total == pytest.approx(entry.published_parameters, rel=0.005)


@pytest.mark.parametrize("name", REQUIRED)
def test_required_names_load(name: str) -> None:
    assert load_model(name).parameter_count > 0


def test_no_name_stands_for_two_models() -> None:
    names = [name.casefold() for entry in list_models() for name in set(entry.names)]
    assert len(names) == len(set(names))


def test_index_and_config_files_match() -> None:
    shipped = {path.stem for path in list_models()[0].config_file.parent.glob("*.json")}
    names = {entry.name for entry in list_models()}
    # Sampling defaults of a checkpoint lie beside its configuration.
    sampling = {name for name in shipped if name.endswith(".generation")}
    assert shipped - sampling == names
    assert {name.removesuffix(".generation") for name in sampling} <= names


def test_any_case_and_hugging_face_ids_are_names() -> None:
    spec = load_model("META-LLAMA/meta-llama-3.1-70b")
    assert spec is load_model("llama-3.1-70b")
    assert spec.source == "llama-3.1-70b"


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("qwen3-235b-a22b", 22.2e9),
        ("mixtral-8x7b", 12.9e9),
        ("deepseek-v3", 37.6e9),
        ("kimi-k2", 32.9e9),
        ("gemma-4", 3.8e9),
        ("llama-4-scout", 17.2e9),
        ("llama-7b", 6_738_415_616),
    ],
)
def test_active_parameters(name: str, active: float) -> None:
    assert load_model(name).active_parameter_count == pytest.approx(active, rel=0.006)


# Every model of the collection of published config.json files: elements of the published weight
# files (language model alone, tied embeddings once, no multi-token prediction) where they are
# whole, else the model cards' figure; and a token's cache in 16 bits, 2 · layers · KV heads · head
# size · 2 bytes unless said otherwise.
PUBLISHED = {
    "yi-34b": (34_388_917_248, 2 * 60 * 8 * 128 * 2),
    "qwen2.5-7b": (7_615_616_512, 2 * 28 * 4 * 128 * 2),
    "qwen3-0.6b": (596_049_920, 2 * 28 * 8 * 128 * 2),
    "qwen3-8b": (8_190_735_360, 2 * 36 * 8 * 128 * 2),
    "qwen3-14b": (14_768_307_200, 2 * 40 * 8 * 128 * 2),
    "qwen3-32b": (32_762_123_264, 2 * 64 * 8 * 128 * 2),
    "qwen3-32b-fp8": (32_762_123_264, 2 * 64 * 8 * 128 * 2),
    "qwen3-30b-a3b": (30_532_122_624, 2 * 48 * 4 * 128 * 2),
    "qwen3-235b-a22b": (235_093_634_560, 2 * 94 * 4 * 128 * 2),
    "codellama-34b": (33_743_970_304, 2 * 48 * 8 * 128 * 2),
    "llama2-7b": (6_738_415_616, 2 * 32 * 32 * 128 * 2),
    "llama2-70b": (68_976_648_192, 2 * 80 * 8 * 128 * 2),
    "llama-3.1-8b": (8_030_261_248, 2 * 32 * 8 * 128 * 2),
    "llama-3.1-70b": (70_553_706_496, 2 * 80 * 8 * 128 * 2),
    "llama-3.1-405b": (405_853_388_800, 2 * 126 * 8 * 128 * 2),
    "llama-3.3-70b-nvfp4": (70_553_706_496, 2 * 80 * 8 * 128 * 2),
    "llama-4-scout": (107.8e9, 2 * 48 * 8 * 128 * 2),
    "llama-4-scout-fp8": (107.8e9, 2 * 48 * 8 * 128 * 2),
    "mistral-nemo": (12_247_782_400, 2 * 40 * 8 * 128 * 2),
    "mixtral-8x7b": (46_702_792_704, 2 * 32 * 8 * 128 * 2),
    "mixtral-8x22b": (140_620_634_112, 2 * 56 * 8 * 128 * 2),
    "gpt-oss-20b": (20_914_757_184, 2 * 24 * 8 * 64 * 2),
    "gpt-oss-120b": (116_829_156_672, 2 * 36 * 8 * 64 * 2),
    # Latent attention: layers · (512 + 64) · 2, whatever the heads.
    "deepseek-v2-lite": (15_706_484_224, 27 * 576 * 2),
    "deepseek-v3": (671_026_419_200, 61 * 576 * 2),
    # DeepSeek-V3 and its indexer; a token's cache holds an FP8 index key with its scale.
    "deepseek-v3.2": (
        671_026_419_200 + 61 * (1536 * 64 * 128 + 7168 * (128 + 64) + 2 * 128),
        61 * (576 * 2 + 128 + 4),
    ),
    "kimi-k2": (1026.4e9, 61 * 576 * 2),
    # 25 sliding layers of 8 heads of 256, 5 global ones of 2 heads of 512.
    "gemma-4": (25.2e9, (25 * 2 * 8 * 256 + 5 * 2 * 2 * 512) * 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_cache_of_published_models(name: str) -> None:
    parameters, bytes_per_token = PUBLISHED[name]
    spec = load_model(name)
    # A whole count must be met exactly, a rounded one to its last digit.
    tolerance = 0 if isinstance(parameters, int) else 2e-3
    assert spec.parameter_count == pytest.approx(parameters, rel=tolerance, abs=0)
    assert spec.kv_bytes_per_token() == bytes_per_token


def test_fp8_cache_is_half() -> None:
    spec = load_model("llama2-7b")
    assert spec.kv_bytes_per_token(1) == 256 * KIB


def test_sliding_layers_keep_their_window_only() -> None:
    spec = load_model("gpt-oss-120b")  # 18 of 36 layers see 128 tokens; 2 KiB a layer and token
    assert spec.kv_bytes_per_sequence(100) == 100 * 36 * 2 * KIB
    assert spec.kv_bytes_per_sequence(1000) == (18 * 1000 + 18 * 128) * 2 * KIB


def test_weight_bytes_in_16_bits_and_quantised() -> None:
    assert load_model("llama-7b").weight_bytes() == 2 * 6_738_415_616
    quantised, plain = load_model("qwen3-32b-fp8"), load_model("qwen3-32b")
    ends = 2 * 2 * 151_936 * 5120  # embedding and LM head stay in 16 bits
    assert quantised.weight_bytes() == pytest.approx(
        ends + (plain.weight_bytes() - ends) / 2, rel=0.001
    )
    # OpenAI publishes a checkpoint of 60.8 GiB.
    assert load_model("gpt-oss-120b").weight_bytes() / 2**30 == pytest.approx(60.8, rel=0.005)


def test_parameters_by_component_of_llama_7b() -> None:
    assert load_model("llama-7b").parameters() == {
        "embedding": 32_000 * 4096,
        "attention": 32 * 4 * 4096**2,
        "mlp": 32 * 3 * 4096 * 11_008,
        "norms": (2 * 32 + 1) * 4096,
        "lm_head": 32_000 * 4096,
    }


def test_sparse_attention_indexer_is_counted() -> None:
    counts = load_model("deepseek-v3.2").parameters()
    assert counts["indexer"] == 61 * (1536 * 64 * 128 + 7168 * 128 + 7168 * 64)


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_every_model_has_a_step_time(entry: ModelEntry) -> None:
    """Decode at batch 1 reads the active weights once: above that bound, and not far above."""
    model = RooflinePerformanceModel(entry.name, "h200-sxm", max_model_len=4096)
    parts = model.breakdown_decode(1, 1)
    moved = sum(part.bytes for part in parts.values())
    spec = load_model(entry.name)
    inactive = spec.vocab_size * spec.hidden_size * (1 if not spec.tie_word_embeddings else 0)
    stored = spec.weight_bytes() * spec.active_parameter_count / spec.parameter_count
    assert moved > 0.5 * (stored - 2 * inactive)
    assert moved < 2.0 * stored + 5e8


def test_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'llama-7bb'; did you mean 'llama-7b'"):
        load_model("llama-7bb")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json does not exist"):
        load_model(str(tmp_path / "nowhere.json"))


def test_a_folder_and_its_file_are_the_same_model(tmp_path: Path) -> None:
    shipped = next(e for e in list_models() if e.name == "qwen3-0.6b").config_file
    (tmp_path / "config.json").write_text(shipped.read_text())
    by_folder, by_file = load_model(str(tmp_path)), load_model(str(tmp_path / "config.json"))
    assert by_folder.parameters() == by_file.parameters() == load_model("qwen3-0.6b").parameters()
    assert by_folder.name == tmp_path.name


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load_model(str(tmp_path))
