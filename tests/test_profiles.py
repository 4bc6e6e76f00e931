"""accelerate reads every shipped launch profile, and each profile does what its name says."""

import re
from pathlib import Path

import pytest

from signllava_cli.launch import build_launcher_args, read_profile
from signllava_cli.recipe import Launch, shipped_folder

FOLDER = shipped_folder("accelerate_configs")
PROFILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ZERO = [name for name in PROFILES if name.startswith("zero")]


def test_the_docs_list_exactly_the_shipped_profiles() -> None:
    page = (Path(__file__).parent.parent / "docs" / "launching.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page.split("## Profiles")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == PROFILES
    assert {"single", "multi_gpu", "multi_node", "zero1", "zero2", "zero3", "zero3_offload"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_accelerate_reads_the_profile(name: str) -> None:
    profile = read_profile(FOLDER / f"{name}.yaml")
    assert profile.mixed_precision == "no"  # llm.dtype decides
    is_single = name.startswith("single")
    assert profile.distributed_type.value == ("NO" if is_single else "DEEPSPEED" if name in ZERO else "MULTI_GPU")
    assert profile.use_cpu == name.endswith("_cpu")
    assert profile.num_machines == (2 if name == "multi_node" else 1)
    if name.endswith("_cpu"):
        assert profile.num_processes == (1 if is_single else 2)
    header = (FOLDER / f"{name}.yaml").read_text().split("compute_environment")[0]
    assert f"signllava pretrain --recipe R --launch {name}" in header


@pytest.mark.parametrize("name", ZERO)
def test_a_zero_profile_sets_its_stage_but_neither_accumulation_nor_clipping(name: str) -> None:
    config = read_profile(FOLDER / f"{name}.yaml").deepspeed_config
    assert config["zero_stage"] == int(name[4])
    assert not config.keys() & {"gradient_accumulation_steps", "gradient_clipping", "deepspeed_config_file"}
    assert config.get("offload_optimizer_device", "none") == "none"
    assert config.get("offload_param_device", "none") == ("cpu" if name == "zero3_offload" else "none")
    assert config["deepspeed_multinode_launcher"] == "standard"


@pytest.mark.parametrize("name", PROFILES)
def test_the_launcher_accepts_the_profile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("sys.argv", ["signllava", "pretrain", "--recipe", "R"])
    arguments = build_launcher_args(Launch(profile=name, main_process_ip="node0", main_process_port=29500))
    assert Path(arguments.config_file) == FOLDER / f"{name}.yaml"
    assert arguments.training_script == "signllava_cli"
    assert arguments.training_script_args == ["pretrain", "--recipe", "R"]
    assert arguments.deepspeed_multinode_launcher == "standard"


def test_machine_rank_0_overrides_the_rank_in_a_profile(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        "distributed_type: MULTI_CPU\nnum_processes: 2\nnum_machines: 2\nmachine_rank: 1\nuse_cpu: true\n"
        "main_process_ip: node0\nmain_process_port: 29500\n"
    )
    for rank, expected in ((None, 1), (0, 0), (1, 1)):
        assert build_launcher_args(Launch(profile=str(profile), machine_rank=rank)).machine_rank == expected
