"""The public verbs: what the command line, the flows and other programs call."""
