"""What the worker processes do: one module a task, none of which the service itself imports."""

from __future__ import annotations
