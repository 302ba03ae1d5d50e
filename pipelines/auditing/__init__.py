"""The audit of a table: what a thief of it would get, by the attacks themselves."""
