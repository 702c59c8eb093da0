"""The build: cached, repaired, safe beside other processes, never in the way."""

import multiprocessing
import os
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
