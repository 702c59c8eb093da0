"""Layer lists of networks: shapes without weights, values or a framework."""
