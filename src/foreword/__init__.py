"""Dense retrieval with one frozen encoder and one small learned prompt per domain."""
