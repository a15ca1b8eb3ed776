"""Where synthetic samples live: append-only rounds of parquet on any fsspec path.

```
<root>/store.json                        format, recipe fingerprint, class names
<root>/round-0003/plan.parquet           every request, written before anything is generated
<root>/round-0003/shard-00007.parquet    images and what is known of them
<root>/round-0003/verdicts.parquet       accepted or not, and why not
<root>/round-0003/round.json             a summary; where it stands, the round is complete
```

``datasets.load_dataset("parquet", data_files="<root>/round-*/shard-*.parquet")`` opens the shards
with decoded images and named labels. A file is there whole or not at all: it is written under a
temporary name and renamed. One process writes a store, see ``alone``; any number may read it.
"""

from activegen.store.alone import LOCK, alone
from activegen.store.pixels import MAX_PIXELS, from_png, png
from activegen.store.rounds import RoundStore
from activegen.store.store import OtherRecipe, Store

__all__ = ["LOCK", "MAX_PIXELS", "OtherRecipe", "RoundStore", "Store", "alone", "from_png", "png"]
