"""OPC UA: a server whose states and results follow the model of OPC 40100-1 (Machine Vision)."""
