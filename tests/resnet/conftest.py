"""Pictures and networks that the tests of this folder share."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


def draw(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue(), image


def enliven(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) * 0.5 + 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return net.eval()


@pytest.fixture(scope="session")
def picture():
    """picture(height, width, seed) -> a PNG of smooth random colours, and its Pillow image."""
    return draw


@pytest.fixture(scope="session")
def lively():
    """lively(net, seed) -> weights and batch norm statistics at random: no layer is an identity by chance."""
    return enliven


def _photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise of several scales, darker below, a few hard edges, and a little grain. (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for scale in (3, 8, 24):
        coarse = rng.normal(0, 1, (scale, scale, 3)).astype(np.float32)
        planes = [Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        pixels += 60 / np.sqrt(scale) * np.stack([np.asarray(p) for p in planes], axis=2)
    for _ in range(6):
        y, x = rng.integers(0, height), rng.integers(0, width)
        pixels[y : y + height // 4 + 1, x : x + width // 4 + 1] += rng.normal(0, 50, 3)
    pixels += np.linspace(40, -40, height)[:, None, None] + rng.normal(0, 3, pixels.shape)
    return np.clip(pixels + 128, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photograph() -> Callable[..., np.ndarray]:
    """photograph(seed, height, width) -> (height, width, 3) uint8."""
    return _photograph


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """encode(pixels or a Pillow image, format="JPEG", **Pillow's options) -> bytes of a file."""

    def encoded(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
        image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return encoded


@pytest.fixture(scope="session")
def jpegs(photograph: Callable[..., np.ndarray], encode: Callable[..., bytes]) -> dict[str, bytes]:
    """Complete JPEGs of all samplings and orders of data, of odd and of tiny sizes."""
    pixels = photograph(0, 203, 301)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {f"4:{s}": encode(pixels, quality=90, subsampling=f"4:{s}") for s in ("4:4", "2:2", "2:0")}
    files |= {f"quality {q}": encode(pixels, quality=q) for q in (25, 75, 100)}
    files["progressive"] = encode(pixels, quality=85, progressive=True)
    files["optimized"] = encode(pixels, quality=85, optimize=True)
    files["restart rows"] = encode(pixels, quality=85, restart_marker_rows=1)
    files["restart blocks"] = encode(pixels, quality=85, restart_marker_blocks=3)
    files["grayscale"] = encode(Image.fromarray(pixels).convert("L"), quality=85)
    files["stored as RGB"] = encode(pixels, quality=85, keep_rgb=True)
    files["with EXIF and comment"] = encode(pixels, quality=85, exif=exif, comment=b"\xff\xd9" * 40)
    for height, width in ((1, 1), (1, 40), (40, 1), (2, 3), (16, 16), (17, 33), (480, 31), (19, 500), (333, 500)):
        files[f"{height} x {width}"] = encode(photograph(height, height, width), quality=88)
    return files
