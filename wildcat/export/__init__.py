"""Exported networks: writing them, and running them in ONNX Runtime and OpenVINO."""
