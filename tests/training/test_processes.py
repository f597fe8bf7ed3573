"""Several processes on one machine: the command under torchrun, stops, resuming, sharding."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from gptlib import runtime
from gptlib.__main__ import app
from gptlib.formats.checkpoint import load_checkpoint
from gptlib.runtime import process_group
from gptlib.training import loop
from gptlib.training.config import TrainConfig

sys.path.insert(0, os.path.dirname(__file__))  # workers import this file, and it test_loop
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
STEPS = 150
SMALL = (f"--vocab-size 280 --context-length 16 --n-layer 2 --n-head 3 --n-embd 18 --batch-size 4 "
         f"--learning-rate 1e-3 --muon-learning-rate 0.005 --max-steps {STEPS} "
         f"--evaluate-every 50 --checkpoint-every 1000").split()
posix = pytest.mark.skipif(os.name == "nt", reason="Windows cannot signal a single process")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    draw = random.Random(0)
    words = [draw.choice("red blue green old new small big".split()) for _ in range(2000)]
    file = tmp_path_factory.mktemp("text") / "tiny.txt"
    file.write_text(" ".join(words), encoding="utf-8")
    return ["train", "--corpus", str(file), *SMALL]


def run_alone(options, folder):
    """The run that one process makes."""
    assert CliRunner().invoke(app, [*options, "--out", str(folder)]).exit_code == 0
    return folder


def start(command, **environment):
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def torchrun(*arguments):
    return start(["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", free_port(),
                  "-m", "gptlib", *arguments])


def pair(*arguments):
    """Two processes with the environment that torchrun gives them, to be signalled one by one."""
    port = free_port()
    return [start(["-m", "gptlib", *arguments], RANK=str(i), LOCAL_RANK=str(i), WORLD_SIZE="2",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=port) for i in range(2)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def wait_for(file, process):
    while not file.exists() and process.poll() is None:
        time.sleep(0.01)


def entries(folder):
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_same_run(folder, other):
    for ours, theirs in zip(entries(folder), entries(other), strict=True):
        assert ours["step"] == theirs["step"]
        for name in ("loss", "val_loss", "learning_rate", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], abs=2e-4), (ours, theirs)
    weights, wanted = (load_checkpoint(each)[0].state_dict() for each in (folder, other))
    for name in wanted:
        torch.testing.assert_close(weights[name], wanted[name], rtol=0, atol=1e-3)


@posix
def test_torchrun_stops_at_ctrl_c_resumes_and_does_what_one_process_does(options, tmp_path):
    run = torchrun(*options, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / "log.jsonl", run)
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=120)
    assert output.count("go on with --resume") == 1, (output, errors)
    assert "gptlib" not in errors, errors  # no traceback of ours; torchrun reports the signal
    step = load_checkpoint(tmp_path / "run")[2]["step"]
    assert 10 <= step < STEPS

    run = torchrun("train", "--resume", "--out", tmp_path / "run")
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0 and output.count("finished") == 1, (output, errors)
    assert output.count("held-out loss") == len([1 for i in (50, 100, 150) if i > step])
    assert_same_run(tmp_path / "run", run_alone(options, tmp_path / "alone"))


@posix
def test_a_signal_to_one_process_stops_a_sharded_run_and_one_process_ends_it(options, tmp_path):
    options = [*options, "--optimizer", "adamw"]
    first, second = pair(*options, "--shard", "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / "log.jsonl", first)
    second.send_signal(signal.SIGTERM)
    results = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    assert "go on with --resume" in results[0][0] and results[1][0] == ""
    assert 10 <= load_checkpoint(tmp_path / "run")[2]["step"] < STEPS
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(tmp_path / "run")])
    assert "finished" in result.output
    assert_same_run(tmp_path / "run", run_alone(options, tmp_path / "alone"))


SHARDED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import test_processes as t
from gptlib.runtime import process_group
with process_group("cpu"):
    torch.set_num_threads(1)
    t.sharded(sys.argv[2])
"""


def small_run(folder, **changes):
    """A model with weights shared by input and output, whose rows do not divide evenly."""
    import test_loop as t

    from gptlib.training.optim import AdamW, parameter_groups

    model = t.small_gpt(n_layer=2, n_embd=18, tie_weights=True, position="learned", bias=True,
                        zero_init=False, norm="layernorm")
    optimizer = AdamW(parameter_groups(model), lr=1e-3)
    config = TrainConfig(**{"max_steps": 6, "accumulation": 2, "grad_clip": 0.1} | changes)
    return model, optimizer, config, t


def sharded(folder):
    from gptlib.formats.checkpoint import resume, save_checkpoint
    from gptlib.training.evaluation import evaluate_loss

    model, optimizer, config, t = small_run(folder, shard=True)
    numbers = []
    for step in t.train(model, t.batches(t.DATA, 4), optimizer, config):
        numbers.append((step.loss, step.grad_norm, evaluate_loss(model, t.DATA)))
        if step.step == 3:
            save_checkpoint(folder + "/middle", model, step=3, optimizer=optimizer)
    held = [p.to_local().untyped_storage().nbytes() for p in model.parameters()]
    held += [value.to_local().untyped_storage().nbytes() for state in optimizer.state.values()
             for value in state.values() if isinstance(value, torch.Tensor)]
    save_checkpoint(folder + "/end", model, step=6, optimizer=optimizer)

    again, optimizer, config, t = small_run(folder, shard=True)
    at = resume(folder + "/middle", again, optimizer)
    list(t.train(again, t.batches(t.DATA, 4, start=2 * at), optimizer, config, start=at))
    save_checkpoint(folder + "/resumed", again, step=6, optimizer=optimizer)
    if loop.rank()[0] == 0:
        torch.save([numbers, sum(held)], folder + "/numbers.pt")


def test_a_sharded_model_trains_like_a_whole_one_and_each_process_holds_half(tmp_path):
    from gptlib.training.evaluation import evaluate_loss

    port = free_port()
    workers = [start(["-c", SHARDED, os.path.dirname(__file__), tmp_path], RANK=str(i),
                     LOCAL_RANK=str(i), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
               for i in range(2)]
    results = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    numbers, held = torch.load(tmp_path / "numbers.pt")

    model, optimizer, config, t = small_run(tmp_path)
    wanted = [(step.loss, step.grad_norm, evaluate_loss(model, t.DATA))
              for step in t.train(model, t.batches(t.DATA, 4), optimizer, config)]
    assert all(norm > 0.1 for _, norm, _ in wanted)  # otherwise nothing is clipped
    for ours, theirs in zip(numbers, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    end, resumed = (load_checkpoint(tmp_path / name)[0] for name in ("end", "resumed"))
    for p, q, r in zip(model.parameters(), end.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
        assert torch.equal(q, r)
    everything = 3 * 4 * model.num_parameters()  # weights and two averages, float32
    assert 0.5 * everything <= held < 0.55 * everything  # rows are rounded up


def test_sharding_needs_several_processes():
    model, optimizer, config, t = small_run(None, shard=True)
    with pytest.raises(ValueError, match="shard is True in a single process.*nproc_per_node"):
        next(t.train(model, t.batches(t.DATA, 4), optimizer, config))


def test_muon_is_refused_for_a_sharded_model(tmp_path):
    from gptlib.training import runs
    from gptlib.training.optim import Muon, parameter_groups

    model = small_run(None)[0]
    with pytest.raises(ValueError, match="Muon, which needs whole matrices; expected.*AdamW"):
        loop._shard(model, Muon(parameter_groups(model, muon=True)))
    with pytest.raises(ValueError, match="--optimizer adamw"):
        next(runs.run(runs.RunConfig(corpus=("stories",)), tmp_path / "run", shard=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"precision": "float16"}, {"compile": True}])
def test_what_a_sharded_model_cannot_do_is_refused(changes):
    with pytest.raises(ValueError, match="shard is True, precision"):
        TrainConfig(shard=True, **changes)


def test_each_process_drops_activations_of_its_own_at_each_step_and_repeats_them(monkeypatch):
    def draw(own, processes, number):
        monkeypatch.setattr(loop, "rank", lambda: (own, processes))
        with loop._own_randomness(number, torch.device("cpu")):
            return torch.rand(1).item()

    torch.manual_seed(7)
    drawn = [draw(*at) for at in [(0, 2, 0), (1, 2, 0), (0, 2, 1), (1, 2, 1), (0, 2, 0)]]
    assert drawn[0] == drawn[4] and len(set(drawn)) == 4
    after, _ = torch.rand(1), torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(7)
    assert draw(0, 1, 3) == after.item()  # a single process draws as if nothing were there


@pytest.fixture
def recorded(monkeypatch):
    """Pretend to be process 1 of 2 with two GPUs; note what would be called."""
    calls = []
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(str(device)))
    monkeypatch.setattr(runtime, "distributed", SimpleNamespace(
        init_process_group=calls.append, destroy_process_group=lambda: calls.append("left")))
    return calls


def test_on_gpus_each_process_takes_its_own_and_nccl(recorded):
    with process_group("cuda") as device:
        assert str(device) == "cuda:1"
    assert recorded == ["cuda:1", "cpu:gloo,cuda:nccl", "left"]


def test_the_group_is_left_after_an_error_too(recorded):
    with pytest.raises(KeyError), process_group("cpu") as device:
        assert str(device) == "cpu"
        raise KeyError
    assert recorded == ["gloo", "left"]


def test_more_processes_than_gpus_are_refused(recorded, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1 of its machine, which has 1 GPUs"):
        process_group("cuda").__enter__()


def test_a_device_that_processes_cannot_share_is_refused(recorded):
    with pytest.raises(ValueError, match="several processes need cpu or cuda"):
        process_group("mps").__enter__()


def test_without_torchrun_there_is_nothing_to_join(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as device:
        assert str(device) == "cpu" and runtime.rank() == (0, 1)
        assert runtime.largest_of_all(3) == 3


def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything_is_written(tmp_path,
                                                                                 monkeypatch):
    from gptlib.training import runs

    monkeypatch.setattr(runs, "rank", lambda: (0, 3))
    config = runs.RunConfig(corpus=("stories",), batch_size=16)
    with pytest.raises(ValueError, match="batch_size is 16 for 3 processes"):
        next(runs.run(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
