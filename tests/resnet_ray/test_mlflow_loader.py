"""MLflow's loader_module finds the program's folder by itself, wherever the interpreter looks for modules."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# As in an environment with the wheel: resnet_ray can be imported, and this program's other folders cannot.
CODE = """
import importlib.util, os, sys
# An editable installation, of this checkout or another, has them on the path
sys.path[:] = [path for path in sys.path if not os.path.isdir(f"{path}/serve")]
sys.meta_path[:] = [each for each in sys.meta_path if "__editable" not in getattr(each, "__module__", "")]
assert importlib.util.find_spec("serve") is None
spec = importlib.util.spec_from_file_location(
    "resnet_ray", f"{sys.argv[1]}/resnet_ray/__init__.py", submodule_search_locations=[f"{sys.argv[1]}/resnet_ray"]
)
sys.modules["resnet_ray"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from resnet_ray import mlflow_loader
try:
    mlflow_loader._load_pyfunc("/nowhere")
except Exception as error:
    print(type(error).__name__, error)
import serve
print(serve.__file__)
"""


def test_the_loader_brings_its_own_path(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", CODE, str(ROOT)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert done.returncode == 0, done.stderr
    said, file = done.stdout.splitlines()
    assert "/nowhere" in said
    assert Path(file) == ROOT / "serve" / "__init__.py"
