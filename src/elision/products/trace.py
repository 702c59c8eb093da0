"""Recorded products in one file: bit masks, packed values and a JSON header.

A trace is a list of products over a set of tensors; two products that read the same
tensor share it. In memory and on disk a tensor is the bit mask of its non-zeros and
their values, which is also what a sparse accelerator reads. The file is safetensors, so
it holds no code; it is written under another name and renamed when complete.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elision.common.checks import integer
from elision.common.files import load_tensors, save_tensors
from elision.common.notebook import html_table
from elision.products.arithmetic import FP32, Arithmetic
from elision.products.geometries import geometry_from_json
from elision.products.geometry import Geometry
from elision.products.kinds import Product
from elision.products.layer_product import LayerProduct

__all__ = ["PackedTensor", "Trace"]

_FORMAT = 1


@dataclass(frozen=True)
class PackedTensor:
    """A tensor as the bit mask of its non-zeros and their values.

    Attributes:
        mask: ``ceil(n / 8)`` bytes, first value in the highest bit.
        values: the non-zeros in C order, in the tensor's dtype.
        shape: of the tensor.

    Example:
        >>> packed = PackedTensor.pack(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
        >>> packed.values, packed.size_bytes
        (tensor([2., 3.]), 9)
        >>> packed
        PackedTensor(2 of 4 values, float32, 2 x 2)
    """

    mask: Tensor
    values: Tensor
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, x: Tensor) -> "PackedTensor":
        """Pack a tensor of any layout and device."""
        flat = x.detach().cpu().contiguous().flatten()
        nonzero = flat != 0
        mask = torch.from_numpy(np.packbits(nonzero.numpy()))
        return cls(mask, flat[nonzero], tuple(x.shape))

    def unpack(self) -> Tensor:
        """The tensor again, contiguous, on the CPU."""
        size = int(np.prod(self.shape))
        places = np.flatnonzero(np.unpackbits(self.mask.numpy(), count=size))
        flat = torch.zeros(size, dtype=self.values.dtype)
        flat[torch.from_numpy(places)] = self.values
        return flat.view(self.shape)

    def check(self, name: str) -> None:
        """Raise ValueError unless mask, values and shape belong together.

        So a tensor that was read takes at most 64 bytes for each of the file's.

        Args:
            name: of the tensor, for the message.
        """
        if not all(type(side) is int and side >= 0 for side in self.shape):
            raise ValueError(f"tensor {name} has no shape {self.shape}")
        size = math.prod(self.shape)
        if self.mask.dtype != torch.uint8 or self.mask.shape != (-(-size // 8),):
            raise ValueError(
                f"tensor {name}: a mask of {tuple(self.mask.shape)} {self.mask.dtype} is "
                f"none of {size:,} values"
            )
        bits = np.unpackbits(self.mask.numpy())
        if bits[size:].any() or self.values.shape != (int(bits.sum()),):
            raise ValueError(
                f"tensor {name}: the mask has {int(bits.sum()):,} values, the file "
                f"{tuple(self.values.shape)}"
            )

    def __repr__(self) -> str:
        """Numbers of values, dtype and shape, never the values."""
        kept, shape = f"{self.values.numel():,}", " x ".join(map(str, self.shape))
        dtype = str(self.values.dtype).removeprefix("torch.")
        return f"PackedTensor({kept} of {math.prod(self.shape):,} values, {dtype}, {shape})"

    @property
    def density(self) -> float:
        """Fraction of non-zeros; 0 of no values."""
        return self.values.numel() / max(math.prod(self.shape), 1)

    def to_json(self) -> dict[str, Any]:
        """Shape and dtype, which a file's mask and values leave out."""
        return {"shape": list(self.shape), "dtype": str(self.values.dtype)[6:]}

    @property
    def size_bytes(self) -> int:
        """Bytes of the mask and the values."""
        return self.mask.nbytes + self.values.nbytes


@dataclass(frozen=True)
class _Record:
    """One product of the trace; first, second and shared are keys of its tensors."""

    kind: Product
    geometry: Geometry
    name: str
    step: int
    first: str
    second: str
    recipe: str = ""
    shared: str = ""
    arithmetic: Arithmetic = FP32

    def to_json(self) -> dict[str, Any]:
        facts = self.arithmetic.to_json()
        return {
            "product": self.kind.value,
            "layer": self.name,
            "step": self.step,
            "recipe": self.recipe,
            "geometry": self.geometry.to_json(),
            "first": self.first,
            "second": self.second,
            "shared": self.shared,
            # Float32 is not written: files of before stay as they were.
            **({"arithmetic": facts} if facts else {}),
        }

    def check(self, tensors: Mapping[str, PackedTensor]) -> None:
        """Raise ValueError or KeyError unless the tensors are this product's."""
        keys = (self.first, self.second)
        for operand, key in zip(self.kind.operands, keys, strict=True):
            found, wanted = tensors[key].shape, self.geometry.shape_of(operand)
            if found != wanted:
                raise ValueError(
                    f"{self.kind.value} of layer {self.name!r}: {operand} has shape "
                    f"{found}, its geometry {wanted}"
                )
        if self.shared:
            shared, whole = tensors[self.shared].shape, tensors[self.first].shape
            if torch.broadcast_shapes(shared, whole) != whole:
                raise ValueError(
                    f"layer {self.name!r}: {shared} is shared by no batch of {whole}"
                )

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "_Record":
        for name in ("layer", "recipe", "first", "second", "shared"):
            if not isinstance(entry[name], str):
                raise ValueError(f"{name} of a product is {entry[name]!r}, no text")
        integer("trace", "step", entry["step"], ">= 0")
        arithmetic = entry.get("arithmetic", {})
        if not all(isinstance(text, str) for text in arithmetic.values()):
            raise ValueError(f"arithmetic of a product is {arithmetic!r}")
        return cls(
            Product(entry["product"]),
            geometry_from_json(entry["geometry"]),
            entry["layer"],
            entry["step"],
            entry["first"],
            entry["second"],
            entry["recipe"],
            entry["shared"],
            Arithmetic(**arithmetic),
        )


@dataclass(repr=False)
class Trace:
    """Recorded products of training; iterating yields :class:`LayerProduct`.

    Attributes:
        about: facts about the run (recipe, model, data, ...), any JSON.

    Example:
        >>> from elision.products import MatmulGeometry, synthetic_products
        >>> layers = [("fc", MatmulGeometry(2, 3, 4))]
        >>> trace = Trace.of(synthetic_products(layers, 0.5), data="synthetic")
        >>> trace.layers, len(trace)
        (['fc'], 3)
        >>> trace
        Trace(3 products of 1 layer in 1 step, 0.1 KiB, about data)
    """

    about: dict[str, Any] = field(default_factory=dict)
    _records: list[_Record] = field(default_factory=list, repr=False)
    _tensors: dict[str, PackedTensor] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """How much was recorded of what, and the facts that are known of it."""
        counts = [
            f"{_counted(len(self), 'product')} of {_counted(len(self.layers), 'layer')}"
            f" in {_counted(len(self.steps), 'step')}"
        ]
        named = [name for name in self.recipes if name]
        counts += [f"recipes {', '.join(named)}"] if named else []
        counts.append(f"{self.size_bytes / 1024:,.1f} KiB")
        counts += [f"about {', '.join(self.about)}"] if self.about else []
        return f"Trace({', '.join(counts)})"

    def _repr_html_(self) -> str:
        """A row for each product of each layer, densities averaged over its records."""
        rows: dict[tuple[str, str, str, str], list[_Record]] = {}
        for r in self._records:
            key = (r.recipe, r.name, r.kind.value, r.geometry.description)
            rows.setdefault(key, []).append(r)
        header = ["recipe", "layer", "product", "shape", "recorded", "densities"]
        cells = [
            (*key, len(records), self._densities(records))
            for key, records in rows.items()
        ]
        shown = 0 if any(self.recipes) else 1  # a column of empty names says nothing
        return html_table(header[shown:], [row[shown:] for row in cells], repr(self))

    def _densities(self, records: list[_Record]) -> str:
        """Mean density of each operand of one product's records, as text."""
        first, second = records[0].kind.operands
        keys = {first: [r.first for r in records], second: [r.second for r in records]}
        return ", ".join(
            f"{operand} {np.mean([self._tensors[key].density for key in found]):.1%}"
            for operand, found in keys.items()
        )

    def add(
        self,
        product: LayerProduct,
        keys: tuple[str, str] | None = None,
        recipe: str = "",
        shared: Tensor | None = None,
    ) -> None:
        """Append a product; its operands are packed at once.

        Args:
            product: with its operands.
            keys: names of the two tensors; a name that the trace holds already is
                taken to be the same tensor. By default every tensor is its own.
            recipe: name of the recipe it was computed under.
            shared: part that all examples of the first operand have in common, of its
                shape with one example; see :meth:`multiplied`.

        Raises:
            ValueError: the product has no operands.
        """
        if product.first is None:
            raise ValueError(f"{product!r} has no operands to record")
        if keys is None:
            keys = tuple(f"{len(self._records)}/{o}" for o in product.kind.operands)  # pyright: ignore[reportAssignmentType]
        assert keys is not None
        tensors = dict(zip(keys, (product.first, product.second), strict=True))
        common = "" if shared is None else f"{keys[0]}/shared"
        if shared is not None:
            tensors[common] = shared
        for key, operand in tensors.items():
            if key not in self._tensors:
                self._tensors[key] = PackedTensor.pack(torch.as_tensor(operand))
        self._records.append(
            _Record(
                product.kind,
                product.geometry,
                product.name,
                product.step,
                *keys,
                recipe,
                common,
                product.arithmetic,
            )
        )

    def extend(self, other: "Trace", prefix: str = "", recipe: str = "") -> None:
        """Append all products of another trace.

        Args:
            other: the trace; its tensors are shared, not copied.
            prefix: put before the names of its tensors.
            recipe: name to give its products' recipe; empty keeps theirs.
        """
        for key, tensor in other._tensors.items():
            self._tensors[prefix + key] = tensor
        for r in other._records:
            self._records.append(
                replace(
                    r,
                    first=prefix + r.first,
                    second=prefix + r.second,
                    shared=r.shared and prefix + r.shared,
                    recipe=recipe or r.recipe,
                )
            )

    def of_recipe(self, recipe: str) -> "Trace":
        """Products recorded under one recipe; tensors are shared with this trace."""
        records = [r for r in self._records if r.recipe == recipe]
        return Trace(self.about, records, self._tensors)

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes recorded, in order."""
        return list(dict.fromkeys(r.recipe for r in self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[LayerProduct]:
        for record in self._records:
            yield LayerProduct(
                record.kind,
                record.geometry,
                self._tensors[record.first].unpack(),
                self._tensors[record.second].unpack(),
                name=record.name,
                step=record.step,
                arithmetic=record.arithmetic,
            )

    def multiplied(self) -> Iterator[LayerProduct]:
        """The products as a machine multiplies them, example by example.

        A gradient that is a sparse difference from one that the whole batch shares
        (ReSprop) is replaced by that difference. The product of the shared gradient,
        computed once a batch, is left out.
        """
        for record, product in zip(self._records, self, strict=True):
            if not record.shared:
                yield product
                continue
            shared = self._tensors[record.shared].unpack()
            yield replace(product, first=torch.as_tensor(product.first) - shared)

    @classmethod
    def of(cls, products: Iterable[LayerProduct], **about: Any) -> "Trace":
        """Trace of given products."""
        trace = cls(about)
        for product in products:
            trace.add(product)
        return trace

    @property
    def layers(self) -> list[str]:
        """Names of the recorded layers, in the order they were met."""
        return list(dict.fromkeys(r.name for r in self._records))

    @property
    def steps(self) -> list[int]:
        """The recorded training steps, rising."""
        return sorted({r.step for r in self._records})

    @property
    def size_bytes(self) -> int:
        """Bytes of all packed tensors."""
        return sum(t.size_bytes for t in self._tensors.values())

    def save(self, path: str | Path) -> None:
        """Write the trace; the file appears complete or not at all.

        Raises:
            OSError: it cannot be written (no space, no folder); nothing is left behind.
        """
        tensors: dict[str, Tensor] = {}
        for key, packed in self._tensors.items():
            tensors[f"{key}.mask"] = packed.mask
            tensors[f"{key}.values"] = packed.values
        header = {
            "format": _FORMAT,
            "about": self.about,
            "tensors": {key: packed.to_json() for key, packed in self._tensors.items()},
            "products": [r.to_json() for r in self._records],
        }
        digest = _digest(header, self._tensors)
        save_tensors(Path(path), tensors, header | {"digest": digest})

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read a trace.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, corrupted, not a trace, or of another
                format version.
        """
        path = Path(path)
        tensors, header = load_tensors(path, "trace")
        if not isinstance(header, dict) or "products" not in header:
            raise ValueError(f"{path}: a safetensors file, but not a trace")
        if header.get("format") != _FORMAT:
            raise ValueError(
                f"{path}: trace format {header.get('format')!r}; "
                f"this version reads format {_FORMAT}"
            )
        try:
            digest, about = header.pop("digest"), header["about"]
            packed = {
                key: PackedTensor(
                    tensors[f"{key}.mask"],
                    tensors[f"{key}.values"],
                    tuple(facts["shape"]),
                )
                for key, facts in header["tensors"].items()
            }
            written = {key: tensor.to_json() for key, tensor in packed.items()}
            if header["tensors"] != written or digest != _digest(header, packed):
                raise ValueError("its content is not what was written")
            # The digest shows damage, not that a whole trace was written.
            for key, tensor in packed.items():
                tensor.check(key)
            records = [_Record.from_json(entry) for entry in header["products"]]
            for record in records:
                record.check(packed)
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,  # of torch, and a header that is nested too deeply
        ) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}: a corrupted trace ({said})") from error
        return cls(about, records, packed)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _digest(header: dict[str, Any], tensors: dict[str, PackedTensor]) -> str:
    """Checksum of header and tensors."""
    total = hashlib.blake2b(json.dumps(header).encode(), digest_size=16)
    for packed in tensors.values():
        total.update(packed.mask.numpy().tobytes())
        total.update(packed.values.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
