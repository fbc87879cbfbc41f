"""`thaw up`: the whole stack on one machine, from packages alone."""
