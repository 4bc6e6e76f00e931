"""Two nodes, each with its own network address and host name, train and decode as one node does."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import MadeOnce, sets, subprocess_command
from safetensors.torch import load_file
from two_nodes import PORT, Node, Wire, launch_options, missing_for_nodes, outputs_of, two_nodes

from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.recipe import shipped_folder

Nodes = tuple[Node, Node, Wire]
OneNodeRun = Callable[[str], Path]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := missing_for_nodes():
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


@pytest.fixture
def words(corpus: Path, tiny_llm: Path, tmp_path: Path) -> Callable[..., list[str]]:
    return lambda run=tmp_path / "run": pretrain_words(corpus, tiny_llm, run)


def pretrain_words(corpus: Path, tiny_llm: Path, run: Path) -> list[str]:
    settings = [f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.output_dir={run}", "data.train=dev"]
    settings += ["train.max_steps=6", "train.batch_size=8", "train.micro_batch_size=2", "train.save_steps=2"]
    settings += ["train.eval_steps=3", "track.logging_steps=1", "init.projector=null"]
    return ["pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings)]


@pytest.fixture
def one_node_run(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> OneNodeRun:
    """A run of two processes on one node under a profile."""

    def run(profile: str) -> Path:
        def make(folder: Path) -> None:
            process = subprocess_command(*pretrain_words(corpus, tiny_llm, folder), "--launch", profile)
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output

        return made_once(f"one-node-{profile}", make)

    return run


def assert_equal_weights(run: Path, expected_run: Path) -> None:
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        tensors, expected = load_file(run / "last" / file), load_file(expected_run / "last" / file)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), file


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "two nodes train to the weights of one node with two processes")
@pytest.mark.parametrize("profile", ["multi_cpu", "zero2_cpu", "zero3_cpu"])
def test_two_nodes_end_with_the_weights_of_one_node(
    nodes: Nodes, words: Callable[..., list[str]], one_node_run: OneNodeRun, tmp_path: Path, profile: str
) -> None:
    *machines, wire = nodes
    processes = [node.signllava(*words(), *launch_options(node, profile)) for node in machines]
    outputs = outputs_of(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "ranks 2," in outputs[0]
    assert wire.passed > 100  # the gradients went over the wire
    assert_equal_weights(tmp_path / "run", one_node_run(profile))


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "two nodes train to the weights of one node with two processes")
def test_accelerate_launch_on_two_nodes_ends_with_the_weights_of_one_node(
    nodes: Nodes, words: Callable[..., list[str]], one_node_run: OneNodeRun, tmp_path: Path
) -> None:
    *machines, _ = nodes
    profile = str(shipped_folder("accelerate_configs") / "multi_cpu.yaml")
    topology = f"--num_machines 2 --num_processes 2 --main_process_ip node0 --main_process_port {PORT}".split()
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", profile, *topology]
    processes = [
        node.start(*launcher, "--machine_rank", node.rank, "-m", "signllava_cli", *words()) for node in machines
    ]
    outputs = outputs_of(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert_equal_weights(tmp_path / "run", one_node_run("multi_cpu"))


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a late node, delayed and dropped packets only make a run slower")
def test_a_late_node_and_a_slow_wire_that_drops_packets_change_no_weight(
    nodes: Nodes,
    words: Callable[..., list[str]],
    one_node_run: OneNodeRun,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    first, second, wire = nodes
    wire.delay, wire.loss = 0.1, 0.02
    processes = [first.signllava(*words(), *launch_options(first, "multi_cpu"))]
    time.sleep(15)
    processes.append(second.signllava(*words(), *launch_options(second, "multi_cpu")))
    outputs = outputs_of(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert wire.dropped > 5
    record_property("dropped packets", wire.dropped)
    assert_equal_weights(tmp_path / "run", one_node_run("multi_cpu"))


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "two nodes decode to the predictions of one process")
def test_two_nodes_decode_to_the_predictions_of_one_process(nodes: Nodes, run: Path, tmp_path: Path) -> None:
    *machines, _ = nodes
    words = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 8, "--beams", 2, "--context", 2]
    words += ["--context-source", "predicted"]
    alone = subprocess_command(*words, "--out", tmp_path / "one")
    assert alone.wait(timeout=300) == 0, alone.communicate()[0]
    processes = [
        node.signllava(*words, "--out", tmp_path / "two", *launch_options(node, "multi_cpu")) for node in machines
    ]
    outputs = outputs_of(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, two = (read_predictions(tmp_path / name / "predictions.jsonl") for name in ("one", "two"))
    assert [(row.id, row.hypothesis, row.context) for row in two] == [
        (row.id, row.hypothesis, row.context) for row in one
    ]
    assert len({row.hypothesis for row in one}) > 3
    (num_decoded,) = re.findall(
        r"(\d+) clips in .* predicted context", "".join(outputs)
    )  # of the node that ended last
    assert 0 < int(num_decoded) < len(one)
