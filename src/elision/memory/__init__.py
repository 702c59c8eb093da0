"""What is kept between the forward and the backward pass."""
