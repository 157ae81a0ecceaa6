# As much of torch as a type checker needs for the code of users; its own files take a minute to read.
from typing import Any

from torch import nn as nn

class Tensor:
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
