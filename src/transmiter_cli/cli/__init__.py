"""The command line. A command parses, calls one function of the workflow, and prints its result."""
