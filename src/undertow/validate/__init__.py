"""Does a number deserve belief: the engine held against what real venues did.

`sheets` judges one account at many instants in one call; `calls` says when the engine would have
closed it, and scores that against when it was closed. `traders` and `borrowers` rebuild accounts
from what venues publish of them; `lenders` a lending market and all who are in it. `exits` says who
can leave such a market and what is lost, `vaults` what that takes from the shares of vaults, and
how well it was foretold. `episodes` dates trouble, `foretelling` asks whether a number
warned of it, and `increments` whether it adds to what is looked at already. Nothing here reads a
file: the tables come from the caller.
"""
