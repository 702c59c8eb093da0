"""The build: cached, repaired, safe beside other processes, never in the way."""

import multiprocessing
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch

from elision.engines import Hint, NativeEngine
from elision.engines.native import library
from elision.native import builder, shared_object
from elision.products import LayerProduct, MatmulGeometry, Product


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and sources small enough to build in no time."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" int elision_one() { return 1; }\n')
    monkeypatch.setattr(builder, "_sources", lambda: sorted(sources.iterdir()))
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path / "cache"))
    try:
        builder._compiler()
    except builder.BuildError as error:
        pytest.skip(str(error))
    return sources


def test_built_once_and_again_when_the_sources_change(cache, capsys):
    build = builder.Build("portable")
    path = build.library()
    assert "building the native kernels" in capsys.readouterr().err
    first = path.stat().st_mtime_ns
    assert build.library() == path
    assert path.stat().st_mtime_ns == first
    assert capsys.readouterr().err == ""
    (cache / "one.cpp").write_text('extern "C" int elision_one() { return 2; }\n')
    assert build.library() != path


@pytest.mark.parametrize("damage", ["truncate", "digest", "remove"])
def test_a_damaged_library_is_built_again(cache, damage):
    path = builder.Build("portable").library()
    good = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(good[:100])
    elif damage == "digest":
        path.with_suffix(".sha256").write_text("nonsense")
    else:
        path.unlink()
    assert builder.Build("portable").library() == path
    assert builder._digest(path) == path.with_suffix(".sha256").read_text()


def test_processes_that_build_at_once_do_not_collide(cache, tmp_path):
    code = textwrap.dedent(
        """
        import pathlib, sys
        from elision.native import builder
        builder._sources = lambda: sorted(pathlib.Path(sys.argv[1]).iterdir())
        print(builder.Build("portable").library())
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(cache)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    answers = [p.communicate() for p in processes]
    assert answers[0][0] == answers[1][0] != ""
    assert sum("building the native" in err for _, err in answers) == 1


def test_failures_are_told_in_one_line(cache, monkeypatch):
    (cache / "one.cpp").write_text("this is not C++\n")
    with pytest.raises(builder.BuildError, match="cannot build the native kernels"):
        builder.Build("portable").library()
    (cache / "one.cpp").write_text(
        "template <int N> struct D { static constexpr long v = D<N - 1>::v + N; };\n"
    )
    with pytest.raises(builder.BuildError, match=r"longer than 0\.001 s"):
        builder.Build("portable", timeout_seconds=0.001).library()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(builder.BuildError, match="no C\\+\\+ compiler"):
        builder.Build("portable").library()
    with pytest.raises(ValueError, match="unknown native variant"):
        builder.Build("avx1024")


def test_sanitized_libraries_lie_beside_the_others(cache, monkeypatch):
    plain = builder.Build("portable").library()
    monkeypatch.setenv("ELISION_SANITIZE", "address,undefined")
    try:
        watched = builder.Build("portable").library()
    except builder.BuildError as error:
        pytest.skip(f"no sanitizers here: {error}")
    assert watched != plain
    assert b"__asan_init" in watched.read_bytes()
    assert b"__asan_init" not in plain.read_bytes()
    monkeypatch.setenv("ELISION_SANITIZE", "adress")
    with pytest.raises(ValueError, match="unknown ELISION_SANITIZE 'adress'"):
        builder.Build("portable").library()


def test_without_a_compiler_the_engine_computes_with_torch(monkeypatch):
    monkeypatch.setattr(library, "unavailable", lambda: "no compiler")
    geometry = MatmulGeometry(3, 4, 5)
    values = [torch.randn(geometry.shape_of(n)) for n in ("input", "weight")]
    engine = NativeEngine()
    assert engine.unavailable() == "no compiler"
    found = engine.compute(
        LayerProduct(Product.FORWARD, geometry, *values), Hint("weight")
    )
    assert torch.equal(
        found, LayerProduct(Product.FORWARD, geometry, *values).compute()
    )


def test_the_variant_is_the_best_that_the_cpu_runs(monkeypatch):
    monkeypatch.delenv("ELISION_VARIANT", raising=False)
    tiles = "avx512_vnni avx512_fp16 avx512_bf16 amx_tile amx_bf16"
    for capability, flags, expected in [
        ("AVX512", tiles, "amx"),
        ("AVX512", tiles.replace(" amx_bf16", ""), "avx512fp16"),
        ("AVX512", "avx512f avx512_vnni avx512_fp16", "avx512fp16"),
        ("AVX512", "avx512f avx512_vnni", "avx512vnni"),
        ("AVX512", "avx512f", "avx512"),
        ("AVX2", "", "avx2"),
        ("DEFAULT", "", "portable"),
    ]:
        monkeypatch.setattr(builder, "cpu_fields", lambda f=flags: {"flags": f})
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda c=capability: c
        )
        assert builder.variant() == expected
    monkeypatch.setenv("ELISION_VARIANT", "portable")
    assert builder.variant() == "portable"
    monkeypatch.setenv("ELISION_VARIANT", "amx")  # would end in an illegal instruction
    with pytest.raises(
        ValueError, match="lacks some of its instructions; it runs portable"
    ):
        builder.variant()


def test_a_compiler_older_than_the_cpu_builds_the_next_best(cache, monkeypatch, capsys):
    del cache
    unknown = dict.fromkeys(("avx512fp16", "avx512vnni"), ("-mno-such-flag",))
    unknown["avx512"] = ()
    monkeypatch.setattr(builder, "VARIANTS", unknown)
    monkeypatch.setattr(shared_object, "variant", lambda: "avx512fp16")
    assert shared_object.path.__wrapped__().name.startswith("kernels-avx512-")
    assert capsys.readouterr().err.count("building the native kernels") == 3
    monkeypatch.setattr(shared_object, "variant", lambda: "avx512")
    unknown["avx512"] = ("-mno-such-flag",)
    with pytest.raises(builder.BuildError, match="no-such-flag"):
        shared_object.path.__wrapped__()


def _forked(queue):
    geometry = MatmulGeometry(40, 64, 64)
    values = [torch.ones(geometry.shape_of(n)) for n in ("input", "weight")]
    result = NativeEngine().compute(
        LayerProduct(Product.FORWARD, geometry, *values), Hint("weight")
    )
    queue.put(result.sum().item())


@pytest.mark.skipif(library.unavailable() is not None, reason="no native kernels")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kernels_run_in_a_forked_child():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        _forked(queue)  # the parent's threads exist now
        child = context.Process(target=_forked, args=(queue,))
        child.start()
        answers = [queue.get(timeout=60) for _ in range(2)]
        child.join(timeout=60)
        assert not child.is_alive()
        assert answers == [40 * 64 * 64] * 2
    finally:
        torch.set_num_threads(before)


def test_the_cache_is_the_users_alone(cache, tmp_path):
    path = builder.Build("portable").library()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o077 == 0
    for opened in (path, path.with_suffix(".sha256"), path.parent):
        mode = opened.stat().st_mode & 0o777
        opened.chmod(mode | 0o020)
        with pytest.raises(builder.BuildError, match="others can write to"):
            builder.Build("portable").library()
        opened.chmod(mode)
    assert builder.Build("portable").library() == path


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("which", ["library", "digest", "folder"])
def test_another_users_library_is_not_loaded(cache, which):
    path = builder.Build("portable").library()
    given = {
        "library": path,
        "digest": path.with_suffix(".sha256"),
        "folder": path.parent,
    }
    os.chown(given[which], 12345, 12345)
    with pytest.raises(builder.BuildError, match="belongs to another user"):
        builder.Build("portable").library()


def test_a_link_in_the_cache_is_not_followed(cache, tmp_path):
    path = builder.Build("portable").library()
    elsewhere = tmp_path / "elsewhere.so"
    path.replace(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(builder.BuildError, match="not a plain file"):
        builder.Build("portable").library()


def test_a_digest_of_bad_bytes_is_a_damaged_library(cache):
    path = builder.Build("portable").library()
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    assert builder.Build("portable").library() == path


def test_what_killed_compilations_left_is_removed(cache):
    path = builder.Build("portable").library()
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead = path.parent / f"build-{done.pid}-abc"
    alive = path.parent / f"build-{os.getpid()}-abc"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "kernels.so").write_text("half")
    builder.Build("portable").library()  # though it is built already
    assert not dead.exists()
    assert alive.exists()


def test_no_home_is_said_in_one_line(cache, monkeypatch):
    monkeypatch.delenv("ELISION_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def lost():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(builder.Path, "home", lost)
    with pytest.raises(builder.BuildError, match="no home folder; set ELISION_CACHE"):
        builder.Build("portable").library()


def test_a_library_without_a_function_is_refused(cache):
    path = builder.Build("portable").library()
    with pytest.raises(builder.BuildError, match="has no function elision_"):
        shared_object.opened(path)


def test_the_reason_is_the_linkers_and_not_that_it_failed(
    cache, tmp_path, monkeypatch
) -> None:
    script = tmp_path / "g++"
    script.write_text(
        "#!/bin/sh\n"
        'test "$1" = --version && exec echo a compiler\n'
        "echo '/usr/bin/ld: final link failed: No space left on device' >&2\n"
        "echo 'collect2: error: ld returned 1 exit status' >&2\n"
        "exit 1\n"
    )
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(
        builder.BuildError,
        match=rf"No space left on device \(in {re.escape(str(tmp_path))}",
    ):
        builder.build_text("int one;\n")
