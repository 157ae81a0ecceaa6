"""What is fitted to a network once it is trained: when it is sure, what its scores say, whether two images overlap."""
