"""A node that is gone or out of reach ends a run on every node, with one line that says why; a rerun resumes."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import interrupted, sets, subprocess_command, wait_until_stopped
from safetensors.torch import load_file
from two_nodes import PORT, SIGNLLAVA, Node, Wire, launch_options, missing_for_nodes, outputs_of, two_nodes

Nodes = tuple[Node, Node, Wire]
Record = Callable[[str, object], None]
START, LOST = 25, 20  # seconds, on a busy machine


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if reason := missing_for_nodes():
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


@pytest.fixture
def words(corpus: Path, tiny_llm: Path, tmp_path: Path) -> list[str]:
    """A pretraining of 8 steps whose nodes have `START` seconds to start and are lost after `LOST` seconds."""
    settings = [f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
    settings += ["train.max_steps=8", "train.batch_size=8", "train.micro_batch_size=2", "train.save_steps=2"]
    settings += ["train.eval_steps=8", "track.logging_steps=1", "init.projector=null", "data.train=dev"]
    settings += [f"launch.rendezvous_timeout={START}", f"launch.heartbeat_timeout={LOST}"]
    return ["pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings)]


def start(nodes: Sequence[Node], words: list[str], env: dict[str, str] | None = None) -> list[subprocess.Popen[str]]:
    return [node.signllava(*words, *launch_options(node, "multi_cpu"), env=env) for node in nodes]


def assert_one_error(output: str, *parts: str) -> None:
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert all(part in errors[0] for part in parts), errors
    assert "Traceback" not in output, output
    assert "frame #" not in output, output


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a cut wire or a killed node ends both nodes; a rerun ends with the same weights")
def test_a_run_that_loses_wire_and_nodes_ends_with_the_weights_of_an_uninterrupted_one(
    nodes: Nodes, words: list[str], tmp_path: Path, record_property: Record
) -> None:
    """Each time rank 0 stops itself before it logs another step, then the link or a node goes."""
    first, second, wire = nodes
    for loss, step in (("wire", 4), ("node 1", 3), ("node 0", 3)):  # counted from the step at which it resumes
        processes = start([first, second], words, env=interrupted("metrics.jsonl", step, signal.SIGSTOP))
        family = wait_until_stopped(processes[0])
        if loss == "wire":
            wire.is_cut = True
        else:
            (second if loss == "node 1" else first).kill()
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGCONT)
        outputs = outputs_of(processes, 200)
        codes = [process.returncode for process in processes]
        if loss == "wire":
            assert codes == [1, 1], outputs
            assert_one_error(outputs[0], f"no answer of machine 1 for {LOST} s", "Run the same command again")
            assert_one_error(outputs[1], f"no answer of machine 0 for {LOST} s", "Run the same command again")
        else:
            survivor = 0 if loss == "node 1" else 1
            assert (codes[survivor], codes[1 - survivor]) == (1, -signal.SIGKILL), outputs
            assert_one_error(outputs[survivor], "lost the connection to another rank", "run the same command again")
        wire.is_cut = False
    record_property("losses", 3)
    processes = start([first, second], words)
    outputs = outputs_of(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "resumed from" in outputs[0]
    uninterrupted = [*words, "--set", f"run.output_dir={tmp_path / 'whole'}", "--launch", "multi_cpu"]
    process = subprocess_command(*uninterrupted)
    assert process.wait(timeout=300) == 0, process.communicate()[0]
    weights, expected = (load_file(tmp_path / run / "last" / "projector.safetensors") for run in ("run", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "nodes that cannot find or reach each other end in time, and say what is missing")
def test_a_node_that_never_starts_is_named(nodes: Nodes, words: list[str]) -> None:
    process = start(nodes[:1], words)[0]
    output = outputs_of([process], 200)[0]
    assert process.returncode == 2
    assert_one_error(output, f"machine 0 has waited {START} s", f"node0:{PORT}", "1 of 2 machines joined")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "nodes that cannot find or reach each other end in time, and say what is missing")
@pytest.mark.parametrize("reason", ["wrong address", "unknown name", "firewall"])
def test_a_node_that_does_not_reach_machine_0_says_so(nodes: Nodes, words: list[str], reason: str) -> None:
    first, second, wire = nodes
    host = {"wrong address": "10.77.0.9", "unknown name": "node9", "firewall": "node0"}[reason]
    wire.swallows = (lambda sender, receiver: True) if reason == "firewall" else None
    processes = start([first], words)
    processes.append(second.signllava(*words, *launch_options(second, "multi_cpu", host)))
    outputs = outputs_of(processes, 200)
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert_one_error(outputs[0], "1 of 2 machines joined")
    assert_one_error(outputs[1], f"machine 1 could not connect to machine 0 at {host}:{PORT} within {START} s")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "nodes that cannot find or reach each other end in time, and say what is missing")
def test_a_firewall_that_passes_only_the_port_of_machine_0_is_named(nodes: Nodes, words: list[str]) -> None:
    first, second, wire = nodes
    wire.swallows = lambda sender, receiver: PORT not in (sender, receiver)
    processes = start([first, second], words)
    outputs = outputs_of(processes, 200)
    assert [process.returncode for process in processes] == [2, 2], outputs
    for output in outputs:
        assert_one_error(output, "ranks could not connect to each other", "pass all ports", "interface eth0")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "nodes with another recipe or other data are found at the start")
@pytest.mark.parametrize("different", ["train.learning_rate", "dev"])
def test_a_node_with_another_recipe_or_other_data_is_named(
    nodes: Nodes, words: list[str], corpus: Path, tmp_path: Path, different: str
) -> None:
    first, second, _ = nodes
    shutil.copytree(corpus, tmp_path / "copy")
    file = tmp_path / "copy" / "annotation.dev.json"
    file.write_text(file.read_text().replace("Monday", "Tuesday"))
    change = "train.learning_rate=0.5" if different == "train.learning_rate" else f"data.root={tmp_path / 'copy'}"
    processes = [*start([first], words), *start([second], [*words, "--set", change])]
    outputs = outputs_of(processes, 240)
    assert [process.returncode for process in processes] == [2, 2], outputs
    for output in outputs:
        assert_one_error(output, f"different from machine 0: machine 1 ({different})")


@pytest.mark.drill
@pytest.mark.reliability("Nodes", "a run folder that the nodes do not share is found at the start")
def test_a_run_folder_that_is_another_one_on_the_second_node_is_named(
    nodes: Nodes, words: list[str], tmp_path: Path
) -> None:
    first, second, _ = nodes
    (tmp_path / "run").mkdir()
    processes = start([first], words)
    command = [*SIGNLLAVA, *words, *launch_options(second, "multi_cpu")]
    processes.append(second.start_with_own(tmp_path / "run", *command))
    outputs = outputs_of(processes, 240)
    assert [process.returncode for process in processes] == [2, 2], outputs
    for output in outputs:
        assert_one_error(output, f"{tmp_path / 'run'} of machine 0 is not the same folder on machine 1", "share")
