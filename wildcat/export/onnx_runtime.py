"""An exported network in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wildcat.export.network import METADATA, ExportedNetwork, Run, Shape, parse_metadata


class OnnxNetwork(ExportedNetwork):
    """An ONNX file in ONNX Runtime, on the CPU, with as many threads as PyTorch uses."""

    runtime = "onnx"

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self._library = onnxruntime
        self._path = str(file)
        session = self._session(None)
        super().__init__(file, parse_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA), file))
        self._axes = session.get_inputs()[0].shape  # a name for each axis that is open
        self._compiled[np.dtype(np.float32), None] = self._run_of(session)

    def _session(self, shape: Shape | None) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        if shape is not None:
            for axis, side in zip(self._axes, shape, strict=True):
                if isinstance(axis, str):
                    options.add_free_dimension_override_by_name(axis, side)
        return self._library.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        return self._run_of(self._session(shape))

    @staticmethod
    def _run_of(session: Any) -> Run:
        return lambda images, names: session.run(list(names), {"images": images})
