"""What a convolution costs: work, the machine's rates, and memory."""
