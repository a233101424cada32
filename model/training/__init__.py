"""How the weights come about; never imported by the serving path."""
