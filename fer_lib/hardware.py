"""Where a run computes, and how: CUDA, MPS or the CPU."""

import contextlib
import ctypes
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_lib.dropout import speed_up


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, and how: `precision` is that of the forward pass in training."""

    device: torch.device
    name: str
    precision: torch.dtype
    memory_format: torch.memory_format

    def autocast(self):
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, its weights laid out, and its layers made, as they are fast there."""
        model = speed_up(model) if self.device.type == "cpu" else model
        return model.to(self.device, memory_format=self.memory_format)

    def put(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (N, 48, 48) to a tensor (N, 1, 48, 48) on the device."""
        return torch.from_numpy(images)[:, None].to(self.device)


def choose_hardware() -> Hardware:
    """Take CUDA, else MPS, else the CPU; bfloat16 and channels_last where they are fast.

    bfloat16 is so on a CPU that multiplies matrices of it itself: about three times as fast as float32 with AMX,
    1.7 to 2.7 times with AVX-512 alone. Other CPUs imitate it, which saves nothing; channels_last is faster on these
    too, by pooling above all. With $FER_PRECISION set to float32 all are taken for such a CPU, so that what it
    computes can be seen on any; ValueError for another value. On a CPU the process keeps what it frees from then on,
    see `keep_freed_memory`.
    """
    plain, fast = (torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last)
    wanted = os.environ.get("FER_PRECISION")
    if wanted not in (None, "", "float32"):
        raise ValueError(f"FER_PRECISION is {wanted!r}: write float32, or leave it out for what is fastest here")
    plain_wanted = wanted == "float32"
    if not plain_wanted and torch.cuda.is_available():
        quick = torch.cuda.get_device_capability() >= (8, 0)
        torch.backends.cudnn.benchmark = True  # shapes are few
        torch.backends.cudnn.allow_tf32 = False  # what is judged in float32 is not to be rounded to ten bits
        return Hardware(torch.device("cuda"), torch.cuda.get_device_name(), *(fast if quick else plain))
    if not plain_wanted and torch.backends.mps.is_available():
        return Hardware(torch.device("mps"), f"Apple {platform.machine()} GPU", *plain)
    keep_freed_memory()
    name = f"{platform.machine()} CPU"
    with contextlib.suppress(OSError, KeyError):  # not Linux, or a CPU that does not say what it is
        text = Path("/proc/cpuinfo").read_text()
        name = name_processor(text)
        for flag, words in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512")):
            if not plain_wanted and re.search(rf"^flags\b.*\b{flag}\b", text, re.M):
                return Hardware(torch.device("cpu"), f"{name} with {words}", *fast)
    return Hardware(torch.device("cpu"), name, torch.float32, torch.channels_last)


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, where the C library is glibc.

    What a batch needs is freed and asked for again with the next one. Large pieces go back to the system each time, and
    come again page by page, each cleared, which takes a good part of a small network's training. The process stays as
    large as it ever was, until it ends."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # malloc.h's M_MMAP_MAX: no piece is got apart from the others, to be given back by itself
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nor are those at the end given back


def name_processor(text: str) -> str:
    """A CPU's name, from the text of /proc/cpuinfo. Virtual machines hide the number in it, and then one name
    stands for CPUs of which one is twice as fast as another: the name gets the numbers of family and model."""
    told = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)", text, re.M))
    name, family, model = (told[key] for key in ("model name", "cpu family", "model"))
    return name if re.search(r"\d", name) else f"{name} (family {family}, model {model})"
