"""Importing layer profiles: what is read, and every reason to refuse a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_inference_simulator.calibration.kernel_profile_rows import import_kernel_profiles
from llm_inference_simulator.calibration.op_table_rows import ImportedTables
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.errors import CalibrationError

RTX_4090 = load_xpu("rtx-4090")
META = "vllm_version: 0.19.0\ngpu: NVIDIA GeForce RTX 4090\nmodel: meta-llama/Llama-3.1-8B\n"
DENSE = "layer,tokens,time_us\n"
ATTENTION = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
PER_SEQUENCE = "layer,sequences,time_us\n"


def profile(
    folder: Path,
    name: str,
    text: str,
    *,
    meta: str = META,
    dtype: str = "bf16",
    group: str = "tp1",
) -> Path:
    home = folder / "owner" / "model" / dtype
    path = home / group / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (home / "meta.yaml").write_text(meta, encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path) -> ImportedTables:
    return import_kernel_profiles(folder, RTX_4090)


def refusal(folder: Path) -> str:
    with pytest.raises(CalibrationError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_become_the_kernels_of_the_profiled_model(tmp_path: Path) -> None:
    """Llama-3.1-8B: 4,096 wide, 32 heads on 8 of 128, MLP of 14,336, 128,256 words."""
    layers = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "act_fn", "layernorm")
    dense = "".join(f"{layer},16,{10 + i}\n" for i, layer in enumerate((*layers, "rotary_emb")))
    once = "embedding,16,900\nfinal_layernorm,16,900\n"
    profile(tmp_path, "dense.csv", DENSE + dense + once, group="tp2")
    rows = "512,0,0,0,50\n512,1024,0,0,80\n0,0,4,256,20\n512,0,4,256,900\n0,0,4,0,900\n"
    profile(tmp_path, "attention.csv", ATTENTION + rows, group="tp2")
    profile(tmp_path, "per_sequence.csv", PER_SEQUENCE + "lm_head,4,500\nsampler,4,9\n")
    profile(tmp_path, "moe.csv", "anything\n")
    found = load(tmp_path)
    times = {
        (table.kernel, *table.attributes): (table.axes, table.latency_ns.tolist())
        for table in found.tables
        if table.kernel != "gemm"
    }
    # Half of a group of two: 16 query heads on 4, an MLP of 7,168.
    assert times == {
        ("elementwise", "act_fn", 3 * 7168): (((16,),), [14_000.0]),
        ("elementwise", "layernorm", 4 * 4096): (((16,),), [15_000.0]),
        ("elementwise", "rotary_emb", 2 * (16 + 4) * 128): (((16,),), [16_000.0]),
        ("prefill_attention", "bfloat16", 128, 0): (
            (((16, 4),), (1,), (512,), (0, 1024)),
            [[[[50_000.0, 80_000.0]]]],
        ),
        ("decode_attention", "bfloat16", 128, 0): ((((16, 4),), (4,), (256,)), [[[20_000.0]]]),
    }
    gemm = found.tables.get("gemm", "bfloat16")
    assert gemm is not None
    shapes, tokens = gemm.axes
    measured = {
        (shape, count): gemm.latency_ns[i, j]
        for i, shape in enumerate(shapes)
        for j, count in enumerate(tokens)
        if gemm.latency_ns[i, j] > 0
    }
    assert measured == {
        (((16 + 2 * 4) * 128, 4096), 16): 10_000.0,
        ((4096, 2048), 16): 11_000.0,
        ((14336, 4096), 16): 12_000.0,
        ((4096, 7168), 16): 13_000.0,
        ((128256, 4096), 4): 500_000.0,
    }
    assert found.versions == {"owner/model/bf16": "0.19.0"}
    assert sorted(found.files) == [
        "owner/model/bf16/tp1/per_sequence.csv",
        "owner/model/bf16/tp2/attention.csv",
        "owner/model/bf16/tp2/dense.csv",
    ]


def test_the_median_of_repeated_rows_counts(tmp_path: Path) -> None:
    profile(tmp_path, "dense.csv", DENSE + "act_fn,1,3\nact_fn,1,900\nact_fn,1,4\n")
    (table,) = load(tmp_path).tables
    assert table.latency_ns.tolist() == [4000.0]


def test_a_folder_must_be_there_and_hold_profiles(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} is not a folder" in refusal(tmp_path / "none")
    profile(tmp_path, "dense.csv", DENSE).parents[1].joinpath("meta.yaml").unlink()
    assert "holds no profiles (meta.yaml)" in refusal(tmp_path)
    profile(tmp_path, "moe.csv", "x\n").with_name("dense.csv").unlink()
    assert "holds no times (dense.csv, attention.csv, per_sequence.csv" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (META.replace("RTX 4090", "RTX 3090"), "gpu='NVIDIA GeForce RTX 3090' is not rtx-4090"),
        (META.replace("gpu:", "gpus:"), "gpu='None' is not rtx-4090"),
        (META.replace("Llama-3.1-8B", "Llama-9"), "model='meta-llama/Llama-9' is not in the cat"),
        ("gpu: [unclosed\n", "meta.yaml"),
        ("- a list\n", "meta.yaml"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, meta: str, reason: str) -> None:
    path = profile(tmp_path, "dense.csv", DENSE + "act_fn,1,3\n", meta=meta)
    message = refusal(tmp_path)
    assert str(path.parents[1] / "meta.yaml") in message
    assert reason in message


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = profile(tmp_path, "dense.csv", DENSE + "act_fn,1,3\n", dtype="fp7")
    assert refusal(tmp_path).startswith(f"{path.parents[1]}: 'fp7' is no format")


@pytest.mark.parametrize("group", ["tp", "tp0", "2", "tp-1", "tpx", "pp2"])
def test_a_folder_that_is_no_group_is_refused(tmp_path: Path, group: str) -> None:
    path = profile(tmp_path, "dense.csv", DENSE + "act_fn,1,3\n", group=group)
    assert refusal(tmp_path).startswith(f"{path}: its folder must be tpN")


@pytest.mark.parametrize("group", ["tp3", "tp64"])
def test_a_group_that_does_not_divide_the_heads_is_refused(tmp_path: Path, group: str) -> None:
    path = profile(tmp_path, "dense.csv", DENSE + "act_fn,1,3\n", group=group)
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: ")
    assert "32 heads" in message


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("dense.csv", "layer,tokens,time_ms\nact_fn,1,3\n", ": column 'time_us' is missing"),
        ("dense.csv", "", ": column 'layer' is missing"),
        ("dense.csv", DENSE, " has no rows"),
        ("dense.csv", DENSE + "act_fn,1,3\nact_fn,2\n", ", row 2: it has not the header's col"),
        ("dense.csv", DENSE + "act_fn,1,3,4\n", ", row 1: it has not the header's columns"),
        ("dense.csv", DENSE + "act_fn,1,3\nact_fun,2,3\n", ", row 2: layer='act_fun' is not u"),
        ("dense.csv", DENSE + "act_fn,1,fast\n", ", row 1: time_us='fast' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,\n", ", row 1: time_us='' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,nan\n", ", row 1: time_us='nan' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,inf\n", ", row 1: time_us='inf' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,-3\n", ", row 1: time_us='-3' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,3e7\n", ", row 1: time_us='3e7' must be a number"),
        ("dense.csv", DENSE + "act_fn,1,0\n", ", row 1: time_us=0 must exceed 0"),
        ("dense.csv", DENSE + "act_fn,1.5,3\n", ", row 1: tokens=1.5 must be whole"),
        ("dense.csv", DENSE + "act_fn,0,3\n", ", row 1: tokens=0 must exceed 0"),
        ("attention.csv", ATTENTION + "x,0,0,0,3\n", ", row 1: prefill_chunk='x' must be a num"),
        ("attention.csv", ATTENTION + "0,0,-1,8,3\n", ", row 1: n_decode='-1' must be a number"),
        ("per_sequence.csv", PER_SEQUENCE + "head,1,3\n", ", row 1: layer='head' is not unders"),
        ("per_sequence.csv", PER_SEQUENCE + "lm_head,0,3\n", ", row 1: sequences=0 must exceed"),
    ],
)
def test_a_damaged_table_is_refused_with_its_row(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    path = profile(tmp_path, name, text)
    assert refusal(tmp_path).startswith(f"{path}{reason}")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = profile(tmp_path, "dense.csv", DENSE)
    path.write_bytes(b"layer,tokens,time_us\n\xff\xfe,1,3\n")
    assert refusal(tmp_path).startswith(f"{path} cannot be read: ")


@pytest.mark.parametrize(
    ("time", "reason"),
    [(1.7, ", row 1: time_us=1.7 would take "), (1_700_000, ": large products reach ")],
)
def test_milliseconds_and_nanoseconds_are_no_microseconds(
    tmp_path: Path, time: float, reason: str
) -> None:
    """8,192 tokens through 4,096 x 4,096 weights take 1.7 ms at 165 TFLOPS."""
    path = profile(tmp_path, "dense.csv", DENSE + f"o_proj,8192,{time}\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{path}{reason}")
    assert message.endswith("time_us must be microseconds")
