"""The signal stack of a thread stays as it was, also where OpenVINO sets one of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import gc, signal, subprocess, sys
import openvino
from openvino import opset13 as ops
from wildcat.system.signal_stack import keep_signal_stack

signal.signal(signal.SIGCHLD, lambda *_: None)  # as PyTorch's loaders do
data = ops.parameter([1, 3, 8, 8])
model = openvino.Model([ops.relu(data)], [data])
with keep_signal_stack():
    request = openvino.Core().compile_model(model, "CPU").create_infer_request()
with keep_signal_stack():
    request.infer({0: __import__("numpy").zeros((1, 3, 8, 8), "float32")})
del request
gc.collect()
subprocess.run([sys.executable, "-c", ""], check=True)  # its end is a signal
print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are kept on Linux")
def test_a_signal_after_openvino_does_not_end_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "alive", done.stderr
