"""How a batch starts Ray and ends: on the loopback interface, with Ray shut down by a signal. Ray is replaced."""

import os
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wildcat.apps.batch import session
from wildcat.errors import WildcatError


class StubRay(types.ModuleType):
    """Records how it is used; as Ray, it sets a handler of its own."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.data = types.ModuleType("ray.data")
        self.calls: list[Any] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str, **options: Any) -> None:
        self.calls.append(address)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_ray_and_the_process(number: signal.Signals, code: int) -> None:
    ray, before = StubRay(), {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.raises(SystemExit) as error, session.end_on_signals():
        os.kill(os.getpid(), number)  # before Ray is started
    assert error.value.code == code
    with pytest.raises(SystemExit) as error, session.end_on_signals(), session.ray_session(ray, None, 1):
        os.kill(os.getpid(), number)
    assert error.value.code == code and ray.calls == ["local", "shutdown"]
    assert {each: signal.getsignal(each) for each in before} == before
    handler = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with session.end_on_signals():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, handler)


@pytest.fixture
def no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No module of Ray is imported; an import finds empty ones."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "ray"}
    for name in kept:
        del sys.modules[name]
    (tmp_path / "ray").mkdir()
    for file in ("__init__.py", "data.py"):
        (tmp_path / "ray" / file).touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("ray", "ray.data"):
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.mark.parametrize("address", [None, "auto"])
def test_ray_of_one_machine_listens_on_the_loopback_interface(
    no_ray: None, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE")
    for name in names:
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    session.import_ray(address)
    assert [os.environ.get(name) for name in names] == (["0", "token"] if address is None else [None, None])


def test_ray_that_cannot_be_started() -> None:
    ray = StubRay()
    ray.init = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    with (
        pytest.raises(WildcatError, match="Ray cannot be started: division by zero"),
        session.ray_session(ray, None, 1),
    ):
        pass
    assert ray.calls == []
