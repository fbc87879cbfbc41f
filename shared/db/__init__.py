"""Engine, models, and all SQL: nothing outside this package writes a query."""
