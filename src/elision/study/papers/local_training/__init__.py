"""FedAvg and DiLoCo: local steps against traffic, beside published claims."""
