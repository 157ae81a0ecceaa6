"""How close an exported model comes to the network that it was made from, and how fast it is."""
