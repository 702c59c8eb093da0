"""Form of a run folder's files: JSON Schemas, and the columns of its tables."""

from elision.study.schemas.files import FILES as FILES
from elision.study.schemas.files import schema as schema
from elision.study.schemas.tables import TABLES as TABLES
from elision.study.schemas.tables import CsvColumn as CsvColumn
from elision.study.schemas.tables import columns_of as columns_of
