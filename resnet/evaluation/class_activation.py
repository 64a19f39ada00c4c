"""Where a network looks: the class activation map of an image.

These networks end in an average over the last map and one linear layer. For such, Grad-CAM is the weighted sum of that
map's channels by the class's row of the layer, without a gradient (Selvaraju et al. 2017, section 3; Zhou et al. 2016).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet.networks.resnet import ResNet


@torch.inference_mode()
def activation_maps(net: ResNet, pixels: Tensor, outputs: Tensor) -> np.ndarray:
    """Grad-CAM of an output for each image, (N, H, W) float32 in [0, 1]; 0 all over where nothing speaks for it.

    pixels: (N, 3, H, W), normalised; outputs: (N,).
    """
    features = net.features(pixels).float()
    maps = torch.einsum("nchw,nc->nhw", features, net.fc.weight[outputs].float()).relu()
    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    sized = F.interpolate(maps[:, None], pixels.shape[-2:], mode="bilinear", align_corners=False)
    return sized[:, 0].cpu().numpy()
