"""Entering and leaving: failures anywhere, re-entry, threads, forks, profilers."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from elision.memory import measure_peak, saver
from elision.memory import saver as saver_class


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))


def step(
    model: nn.Module, x: Tensor, policy: Any = None, **options: Any
) -> list[Tensor]:
    model.zero_grad()
    if policy is None:
        loss = model(x).square().sum()
    else:
        with saver(model, policy, **options):
            loss = model(x).square().sum()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def traces() -> tuple[Any, ...]:
    """All that a saver that is left must not leave behind."""
    return (
        torch._C._autograd._top_saved_tensors_default_hooks(True),  # pyright: ignore[reportAttributeAccessIssue]
        len(hooks_of._global_forward_hooks),
        len(hooks_of._global_forward_pre_hooks),
        torch.autograd.profiler._is_profiler_enabled,
    )


class _Injected(Exception):
    pass


def lines_of(work: Callable[[], None], files: tuple[str, ...]) -> Iterator[int]:
    """Run ``work`` again and again, each time with a failure at one line later."""
    number = 0
    while True:
        left, hit = number, False

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left, hit
            if not frame.f_code.co_filename.endswith(files):
                return None
            if event == "line":
                left -= 1
                if left < 0 and not hit:
                    hit = True
                    sys.settrace(None)
                    raise _Injected
            return trace

        sys.settrace(trace)
        try:
            work()
        except _Injected:
            pass
        finally:
            sys.settrace(None)
        if not hit:
            return
        yield number
        number += 1


@pytest.mark.parametrize("policy", ["exact", "bits(4)"])
def test_a_failure_at_any_line_of_entering_leaves_nothing_behind(policy: str) -> None:
    model, x = network(), torch.randn(32, 64)
    plain, before = step(model, x), traces()
    entered = saver(model, policy, seed=0)

    def enter() -> None:
        entered.__enter__()
        sys.settrace(None)
        entered.__exit__(None, None, None)

    count = 0
    for _ in lines_of(
        enter, ("memory/saver.py", "memory/modules.py", "memory/packing.py")
    ):
        assert traces() == before
        assert same(plain, step(model, x))
        count += 1
    assert count > 40
    # The same saver still works.
    with entered:
        loss = model(x).square().sum()
    model.zero_grad()
    loss.backward()
    assert entered.ledger.rows


def test_a_failure_at_any_line_of_leaving_takes_the_hooks_off() -> None:
    model, x = network(), torch.randn(32, 64)
    plain, before = step(model, x), traces()

    def leave() -> None:
        used = saver(model, "int8", seed=0)
        sys_trace = sys.gettrace()
        sys.settrace(None)
        used.__enter__()
        model(x)
        sys.settrace(sys_trace)
        used.__exit__(None, None, None)

    count = 0
    for number in lines_of(leave, ("memory/modules.py", "memory/packing.py")):
        assert traces() == before, number
        assert same(plain, step(model, x))
        count += 1
    assert count > 20


@pytest.mark.parametrize("what", ["begin", "named_modules", "pack"])
def test_failures_of_what_the_saver_calls_are_passed_on(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elision.memory.codecs import ThresholdMask
    from elision.memory.policies.base import Policy

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError(what)

    model, x = network(), torch.randn(32, 64)
    plain, before = step(model, x), traces()
    owner = {"begin": Policy, "named_modules": nn.Module, "pack": ThresholdMask}[what]
    with monkeypatch.context() as patched:
        patched.setattr(owner, what, fail)
        with pytest.raises(KeyError, match=what), saver(model, "exact"):
            model(x)
    assert traces() == before
    assert same(plain, step(model, x))


def test_a_saver_is_entered_once_at_a_time_and_used_as_often_as_you_like() -> None:
    model, x = network(), torch.randn(32, 64)
    plain, before = step(model, x), traces()
    one = saver(model, "exact")
    for _ in range(3):
        with one:
            with pytest.raises(
                RuntimeError, match="this saver's block is not left yet"
            ):
                one.__enter__()
            loss = model(x).square().sum()
        model.zero_grad()
        loss.backward()
        assert same(plain, [p.grad for p in model.parameters() if p.grad is not None])
        rows = [row.slot.consumer for row in one.ledger.rows]
        assert rows.count("Relu.result") == 1
    assert traces() == before


def test_a_saver_inside_another_packs_and_both_account() -> None:
    outer_model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), network())
    x = torch.randn(32, 64)
    plain = step(outer_model, x)

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = outer_model[:2](x)
            with saver(outer_model[2], "offload") as self.inner:
                return outer_model[2](h)

    model = Model()
    with saver(outer_model, "none") as alone:
        outer_model(x)
    with saver(model, "exact") as outer:
        loss = model(x).square().sum()
    outer_model.zero_grad()
    loss.backward()
    assert same(plain, [p.grad for p in outer_model.parameters() if p.grad is not None])
    assert any(row.codec == "offload" for row in model.inner.ledger.rows)
    assert {id(r) for r in model.inner.ledger.rows} < {id(r) for r in outer.ledger.rows}
    # Plain autograd's bytes: loss and square() save what the model returns as well.
    loss_saves = ("PowBackward0", "unknown")
    own = [r for r in outer.ledger.rows if r.slot.function not in loss_saves]
    assert sum(r.logical_bytes for r in own) == alone.ledger.logical_bytes


def test_threads_train_at_once_as_if_alone() -> None:
    models = [network(seed) for seed in range(4)]
    batches = [torch.randn(64, 64) for _ in models]
    policies = ["exact", "int8", "offload", "bits(4)"]
    alone = [
        step(m, x, p, seed=0) for m, x, p in zip(models, batches, policies, strict=True)
    ]
    failures: list[str] = []

    def train(number: int) -> None:
        model, x, policy = models[number], batches[number], policies[number]
        try:
            for _ in range(30):
                with saver(model, policy, seed=0) as saved:
                    loss = model(x).square().sum()
                model.zero_grad()
                loss.backward()
                mine = [p.grad for p in model.parameters() if p.grad is not None]
                if not same(alone[number], mine):
                    failures.append(f"{policy}: other gradients")
                modules = {row.slot.module for row in saved.ledger.rows}
                if not modules <= {"", "0", "1", "2"}:
                    failures.append(f"{policy}: {modules}")
        except Exception as error:  # reported by the main thread
            failures.append(f"{policy}: {error!r}")

    before = traces()
    threads = [threading.Thread(target=train, args=(n,)) for n in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert traces() == before


def test_a_saver_in_use_is_refused_to_another_thread() -> None:
    model, refused = network(), []

    def enter() -> None:
        try:
            one.__enter__()
        except RuntimeError as error:
            refused.append(str(error))

    with saver(model, "exact") as one:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_a_block_is_left_in_the_thread_that_entered_it() -> None:
    model, x, refused = network(), torch.randn(32, 64), []
    plain, before = step(model, x), traces()

    def leave() -> None:
        try:
            one.__exit__(None, None, None)
        except RuntimeError as error:
            refused.append(str(error))

    one = saver(model, "exact")
    with one:
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
    assert "entered in another thread" in refused[0]
    assert traces() == before
    assert same(plain, step(model, x))


@pytest.mark.parametrize("seed", ["1", 1.5, -1, True])
def test_a_seed_is_a_number_to_count_with(seed: object) -> None:
    with pytest.raises(ValueError, match="must be an integer"):
        saver(network(), "bits(4)", seed=seed)  # pyright: ignore[reportArgumentType]


def test_what_is_no_module_is_refused_in_one_sentence() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
        saver(lambda x: x, "exact")  # pyright: ignore[reportArgumentType]


class Packed(Dataset[Tensor]):
    """Computes its examples with a saver, in whatever process it is asked."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return step(network(), torch.full((64, 64), float(index)), "offload")[0]


def test_workers_that_are_forked_in_the_block_do_not_hang() -> None:
    model, x = network(), torch.randn(64, 64)
    plain = step(model, x)
    expected = [Packed()[index] for index in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with saver(model, "offload"):
            loss = model(x).square().sum()
            loader = DataLoader(Packed(), None, num_workers=2, timeout=60)
            assert same(expected, list(loader))
    model.zero_grad()
    loss.backward()
    assert same(plain, [p.grad for p in model.parameters() if p.grad is not None])


def test_somebody_elses_profiler_is_left_alone() -> None:
    model, x = network(), torch.randn(32, 64)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        with (
            pytest.warns(UserWarning, match=r"memory is not measured.*torch.profiler"),
            saver_class(model, "exact", measure=True) as saved,
        ):
            model(x)
        with pytest.raises(RuntimeError, match=r"measured by torch.profiler"):
            measure_peak(lambda: model(x))
        torch.ones(3).cumsum(0)
    assert saved.measured is None
    assert "policy: exact" in saved.report()
    names = {event.name for event in recorded.events() or []}
    assert {"aten::addmm", "aten::cumsum"} <= names
    with saver_class(model, "exact", measure=True) as saved:
        model(x)
    assert saved.measured is not None


def test_a_scripted_model_has_its_batch_and_its_gradients() -> None:
    x = torch.randn(32, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(network())
    assert isinstance(scripted, nn.Module)
    plain, before = step(scripted, x), traces()
    for policy in ("exact", "offload"):
        assert same(plain, step(scripted, x, policy))
    assert traces() == before
