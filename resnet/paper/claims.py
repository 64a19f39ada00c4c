"""All claims of He et al. (arXiv 1512.03385) that pipelines/reports/verdicts.py judges."""

from resnet.paper.cifar10_claims import CIFAR10_CLAIMS
from resnet.paper.imagenet_claims import IMAGENET_CLAIMS

CLAIMS = (*IMAGENET_CLAIMS, *CIFAR10_CLAIMS)
