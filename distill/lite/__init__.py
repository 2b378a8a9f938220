"""The embedded student: network, generated pairs, training and export."""
