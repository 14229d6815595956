"""Adds up the ranks of a job's processes over gloo; torchrun starts it."""

import os
from pathlib import Path

import torch
from torch import distributed

distributed.init_process_group("gloo")
total = torch.tensor(float(distributed.get_rank() + 1))
distributed.all_reduce(total)
Path(os.environ["SM_MODEL_DIR"], f"rank-{distributed.get_rank()}").write_text(
    f"{total.item()} of {distributed.get_world_size()} on {os.environ['SM_CURRENT_HOST']}"
)
distributed.destroy_process_group()
