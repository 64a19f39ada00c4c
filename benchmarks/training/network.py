#!/usr/bin/env python3
"""The served network alone, on one core: milliseconds an image of what serve/inference/engines/onednn.py makes of it
and of other ways.

    python benchmarks/training/network.py [--networks imagenet-resnet18 imagenet-resnet50] [--out results/network.json]

Claim: the network as the endpoint runs it takes no longer than folded batch normalisation in torch, at any batch.
Beside: the untouched network in float32 (what a script does that loads a checkpoint and calls it), torch.compile with
frozen weights where there is a C++ compiler, and OpenVINO where it is installed. One thread, the precision that the
endpoint chooses, features of random images through random weights; all take turns. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from benchmarks.training.single import commit
from resnet.host import glibc_allocator, hardware
from resnet.networks.resnet import ResNet, build
from resnet.training.step import PRECISIONS, native_precision
from serve.inference.classifier import folded
from serve.inference.engines.onednn import Fused
from serve.inference.engines.openvino import OpenVINO

SIDE = 224
Run = Callable[[Tensor], Any]


def main(argv: list[str]) -> int:
    """All networks, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", nargs="+", default=["imagenet-resnet18", "imagenet-resnet50"])
    add("--batches", type=int, nargs="+", default=[1, 8, 16], metavar="N")
    add("--turns", type=int, default=15, help="passes of each, a batch size; the median counts")
    add("--out", help="JSON file to write")
    args = parser.parse_args(argv)
    if any(os.environ.get(name) != value for name, value in glibc_allocator.KEPT.items()):  # glibc reads them at start
        os.execve(sys.executable, [sys.executable, __file__, *argv], os.environ | glibc_allocator.KEPT)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cases = [case for name in args.networks for case in measure(name, args.batches, args.turns)]
    result = {
        "benchmark": "network",
        "of_folded": min(case["of_folded"] for case in cases),
        "cases": cases,
        "hardware": hardware.describe_hardware(),
        "torch": torch.__version__,
        "commit": commit(),
    }
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def measure(name: str, batches: list[int], turns: int) -> list[dict[str, Any]]:
    """One network at each batch size."""
    precision = native_precision(torch.device("cpu"))
    ways = contenders(name, PRECISIONS[precision])
    cases = []
    for size in batches:
        images = torch.rand(size, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns + 2):  # the first two warm up, and compile
            for way, run in ways.items():
                begin = time.perf_counter()
                run(images)
                if turn >= 2:
                    times[way].append((time.perf_counter() - begin) / size * 1e3)
        medians = {way: statistics.median(values) for way, values in times.items()}
        cases.append(
            {
                "network": name,
                "precision": precision,
                "batch": size,
                "of_folded": round(medians["folded"] / medians["fused"], 3),
                "ms_an_image": {way: round(value, 2) for way, value in medians.items()},
                "quartiles": {
                    way: [round(q, 2) for q in statistics.quantiles(values, n=4)[::2]] for way, values in times.items()
                },
            }
        )
        told = ", ".join(f"{way} {value:.2f}" for way, value in medians.items())
        print(f"{name}, batches of {size}, ms an image: {told}", file=sys.stderr, flush=True)
    return cases


def untrained(name: str) -> ResNet:
    """The same weights at each call."""
    torch.manual_seed(0)
    return build(name).eval()


def contenders(name: str, dtype: torch.dtype) -> dict[str, Run]:
    """Each way to compute the features of images (N, 3, S, S), float32."""
    eager, plain = untrained(name), folded(untrained(name), dtype)
    zeros = torch.zeros(1, 3, SIDE, SIDE, dtype=dtype).contiguous(memory_format=torch.channels_last)
    fused = Fused(plain, zeros)
    ways: dict[str, Run] = {
        "eager float32": lambda x: eager.features(x),
        "folded": lambda x: plain.features(x.to(dtype)),
        "fused": lambda x: fused.features(x.to(dtype)),
    }
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        ways["inductor"] = inductor(plain, dtype)
    else:
        print("no C++ compiler: torch.compile is left out", file=sys.stderr)
    if importlib.util.find_spec("openvino") is not None:
        openvino = OpenVINO(plain, zeros, 1)
        ways["openvino"] = lambda x: openvino.features(x)
    else:
        print("openvino is not installed: left out", file=sys.stderr)
    return {way: torch.inference_mode()(run) for way, run in ways.items()}


def inductor(net: ResNet, dtype: torch.dtype) -> Run:
    """torch.compile with frozen weights, for each batch size anew."""
    import torch._inductor.config as settings

    settings.freezing = True
    compiled = torch.compile(net.features, dynamic=False)
    return lambda x: compiled(x.to(dtype))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
