"""TransMiter in pure tensors: Park et al., AAAI 2026, arXiv:2508.08604. No files, no models, no command line."""
