"""The mathematics that engines are made of: transforms, windows, lattices, and sizes of values."""
