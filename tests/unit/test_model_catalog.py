"""The shipped models: names, published totals, cache sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_inference_simulator.catalog.models import ModelEntry, list_models, load_model
from llm_inference_simulator.errors import ConfigError

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
    assert shipped == {entry.name for entry in list_models()}


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


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama-3.1-70b", 320 * KIB),  # 2 · 80 layers · 8 heads · 128 · 2 bytes
        ("llama2-7b", 512 * KIB),  # 2 · 32 · 32 · 128 · 2
        ("deepseek-v3", 61 * (512 + 64) * 2),  # 68.6 KiB
        ("gemma-4", (25 * 2 * 8 * 256 + 5 * 2 * 2 * 512) * 2),
        ("deepseek-v3.2", 61 * ((512 + 64) * 2 + 128 + 4)),
    ],
)
def test_kv_bytes_per_token(name: str, bytes_per_token: int) -> None:
    assert load_model(name).kv_bytes_per_token() == bytes_per_token


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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepseek-v3", "latent attention"),
        ("gpt-oss-20b", "--max-model-len 128"),
        ("mistral-7b-v0.1", "--max-model-len 4096"),
        ("gemma-2-9b", "--max-model-len 4096"),
    ],
)
def test_roofline_refuses_what_it_would_misprice(name: str, words: str) -> None:
    spec = load_model(name)
    assert words in (spec.unsupported_by_roofline(spec.max_position_embeddings) or "")


@pytest.mark.parametrize("name", ["llama2-70b", "qwen3-32b-fp8", "gpt3-175b", "phi-4", "opt-13b"])
def test_roofline_accepts_dense_models(name: str) -> None:
    spec = load_model(name)
    assert spec.unsupported_by_roofline(spec.max_position_embeddings) is None


def test_roofline_accepts_windows_that_no_sequence_outgrows() -> None:
    assert load_model("mistral-7b-v0.1").unsupported_by_roofline(4096) is None


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
