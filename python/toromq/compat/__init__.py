"""Drop-ins: the names of other packages over toromq."""
