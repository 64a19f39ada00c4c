"""The networks, the recipe and the results of He et al. 2015, "Deep Residual Learning for Image Recognition".

`import resnet` loads neither torch nor ray: what needs torch is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from resnet.networks.architectures import names, parse_network

__all__ = ["backbone", "build", "names", "parse_network"]

if TYPE_CHECKING:
    from resnet.dense.trained_backbone import backbone
    from resnet.networks.resnet import build

    __version__: str
else:

    def __getattr__(attribute: str) -> Any:
        """`build`, `backbone`: imported late, for torch takes seconds to load, and a wrong name should not wait."""
        if attribute == "backbone":
            from resnet.dense.trained_backbone import backbone

            return backbone
        if attribute == "build":
            from resnet.networks.resnet import build

            return build
        if attribute == "__version__":
            return _installed_version()
        raise AttributeError(f"module 'resnet' has no attribute {attribute!r}; it has {', '.join(__all__)}")


def _installed_version() -> str:
    """The version in the metadata of the installed package; of a checkout that is not installed, `unknown`."""
    from importlib import metadata

    try:
        return metadata.version("deep-residual-ray")
    except metadata.PackageNotFoundError:
        return "unknown"
