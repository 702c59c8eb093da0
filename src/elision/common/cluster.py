"""A Ray cluster as an executor, for sweeps and studies that outgrow one machine.

Needs the ``ray`` extra. The machines of the cluster need this library installed.
"""

import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from elision.common.extras import imported

__all__ = ["RayExecutor"]


class RayExecutor(Executor):
    """Runs each call as one Ray task of one processor; use it in a ``with`` block.

    Args:
        address: of the cluster, as ``ray.init`` takes it; ``"local"`` starts one on
            this machine that ends with the executor.
        **how: further arguments of ``ray.init``.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ConnectionError: there is no cluster at this address.

    Example:
        >>> with RayExecutor("local") as executor:  # doctest: +SKIP
        ...     executor.submit(sum, [1, 2]).result()
        3
    """

    def __init__(self, address: str, **how: Any) -> None:
        self._ray = ray = imported("ray", "ray", "a Ray cluster")
        _check_port(address)
        options: dict[str, Any] = {"log_to_driver": False} | how
        ray.init(address, **options)
        #: Processors of the cluster: how many calls it works on at a time.
        self.workers = int(ray.cluster_resources().get("CPU", 1))
        self._call = ray.remote(_call)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Start ``fn(*args, **kwargs)`` on the cluster."""
        return self._call.remote(fn, args, kwargs).future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; one that was started here ends."""
        del wait, cancel_futures
        self._ray.shutdown()


def _check_port(address: str) -> None:
    """Raise ConnectionError at once where nothing listens; Ray tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from None


def _call(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return fn(*args, **kwargs)
