"""Two threads at once: two models, or one model that both ask."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import elision
from elision import methods


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3))
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))


def batch(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(8, 3, 8, 8, generator=generator)


def at_once(works: list[Callable[[], list[Tensor]]]) -> list[list[Tensor]]:
    """What each work gives in a thread of its own."""
    given: list[list[Tensor]] = [[] for _ in works]
    running = [
        threading.Thread(target=lambda to=to, work=work: to.extend(work()))
        for to, work in zip(given, works, strict=True)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return given


def assert_same(first: list[list[Tensor]], second: list[list[Tensor]]) -> None:
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other) > 0
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize(
    "recipe",
    [methods.Swat(0.5, dense=()), methods.RigL(0.5, every=2, until=9, dense=())],
    ids=["swat", "rigl"],
)
def test_two_models_train_in_two_threads_as_alone(
    recipe: elision.Recipe, engine: str
) -> None:
    def training(seed: int) -> Callable[[], list[Tensor]]:
        # Weights are drawn here: torch's generator is one for all threads.
        model = elision.elide(network(seed), recipe, engine=engine)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        elision.topology.attach(model, optimizer)

        def work() -> list[Tensor]:
            seen: list[Tensor] = []
            for step in range(10):
                optimizer.zero_grad()
                with elision.record(model, samples=1) as trace:
                    with elision.memory.saver(model, "bits(4)", seed=step):
                        loss = model(batch(100 * seed + step)).square().mean()
                    loss.backward()
                optimizer.step()
                seen += [x for p in trace for x in (p.first, p.second)]
            return [*seen, *model.state_dict().values()]

        return work

    alone = [training(seed)() for seed in (1, 2)]
    assert_same(alone, at_once([training(seed) for seed in (1, 2)]))


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_two_threads_ask_one_model_as_one_does(engine: str) -> None:
    model = elision.elide(network(0), methods.Swat(0.5, dense=()), engine=engine).eval()

    def asking(first: int) -> Callable[[], list[Tensor]]:
        @torch.no_grad()
        def work() -> list[Tensor]:
            return [model(batch(first + n)) for n in range(20)]

        return work

    alone = [asking(first)() for first in (0, 50)]
    assert_same(alone, at_once([asking(first) for first in (0, 50)]))
