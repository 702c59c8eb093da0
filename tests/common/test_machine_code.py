"""Kept machine code: damage in its files costs a compilation and nothing else."""

import gc
import importlib.util
import random
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba.core.caching import IndexDataCacheFile

from elision.common.machine_code import compiled_once

SOURCE = "def doubled(x):\n    return 2 * x\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    path = tmp_path / "kept_function.py"
    path.write_text(SOURCE)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    spec = importlib.util.spec_from_file_location("kept_function", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    # Numba imports a function's module by name once the function is forgotten.
    monkeypatch.setitem(sys.modules, "kept_function", found)
    spec.loader.exec_module(found)
    gc.collect()
    gc.freeze()  # what other tests left is not searched at each of some 50 collections
    yield found
    gc.unfreeze()


def _hits(module: ModuleType) -> int:
    """Compiles anew or loads, calls, and counts what was loaded."""
    gc.collect()  # functions compiled before are forgotten, as in another process
    doubled = compiled_once(nogil=True)(module.doubled)
    assert doubled(21) == 42
    return sum(doubled.stats.cache_hits.values())


def test_machine_code_is_kept_and_damage_is_compiled_anew(module: ModuleType) -> None:
    assert (_hits(module), _hits(module)) == (0, 1)
    folder = Path(str(module.__file__)).parent / "__pycache__"
    drawn = random.Random(0)
    for pattern in ("*.nbi", "*.nbc"):
        (path,) = folder.glob(pattern)
        good = path.read_bytes()
        damaged = [good[: len(good) // 2], b"", b"\x80\x05nonsense"]
        for _ in range(8):
            at = drawn.randrange(len(good))
            flipped = bytes([good[at] ^ 1 << drawn.randrange(8)])
            damaged.append(good[:at] + flipped + good[at + 1 :])
        for content in damaged:
            path.write_bytes(content)
            assert _hits(module) == 0
            assert _hits(module) == 1  # and it was kept once more


def test_what_a_compilation_leaves_behind_is_collected(module: ModuleType) -> None:
    left: list[Any] = [type("Left", (), {})()]
    alive = weakref.ref(left[0])
    left.append(left)
    gc.disable()
    try:
        del left
        assert compiled_once(nogil=True)(module.doubled)(21) == 42
        assert alive() is None
    finally:
        gc.enable()


def test_machine_code_that_others_could_have_written_is_not_loaded(
    module: ModuleType,
) -> None:
    assert (_hits(module), _hits(module)) == (0, 1)
    folder = Path(str(module.__file__)).parent / "__pycache__"
    (path,) = folder.glob("*.nbc")
    path.chmod(0o666)
    assert _hits(module) == 0


def test_without_a_file_nothing_is_kept() -> None:
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    doubled = compiled_once(nogil=True)(namespace["doubled"])
    assert doubled(4) == 8
    assert doubled.stats.cache_path is None


def test_a_folder_that_keeps_nothing_is_told_once(
    tmp_path: Path,
    module: ModuleType,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "kept"
    monkeypatch.setattr("numba.config.CACHE_DIR", str(folder))
    doubled = compiled_once(nogil=True)(module.doubled)
    (place,) = folder.iterdir()
    place.rmdir()
    place.write_text("a file in its place")
    with caplog.at_level("WARNING", logger="elision"):
        assert (doubled(21), doubled(1.5)) == (42, 3.0)  # two kinds of argument
    said = [row for row in caplog.messages if str(folder) in row]
    assert len(said) == 1
    assert "each process compiles its own" in said[0]


def test_a_folder_of_the_user_that_is_passed_over_is_told(
    tmp_path: Path,
    module: ModuleType,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "kept"
    folder.write_text("a file in its place")
    monkeypatch.setattr("numba.config.CACHE_DIR", str(folder))
    with caplog.at_level("WARNING", logger="elision"):
        assert (_hits(module), _hits(module)) == (0, 1)
    (said,) = [row for row in caplog.messages if str(folder) in row]
    assert f"kept in {Path(str(module.__file__)).parent / '__pycache__'}" in said


def test_a_function_that_no_folder_keeps_is_told_once(
    module: ModuleType,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "numba.core.caching.CompileResultCacheImpl._locator_classes", []
    )
    with caplog.at_level("WARNING", logger="elision"):
        assert (_hits(module), _hits(module)) == (0, 0)
    said = [row for row in caplog.messages if "in any folder" in row]
    assert len(said) == 1


@pytest.mark.parametrize("step", ["_save_index", "_save_data"])
def test_a_kill_between_code_and_index_leaves_no_name_of_older_code(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object) -> None:
        raise OSError

    assert (_hits(module), _hits(module)) == (0, 1)
    path = Path(str(module.__file__))
    path.write_text(
        SOURCE.replace("2", "3") + "# of another size, hence of another time\n"
    )
    spec = importlib.util.spec_from_file_location("kept_function", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module)

    def tripled() -> int:
        gc.collect()
        return compiled_once(nogil=True)(module.doubled)(7)

    with monkeypatch.context() as patched:
        patched.setattr(IndexDataCacheFile, step, killed)
        assert tripled() == 21
    assert tripled() == 21
