"""Two processes, DistributedDataParallel on gloo: the losses of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="gru_c.torch needs PyTorch")
dist = pytest.importorskip("torch.distributed")

# One program for all ranks, whose number `rank` and `folder` it finds; a world of one trains without
# DistributedDataParallel, in this process.
PROGRAM = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import gru_c.torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = gru_c.torch.GRU(5, 17, 2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(34, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


torch.manual_seed(rank)  # DistributedDataParallel sends out those of rank 0
model = Model()
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
data = torch.Generator().manual_seed(7)
losses = []
for step in range(15):
    batch = torch.randn(8, 9, 5, generator=data)
    mine = batch[rank::world]
    optimizer.zero_grad()
    loss = (model(mine[:, :-1]) - mine[:, 1:].roll(1, 2)).square().mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    total = loss.detach() / world
    if world > 1:
        dist.all_reduce(total)
    losses.append(float(total))
if world > 1:
    dist.destroy_process_group()
params = [value.detach() for value in model.parameters()]
if world > 1:
    torch.save((losses, params), f"{folder}/{rank}.pt")
"""


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch with gloo")
def test_losses_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    import torch

    running = []
    for rank in range(2):
        code = f"folder, rank, world = {str(tmp_path)!r}, {rank}, 2\n{PROGRAM}"
        running.append(subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}))
    try:
        alone: dict[str, Any] = {"rank": 0, "world": 1}
        exec(PROGRAM, alone)
        assert [process.wait(timeout=300) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    (first, mine), (second, others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    assert first[-1] < 0.95 * first[0]
    np.testing.assert_allclose(first, alone["losses"], rtol=1e-5)
    for value, near, same in zip(alone["params"], mine, others, strict=True):
        assert torch.equal(near, same)
        torch.testing.assert_close(near, value, rtol=1e-4, atol=1e-5)
