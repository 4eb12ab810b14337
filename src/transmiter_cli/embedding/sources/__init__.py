"""Where images come from: one reader per kind of data, and the records that all of them give."""

from transmiter_cli.embedding.sources.images import ImageFile as ImageFile
from transmiter_cli.embedding.sources.images import ImageRecord as ImageRecord
from transmiter_cli.embedding.sources.images import ImageSet as ImageSet
from transmiter_cli.embedding.sources.opening import open_images as open_images
from transmiter_cli.embedding.sources.spec import DataSpec as DataSpec
