"""The benchmark: toromq beside its peers, in one run on one server. See README.md."""
