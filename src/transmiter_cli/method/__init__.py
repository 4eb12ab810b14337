"""TransMiter in pure tensors: Park et al., AAAI 2026, arXiv:2508.08604. No files, no models, no command line.

`paper` has the adapter, `linear` what is solved in closed form, `consensus` discriminant transfer, which is beyond the
paper; docs/method.md has the formulas. The other modules are what these have in common.
"""
