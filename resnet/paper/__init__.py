"""The paper's published tables and claims; `python -m resnet.paper` prints Table 1 with our counts."""
