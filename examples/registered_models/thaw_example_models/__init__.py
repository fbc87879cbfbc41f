"""Networks of one's own, offered to Thaw through the entry-point group `thaw.models`."""
