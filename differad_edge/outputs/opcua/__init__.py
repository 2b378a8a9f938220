"""OPC UA: a server after the model of OPC 40100-1 (Machine Vision), and a client that writes into a PLC's server."""
