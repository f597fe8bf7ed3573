"""Threads, seeds, memory, signals and processes: what is nonsense is refused in words."""

import os
import signal
import threading
import time

import pytest
import torch

from gptlib import runtime


@pytest.mark.parametrize("threads", [0, -1, 10**9, 1.5, True, "two"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads):
    with pytest.raises(ValueError, match=r"threads is .*; expected a whole number from 1 to 1024"):
        runtime.setup(0, threads)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("value", ["0", "-1", "", "many", "1.5", "²", "99999999"])
def test_a_variable_that_makes_no_sense_is_refused_by_its_name(monkeypatch, value):
    monkeypatch.setenv("GPTLIB_THREADS", value)
    with pytest.raises(ValueError, match=r"GPTLIB_THREADS is .*; expected a whole number from 1"):
        runtime.setup(0)


def test_threads_come_from_the_call_then_the_variable_then_one(monkeypatch):
    monkeypatch.setenv("GPTLIB_THREADS", "2")
    runtime.setup(0)
    assert torch.get_num_threads() == 2
    runtime.setup(0, 1)
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("GPTLIB_THREADS")
    runtime.setup(0)
    assert torch.get_num_threads() == 1


def test_memory_is_that_of_the_machine_or_unknown(monkeypatch):
    there = runtime.memory(torch.device("cpu"))
    assert there is None or 2**28 < there < 2**50
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert runtime.memory(torch.device("cpu")) is None


def test_a_rank_that_makes_no_sense_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for value in (None, "", "x"):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if value is not None:
            monkeypatch.setenv("LOCAL_RANK", value)
        with pytest.raises(ValueError, match="WORLD_SIZE is set and LOCAL_RANK is.*as python"):
            runtime.process_group().__enter__()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send SIGINT to a single process")
def test_the_first_interruption_is_noted_and_the_second_has_its_usual_effect():
    before = signal.getsignal(signal.SIGINT)
    with runtime.interruptions() as received:
        assert received == []
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)  # at most: the interruption ends it
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_caught():
    found = []

    def work():
        with runtime.interruptions() as received:
            found.append(received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]
