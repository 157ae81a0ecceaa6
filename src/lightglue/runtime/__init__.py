"""Matchers and extractors that run in ONNX Runtime or OpenVINO, behind the protocols of the package."""
