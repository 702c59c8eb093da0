"""The three products of a training step: kinds, shapes, operands, counts, traces."""

from elision.products.arithmetic import FP32 as FP32
from elision.products.arithmetic import Arithmetic as Arithmetic
from elision.products.conv1d import Conv1dGeometry as Conv1dGeometry
from elision.products.convolution import Conv2dGeometry as Conv2dGeometry
from elision.products.convolution import Conv3dGeometry as Conv3dGeometry
from elision.products.convolution import Convolution as Convolution
from elision.products.counts import ProductCounts as ProductCounts
from elision.products.describe import ProductRow as ProductRow
from elision.products.describe import count as count
from elision.products.describe import describe as describe
from elision.products.geometries import geometry_of as geometry_of
from elision.products.geometry import Geometry as Geometry
from elision.products.kinds import OPERANDS as OPERANDS
from elision.products.kinds import Product as Product
from elision.products.layer_product import LayerProduct as LayerProduct
from elision.products.lookup import LookupGeometry as LookupGeometry
from elision.products.matmul import MatmulGeometry as MatmulGeometry
from elision.products.parameters import INPUTS_FIRST as INPUTS_FIRST
from elision.products.parameters import ConvolutionParameters as ConvolutionParameters
from elision.products.synthetic import sparse_array as sparse_array
from elision.products.synthetic import synthetic_products as synthetic_products
from elision.products.trace import PackedTensor as PackedTensor
from elision.products.trace import Trace as Trace
from elision.products.transposed import (
    ConvTranspose1dGeometry as ConvTranspose1dGeometry,
)
from elision.products.transposed import (
    ConvTranspose2dGeometry as ConvTranspose2dGeometry,
)
from elision.products.transposed import (
    ConvTranspose3dGeometry as ConvTranspose3dGeometry,
)
from elision.products.transposed import TransposedConvolution as TransposedConvolution
from elision.products.transposed import (
    TransposedMatmulGeometry as TransposedMatmulGeometry,
)
