"""Published resilience of compressed networks beside our own."""
