"""Modbus TCP: a panel of bits and registers that a PLC reads, and triggers inspections with."""
