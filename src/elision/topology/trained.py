"""State that an optimiser trains beside the weights: thresholds and steps that learn.

Such a parameter joins the optimiser's group of its weight when the controller is
attached. A saved optimiser state has it apart, under a key of the group, so that a state
loads before and after that, as loops of others do it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from elision.topology.optimizers import Stepper
from elision.topology.rule import Rule
from elision.topology.weights import SparseWeight

__all__ = ["TRAINED", "adopt"]

#: Key of a parameter group: name -> the optimiser's state of what it trains there.
TRAINED = "elision_trained"

State = dict[str, Any]


def adopt(
    rule: Rule, weights: list[SparseWeight], stepper: Stepper
) -> tuple[dict[str, Tensor], list[Any]]:
    """Let the optimiser train the rule's state, in the group of its weight.

    Returns:
        The parameters by name, and handles of the hooks that keep them apart in
        saved states.

    Raises:
        ValueError: a weight is sharded, or other processes step it.
    """
    optimizer, trained = stepper.inner, {}
    for name, weight, tensor in rule.parameters(weights):
        if hasattr(weight.weight, "full_tensor"):
            raise ValueError(
                f"layer {weight.name}: its weight is sharded, and {name} learns "
                "from whole weights; train this method without sharding"
            )
        trained[name] = _joined(optimizer, name, weight, tensor)
    if not trained:
        return {}, []
    for group in optimizer.param_groups:
        group.pop(TRAINED, None)  # of a state that was loaded before; taken over by now
    names = {id(parameter): name for name, parameter in trained.items()}

    def saving(saved: Any, state: State) -> State:
        return _apart(saved, state, names)

    def loading(loaded: Any, state: State) -> State:
        return _together(loaded, state, names)

    handles = []
    for each in stepper.all():
        if "_optimizer_state_dict_post_hooks" in getattr(each, "__dict__", {}):
            handles += [
                each.register_state_dict_post_hook(saving),
                each.register_load_state_dict_pre_hook(loading),
            ]
    return trained, handles


def _joined(
    optimizer: torch.optim.Optimizer, name: str, weight: SparseWeight, tensor: Tensor
) -> Tensor:
    """The parameter of a tensor in the group of a weight, which may have it already."""
    for group in optimizer.param_groups:
        known = [p for p in group["params"] if p.data_ptr() == tensor.data_ptr()]
        if known:
            return known[0]
    parameter = tensor if tensor.requires_grad else nn.Parameter(tensor)
    for group in optimizer.param_groups:
        if any(p is weight.weight for p in group["params"]):
            group["params"].append(parameter)
            if "param_names" in group:
                group["param_names"].append(f"{name}.{TRAINED}")
            loaded = group.get(TRAINED, {}).pop(name, None)
            if loaded:
                optimizer.state[parameter] = {
                    name: value.to(parameter.device) if _is_value(value) else value
                    for name, value in loaded.items()
                }
    return parameter


def _is_value(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _apart(optimizer: Any, state: State, names: dict[int, str]) -> State:
    """A saved state in which groups list the weights alone, what is trained apart."""
    if any(TRAINED in saved for saved in state["param_groups"]):
        return state  # another controller of this optimiser did
    values, numbers, groups = dict(state["state"]), {}, []
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        trained: State = {}
        stay: list[int] = []
        for parameter, number in zip(group["params"], saved["params"], strict=True):
            if id(parameter) in names:
                trained[names[id(parameter)]] = values.pop(number, {})
            else:
                stay.append(numbers.setdefault(number, len(numbers)))
        groups.append({**saved, "params": stay, TRAINED: trained})
        if "param_names" in saved:
            groups[-1]["param_names"] = [
                n for n in saved["param_names"] if not n.endswith(TRAINED)
            ]
    renumbered = {numbers.get(number, number): v for number, v in values.items()}
    return {**state, "state": renumbered, "param_groups": groups}


def _together(optimizer: Any, state: State, names: dict[int, str]) -> State:
    """A saved state as torch loads it: with what is trained among the parameters."""
    values, groups = dict(state["state"]), []
    for group, saved in zip(
        optimizer.param_groups, state["param_groups"], strict=False
    ):
        own = [names[id(p)] for p in group["params"] if id(p) in names]
        saved = {**saved, "params": list(saved["params"])}
        apart = saved.pop(TRAINED, {})
        if len(saved["params"]) != len(group["params"]):
            for name in own:
                saved["params"].append(f"{TRAINED}/{name}")
                if apart.get(name):
                    values[f"{TRAINED}/{name}"] = apart[name]
            if "param_names" in saved:
                saved["param_names"] = list(group.get("param_names", ()))
        groups.append(saved)
    rest = state["param_groups"][len(groups) :]
    return {**state, "state": values, "param_groups": [*groups, *rest]}
