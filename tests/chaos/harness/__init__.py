"""A proof of the promise for sceptics: a real stack, faults from a seed, a checker that asks no database."""
