"""How venues and protocols judge an account.

`lending`, `perp`, `markets`, `scaled` and `interest` are the venues' rules as plain functions for
one account; `profile` is how each real venue differs, as dated data. They stand on the kernels
that judge a whole book, so a number at the prompt is the number of the engine.
"""
