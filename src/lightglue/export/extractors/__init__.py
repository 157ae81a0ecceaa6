"""Extractors as ONNX graphs, one module a network, written node by node from folded weights."""

from __future__ import annotations
