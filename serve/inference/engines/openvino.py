"""A folded ResNet in OpenVINO's CPU plugin, a package that the endpoint uses where it is installed."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from resnet.networks.resnet import ResNet

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Traced(nn.Module):
    """The compiled part of a network: its features."""

    def __init__(self, plain: ResNet) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """ResNet.features."""
        return self.plain.features(x)


@functools.cache
def core() -> Any:
    """OpenVINO's runtime, one for the process. ImportError: not installed.

    Its CPU plugin gives the thread that loads it another stack for signal handlers, and takes that back when it ends.
    Of two plugins that end in the order of their begin, the second one gives back the stack of the first, which is gone
    then, and the next signal kills the process: a replica that has changed its version would not hear SIGTERM.
    """
    return import_module("openvino").Core()


class OpenVINO:
    """The features of a ResNet whose batch normalisation is folded. ImportError: not installed."""

    def __init__(self, plain: ResNet, images: Tensor, threads: int) -> None:
        """plain: float32 or bfloat16, which is what is computed in; images: (N, 3, S, S), as they will come."""
        runtime = core()
        front: Any = import_module("openvino.frontend")
        torch_front: Any = import_module("openvino.frontend.pytorch.ts_decoder")
        net = Traced(copy.deepcopy(plain).float()).eval()
        with warnings.catch_warnings():  # of torch, to which tracing is a thing of the past
            warnings.simplefilter("ignore")
            # openvino.convert_model does the same, and reports its use over the network.
            traced = torch_front.TorchScriptPythonDecoder(net, example_input=(images.float(),))
        frontend = front.FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(traced))
        model.reshape([-1, *images.shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[images.dtype],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # where it runs is for Ray and the system to say
        }
        self._request: Any = runtime.compile_model(model, "CPU", settings).create_infer_request()
        self._lock = threading.Lock()  # a request is one caller's

    def features(self, x: Tensor) -> Tensor:
        """ResNet.features, as float32."""
        with self._lock:
            found = self._request.infer([x.float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(found[0])
