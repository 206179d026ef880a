"""One file per verb: parse, call one flow, render. Knows nothing of how anything is done."""
