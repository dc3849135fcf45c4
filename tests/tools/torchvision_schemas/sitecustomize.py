"""For tests only: makes torchvision's CUDA build importable beside a CPU torch.

With this folder in PYTHONPATH, the operators that torchvision's own library would define are
declared just before torchvision is imported, in this process and in all that it starts.
"""

import contextlib
import importlib.abc
import sys

OPERATORS = {"nms": "(Tensor a, Tensor b, float c) -> Tensor"}
OPERATORS["qnms"] = OPERATORS["nms"]


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator, schema in OPERATORS.items():
                with contextlib.suppress(RuntimeError):  # declared already
                    torch.library.define("torchvision::" + operator, schema)


sys.meta_path.insert(0, _BeforeTorchvision())
