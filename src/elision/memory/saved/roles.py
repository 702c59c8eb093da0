"""Purpose of a saved tensor: its consumer's slot, and from it the role.

A saved tensor is known by the function that will read it in the backward pass and by
the slot it sits in there (``ConvolutionBackward0.input``). The role is the part of the
tensor that the function needs: its values, the side of a threshold they lie on, or its
shape. The table is read off PyTorch's derivative formulas; a slot that is not in it
is ``OTHER``, and nothing lossy is ever done to it.
"""

import enum
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["ROLES", "SMOOTH_ROLES", "VALUE_ROLES", "Role", "Slot", "role_of"]


class Role(enum.Enum):
    """Use of a saved tensor in the backward pass.

    Example:
        >>> Role("pool indices")
        <Role.POOL_INDICES: 'pool indices'>
    """

    WEIGHT = "weight"
    STATISTIC = "statistic"
    LINEAR_INPUT = "linear input"
    NORM_INPUT = "norm input"
    ACTIVATION = "activation"
    MULTIPLICAND = "multiplicand"
    SQUARE = "square"
    ATTENTION = "attention"
    ATTENTION_RESULT = "attention result"
    PROBABILITY = "probability"
    LOG_PROBABILITY = "log probability"
    WORKSPACE = "workspace"
    THRESHOLD = "threshold mask"
    SHAPE = "shape only"
    POOL_INDICES = "pool indices"
    FACTOR = "factor"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    BATCH = "batch"
    OTHER = "other"


#: Roles whose values any lossy codec may touch: they are read with nothing that was
#: computed from the true ones, or with statistics that no scale makes sensitive.
SMOOTH_ROLES = frozenset(
    {
        Role.LINEAR_INPUT,
        Role.NORM_INPUT,
        Role.ACTIVATION,
        Role.MULTIPLICAND,
    }
)

#: Roles whose values are read. Those that are not smooth belong to a softmax or to a
#: function's own workspace, and are for codecs that name them.
VALUE_ROLES = SMOOTH_ROLES | {
    Role.ATTENTION,
    Role.ATTENTION_RESULT,
    Role.PROBABILITY,
    Role.LOG_PROBABILITY,
    Role.WORKSPACE,
}


def _slots(role: Role, *names: str) -> dict[tuple[str, str], Role]:
    """Table rows of one role from ``"Function.slot"`` names."""
    pairs = (name.split(".") for name in names)
    return {(function, slot): role for function, slot in pairs}


#: ``(autograd function, slot)`` -> role. Weights come first: they are never touched,
#: not even the copies that autocast makes of them.
ROLES: dict[tuple[str, str], Role] = {
    **_slots(
        Role.WEIGHT,
        "ConvolutionBackward0.weight",
        "AddmmBackward0.mat2",
        "MmBackward0.mat2",
        "GroupedMmBackward0.mat2",
        "NativeBatchNormBackward0.weight",
        "CudnnBatchNormBackward0.weight",
        "NativeLayerNormBackward0.weight",
        "NativeLayerNormBackward0.bias",
        "NativeGroupNormBackward0.weight",
        "PreluKernelBackward0.weight",
    ),
    **_slots(
        Role.STATISTIC,
        "NativeBatchNormBackward0.running_mean",
        "NativeBatchNormBackward0.running_var",
        "NativeBatchNormBackward0.result1",
        "NativeBatchNormBackward0.result2",
        "CudnnBatchNormBackward0.running_mean",
        "CudnnBatchNormBackward0.running_var",
        "CudnnBatchNormBackward0.result1",
        "CudnnBatchNormBackward0.result2",
        "CudnnBatchNormBackward0.result3",
        "NativeLayerNormBackward0.result1",
        "NativeLayerNormBackward0.result2",
        "NativeGroupNormBackward0.result1",
        "NativeGroupNormBackward0.result2",
    ),
    **_slots(
        Role.LINEAR_INPUT,
        "ConvolutionBackward0.input",
        "AddmmBackward0.mat1",
        "MmBackward0.self",
        "GroupedMmBackward0.self",
    ),
    **_slots(
        Role.NORM_INPUT,
        "NativeBatchNormBackward0.input",
        "CudnnBatchNormBackward0.input",
        "NativeLayerNormBackward0.input",
        "NativeGroupNormBackward0.input",
    ),
    **_slots(
        Role.ACTIVATION,
        "GeluBackward0.self",
        "SiluBackward0.self",
        "MishBackward0.self",
        "SoftplusBackward0.self",
        "HardswishBackward0.self",
        "EluBackward0.self",
        "EluBackward0.self_or_result",
        "GluBackward0.self",
        "LogSigmoidBackward0.self",
        "TanhBackward0.result",
        "SigmoidBackward0.result",
    ),
    **_slots(
        Role.MULTIPLICAND,
        "BmmBackward0.self",
        "BmmBackward0.mat2",
        "BaddbmmBackward0.batch1",
        "BaddbmmBackward0.batch2",
    ),
    **_slots(
        Role.ATTENTION,
        "ScaledDotProductFlashAttentionForCpuBackward0.query",
        "ScaledDotProductFlashAttentionForCpuBackward0.key",
        "ScaledDotProductFlashAttentionForCpuBackward0.value",
    ),
    **_slots(
        Role.ATTENTION_RESULT,
        "ScaledDotProductFlashAttentionForCpuBackward0.output",
        "ScaledDotProductFlashAttentionForCpuBackward0.logsumexp",
    ),
    **_slots(
        Role.PROBABILITY,
        "SoftmaxBackward0.result",
        "SafeSoftmaxBackward0.result",
    ),
    **_slots(Role.LOG_PROBABILITY, "LogSoftmaxBackward0.result"),
    **_slots(
        Role.WORKSPACE,
        "MkldnnRnnLayerBackward0.result0",
        "MkldnnRnnLayerBackward0.result1",
        "MkldnnRnnLayerBackward0.result2",
        "MkldnnRnnLayerBackward0.result3",
    ),
    **_slots(
        Role.THRESHOLD,
        "ReluBackward0.result",
        "LeakyReluBackward0.self",
        "ThresholdBackward0.self",
        "HardtanhBackward0.self",
    ),
    **_slots(
        Role.SHAPE,
        "MaxPool2DWithIndicesBackward0.self",
        "MaxPool3DWithIndicesBackward0.self",
        "AvgPool2DBackward0.self",
        "AvgPool3DBackward0.self",
        "AdaptiveAvgPool2DBackward0.self",
        "AdaptiveAvgPool3DBackward0.self",
        "AdaptiveMaxPool2DBackward0.self",
        "AdaptiveMaxPool3DBackward0.self",
        "FractionalMaxPool2DBackward0.self",
        "ReflectionPad1DBackward0.self",
        "ReflectionPad2DBackward0.self",
        "ReflectionPad3DBackward0.self",
        "ReplicationPad1DBackward0.self",
        "ReplicationPad2DBackward0.self",
        "ReplicationPad3DBackward0.self",
        "GatherBackward0.self",
        "TakeBackward0.self",
        "MaskedSelectBackward0.self",
        "NllLossBackward0.self",
        "NllLoss2DBackward0.self",
    ),
    **_slots(Role.POOL_INDICES, "MaxPool2DWithIndicesBackward0.result1"),
    **_slots(
        Role.FACTOR,
        "MulBackward0.other",
        "MulBackward0.self",
        "ScaledDotProductFlashAttentionForCpuBackward0.attn_mask",
    ),
}


def role_of(function: str, slot: str, tensor: torch.Tensor) -> Role:
    """Role of a saved tensor; a slot not in the table is judged by its dtype."""
    role = ROLES.get((function, slot))
    if role is not None:
        return role
    if tensor.dtype is torch.bool:
        return Role.BOOLEAN
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return Role.INTEGER
    return Role.OTHER


@dataclass(slots=True)
class Slot:
    """One saved tensor's place: its consumer, and the module that saved it.

    Attributes:
        function: autograd function that will read it, ``"ConvolutionBackward0"``.
        name: the slot there, ``"input"``.
        role: use of the tensor in the backward pass.
        module: path of the module that was running, ``"layer1.0.conv1"``.
        node: the function's node while the tensor is being packed (its ``_saved_*``
            attributes hold kernel sizes and thresholds); codecs must not keep it.
        nonnegative: whether the tensor is the result of a ReLU.
        region: the memory that the tensor covers, while it is being packed.
        seed: seed of this tensor's random rounding.

    Example:
        >>> Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT).consumer
        'Convolution.input'
    """

    function: str
    name: str
    role: Role
    module: str = ""
    node: Any = field(default=None, repr=False, compare=False)
    nonnegative: bool = False
    region: Any = field(default=None, repr=False, compare=False)
    seed: int = 0

    def without_graph(self) -> "Slot":
        """A copy without ``node`` and ``region``."""
        return Slot(
            self.function,
            self.name,
            self.role,
            self.module,
            nonnegative=self.nonnegative,
            seed=self.seed,
        )

    @property
    def tokens(self) -> tuple[Any, ...]:
        """Tokens of the other saved tensors in the same memory; not to be kept."""
        return () if self.region is None else self.region.tokens()

    @property
    def consumer(self) -> str:
        """``"Convolution.input"``: the function without its suffix, and the slot."""
        return f"{self.function.split('Backward')[0]}.{self.name}"
