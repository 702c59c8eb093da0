"""Drawing: tables and figures from plain numbers."""
