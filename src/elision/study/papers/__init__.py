"""Published papers beside our own runs, one file or folder each."""

from elision.study.papers.ant.paper import AntClaims
from elision.study.papers.base import Figure as Figure
from elision.study.papers.base import Paper
from elision.study.papers.base import Table as Table
from elision.study.papers.faults.paper import Faults
from elision.study.papers.intergrad.paper import InterleavedGradients
from elision.study.papers.layerpipe.paper import LayerPipe
from elision.study.papers.local_training.paper import LocalTraining
from elision.study.papers.memory.paper import SavedActivations
from elision.study.papers.precision.paper import Precision
from elision.study.papers.scaling.paper import Scaling
from elision.study.papers.scnn import ScnnPoints
from elision.study.papers.sparse_training.paper import SparseTraining
from elision.study.papers.spatial import SpatialDesigns

__all__ = ["PAPERS", "Figure", "Paper", "Table"]

#: Papers by their name on the command line.
PAPERS: dict[str, type[Paper]] = {
    paper.key: paper
    for paper in (
        AntClaims,
        ScnnPoints,
        InterleavedGradients,
        SparseTraining,
        SavedActivations,
        Precision,
        LayerPipe,
        Scaling,
        SpatialDesigns,
        LocalTraining,
        Faults,
    )
}
