"""Partitioners: which processor computes which products of which layers."""

from elision.training.pipeline.partition.base import Bounds as Bounds
from elision.training.pipeline.partition.base import Partition as Partition
from elision.training.pipeline.partition.base import Piece as Piece
from elision.training.pipeline.partition.base import bounds as bounds
from elision.training.pipeline.partition.base import whole_layers as whole_layers
from elision.training.pipeline.partition.contiguous import contiguous as contiguous
from elision.training.pipeline.partition.pipedream import pipedream as pipedream
from elision.training.pipeline.partition.task_split import inter_layer as inter_layer
from elision.training.pipeline.partition.task_split import intra_layer as intra_layer
