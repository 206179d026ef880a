"""One file per verb: parse, call one function of `ocickpt`, render. Knows nothing of how anything is done."""

import gc

# A tenth of the time of loading would go by looking for garbage, of which loading makes none.
gc.set_threshold(200_000)
