"""Pure rules: they take data and return data, and know no database, broker or network."""
